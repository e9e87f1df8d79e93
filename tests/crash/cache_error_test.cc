// Every I/O call of a scripted run over the cache fails once, in every way: no read is ever wrong,
// the folder stays within its limit, and the cache works again when the disk does.
#include <catch2/catch.hpp>
#include <spdlog/spdlog.h>

#include <cstdio>

#include "tests/support/sim_file.h"
#include "tests/support/sizes.h"
#include "tests/unit/page_cache_fixture.h"

using namespace dims;
using namespace dims::test;
using ldim::PageCache;

namespace {

constexpr std::uint32_t kPages = 2;
constexpr std::uint32_t kLargePages = 128;
constexpr std::uint64_t kLarge = 1000;  // objects from this number on have kLargePages

std::uint32_t pages_of(std::uint64_t number) { return number < kLarge ? kPages : kLargePages; }

Status insert(PageCache& cache, std::uint64_t number, unsigned lives) {
  return cache.insert(object_id(number), object_bytes(number, pages_of(number)), lives);
}

// How many of the objects are there; anything but right bytes or absence fails.
std::uint64_t present(PageCache& cache, std::uint64_t from, std::uint64_t to) {
  std::uint64_t right = 0;
  for (std::uint64_t i = from; i < to; ++i)
    right += look(cache, i, pages_of(i)) == Seen::kRight ? 1u : 0u;
  return right;
}

// Two opens; inserts, reads, syncs, space given back, everything checked. Every failure is an
// answer, never an end.
void run_script(SimFileSystem& disk, Random& random) {
  for (std::uint64_t part = 0; part < 2; ++part) {
    auto opened = PageCache::open(disk, cache_options(), random);
    if (!opened.ok()) continue;
    PageCache& cache = **opened;
    const std::uint64_t base = part * 20;
    for (std::uint64_t i = 0; i < 6; ++i) (void)insert(cache, base + i, i % 4).ok();
    (void)cache.sync().ok();
    (void)insert(cache, kLarge + 100 + base, 0).ok();
    (void)present(cache, base, base + 6);
    (void)insert(cache, base + 10, 0).ok();
    (void)cache.sync().ok();
    if (part == 1) {
      (void)cache.verify_all().ok();
      (void)cache.yield_space(2 * kMiB).ok();
    }
  }
}

// On a folder that is nearly full: the oldest segment goes, some of it is carried over.
void run_eviction(SimFileSystem& disk, Random& random) {
  auto opened = PageCache::open(disk, cache_options(), random);
  if (!opened.ok()) return;
  for (std::uint64_t i = 0; i < 3; ++i) (void)insert(**opened, kLarge + 100 + i, 0).ok();
  (void)(*opened)->sync().ok();
}

void check_after(SimFileSystem& disk, Random& random) {
  auto opened = PageCache::open(disk, cache_options(), random);
  if (!opened.ok()) FAIL(opened.error().to_string());
  PageCache& cache = **opened;
  (void)present(cache, 0, 40);
  for (std::uint64_t i = 0; i < 30; i += 5) (void)present(cache, kLarge + i, kLarge + i + 1);
  (void)present(cache, kLarge + 100, kLarge + 103);
  REQUIRE(folder_bytes(disk) <= PageCache::kMinLimitBytes);
  for (std::uint64_t i = 500; i < 503; ++i) REQUIRE(insert(cache, i, 1).ok());
  REQUIRE(cache.sync().ok());
  REQUIRE(present(cache, 500, 503) == 3);
}

// Every call of `script` on a copy of `start`, with every fault.
template <typename Script>
void fail_every_call(const SimFileSystem& start, Random& random, Script&& script) {
  std::uint64_t calls = 0;
  {
    const auto disk = start.copy();
    script(*disk, random);
    calls = disk->calls();
  }
  const Calls which = calls_to_fail();
  std::uint64_t hits = 0, tried = 0;
  for (std::uint64_t index = which.first; index < calls; index += which.step) {
    ++tried;
    for (const SimFault fault : {SimFault::kIo, SimFault::kSpace, SimFault::kShort}) {
      const auto disk = start.copy();
      disk->fail_call(index, fault);
      INFO("call " << index << " of " << calls << ", fault " << static_cast<int>(fault));
      script(*disk, random);
      if (disk->fault_hit()) ++hits;
      disk->clear_faults();
      if (index % 2 == 0) {  // killed at the end, or a power cut: taking turns keeps it quick
        check_after(*disk, random);
      } else {
        check_after(*disk->after_power_cut(seed() + index), random);
      }
    }
  }
  std::printf("%llu of %llu calls, each failed 3 ways\n", static_cast<unsigned long long>(tried),
              static_cast<unsigned long long>(calls));
  CHECK(calls > 50);
  CHECK(hits >= tried * 3 * 9 / 10);  // a failure may shorten what follows
}

}  // namespace

TEST_CASE("an_error_at_any_call_of_the_cache_serves_nothing_wrong") {
  spdlog::set_level(spdlog::level::err);
  SeededRandom random(seed());
  fail_every_call(SimFileSystem(), random, run_script);
}

TEST_CASE("an_error_at_any_call_of_an_eviction_serves_nothing_wrong") {
  spdlog::set_level(spdlog::level::err);
  SeededRandom random(seed() + 1);
  SimFileSystem full;
  {
    auto cache = open_cache(full, cache_options(), random);
    for (std::uint64_t i = 0; i < 27; ++i)
      REQUIRE(insert(*cache, kLarge + i, i % 5 == 0 ? 1 : 0).ok());
    REQUIRE(cache->sync().ok());
  }
  fail_every_call(full, random, run_eviction);
}
