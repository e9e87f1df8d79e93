// Power cuts, kills, full disks and failing calls under the cache: every read is right bytes or
// absence.
#include <catch2/catch.hpp>

#include <new>
#include <utility>
#include <vector>

#include "tests/support/sim_file.h"
#include "tests/unit/page_cache_fixture.h"

using namespace dims;
using namespace dims::test;
using ldim::PageCache;

namespace {

std::uint64_t count_right(PageCache& cache, std::uint64_t from, std::uint64_t to) {
  std::uint64_t right = 0;
  for (std::uint64_t i = from; i < to; ++i)
    right += look(cache, i, kPages) == Seen::kRight ? 1u : 0u;
  return right;
}

void insert_all(PageCache& cache, std::uint64_t from, std::uint64_t to, unsigned lives = 0) {
  for (std::uint64_t i = from; i < to; ++i) {
    REQUIRE(cache.insert(object_id(i), object_bytes(i, kPages), lives).ok());
  }
}

}  // namespace

TEST_CASE("after a power cut anywhere synced objects are there and nothing is wrong") {
  SeededRandom random(seed());
  for (int round = 0; round < 40; ++round) {
    SimFileSystem disk;
    auto cache = open_cache(disk, cache_options(), random);
    disk.stop_at_call(disk.calls() + random.below(900));
    std::uint64_t inserted = 0;
    std::uint64_t synced = 0;
    while (inserted < 250) {
      if (!cache->insert(object_id(inserted), object_bytes(inserted, kPages), 0).ok()) break;
      ++inserted;
      if (random.below(20) == 0 && cache->sync().ok()) synced = inserted;
    }
    for (int outcome = 0; outcome < 3; ++outcome) {
      const std::uint64_t cut_seed = random.next();
      INFO("round " << round << ", cut " << cut_seed << ", inserted " << inserted << ", synced "
                    << synced);
      auto found = disk.after_power_cut(cut_seed);
      auto again = open_cache(*found, cache_options(), random);
      CHECK(count_right(*again, 0, synced) == synced);
      count_right(*again, synced, 250);
      REQUIRE(again->sync().ok());
      for (std::uint64_t i = 0; i < 250; ++i) {
        REQUIRE(again->insert(object_id(i), object_bytes(i, kPages), 0).ok());
      }
      CHECK(count_right(*again, 0, 250) == 250);
      CHECK(again->verify_all().value() == 0);
    }
  }
}

TEST_CASE(
    "a power cut while old segments are being evicted serves nothing wrong and keeps what has "
    "lives") {
  SeededRandom random(seed() + 1);
  for (int round = 0; round < 8; ++round) {
    SimFileSystem disk;
    auto cache = open_cache(disk, cache_options(), random);
    insert_all(*cache, 0, 20, 3);
    REQUIRE(cache->sync().ok());
    insert_all(*cache, 100, 1200);
    // Somewhere in the next two evictions.
    disk.stop_at_call(disk.calls() + random.below(700));
    for (std::uint64_t i = 2000; i < 2400; ++i) {
      if (!cache->insert(object_id(i), object_bytes(i, kPages), 0).ok()) break;
    }
    const std::uint64_t cut_seed = random.next();
    INFO("round " << round << ", cut " << cut_seed);
    auto found = disk.after_power_cut(cut_seed);
    auto again = open_cache(*found, cache_options(), random);
    CHECK(folder_bytes(*found) <= PageCache::kMinLimitBytes);
    CHECK(count_right(*again, 0, 20) == 20);
    count_right(*again, 100, 2400);
    insert_all(*again, 5000, 5050);
    CHECK(count_right(*again, 5000, 5050) == 50);
  }
}

TEST_CASE("a killed process loses nothing that it had inserted") {
  SimFileSystem disk;
  auto cache = open_cache(disk, cache_options());
  insert_all(*cache, 0, 200);
  auto left = disk.copy();
  auto again = open_cache(*left, cache_options());
  CHECK(count_right(*again, 0, 200) == 200);
  CHECK(again->stats().damaged_pages == 0);
}

TEST_CASE("any one call of an insert may fail: not cached, and the cache goes on") {
  for (const SimFault fault : {SimFault::kIo, SimFault::kSpace, SimFault::kShort}) {
    for (std::uint64_t call = 0; call < 40; ++call) {
      SimFileSystem disk;
      auto cache = open_cache(disk, cache_options());
      disk.fail_call(disk.calls() + call, fault);
      std::uint64_t failed = 0;
      for (std::uint64_t i = 0; i < 20; ++i) {
        const Status status = cache->insert(object_id(i), object_bytes(i, kPages), 0);
        if (!status) {
          ++failed;
          CHECK((status.error().code == ErrorCode::kIo ||
                 status.error().code == ErrorCode::kNoSpace));
          CHECK(look(*cache, i, kPages) == Seen::kAbsent);
        }
      }
      INFO("call " << call << ", failed " << failed);
      CHECK(failed <= 1);
      CHECK(cache->stats().failed_inserts == failed);
      count_right(*cache, 0, 20);
      insert_all(*cache, 100, 120);
      CHECK(count_right(*cache, 100, 120) == 20);
      CHECK(cache->stats().damaged_pages == 0);
      cache = nullptr;
      cache = open_cache(disk, cache_options());
      CHECK(count_right(*cache, 100, 120) == 20);
      CHECK(cache->stats().damaged_pages == 0);
    }
  }
}

TEST_CASE(
    "any one call may fail while segments are evicted: the limit holds and the cache goes on") {
  SeededRandom random(seed() + 2);
  for (int round = 0; round < 30; ++round) {
    SimFileSystem disk;
    auto cache = open_cache(disk, cache_options());
    insert_all(*cache, 0, 1250, 1);
    disk.fail_call(disk.calls() + random.below(1500),
                   random.below(2) == 0 ? SimFault::kIo : SimFault::kSpace);
    for (std::uint64_t i = 2000; i < 2400; ++i) {
      (void)cache->insert(object_id(i), object_bytes(i, kPages), 1);
      if (i % 20 == 0) REQUIRE(folder_bytes(disk) <= PageCache::kMinLimitBytes);
    }
    disk.clear_faults();
    count_right(*cache, 0, 1250);
    count_right(*cache, 2000, 2400);
    insert_all(*cache, 5000, 5100);
    CHECK(count_right(*cache, 5000, 5100) == 100);
    CHECK(folder_bytes(disk) <= PageCache::kMinLimitBytes);
  }
}

TEST_CASE("a disk that fails for a moment at a start costs no page of the cache") {
  for (std::uint64_t call = 0; call < 60; ++call) {
    SimFileSystem disk;
    {
      auto cache = open_cache(disk, cache_options());
      insert_all(*cache, 0, 20);
    }
    {
      auto cache = open_cache(disk, cache_options());
      insert_all(*cache, 20, 40);
    }
    disk.fail_call(disk.calls() + call, SimFault::kIo);
    {
      auto cache = PageCache::open(disk, cache_options(), system_random());
      for (std::uint64_t i = 100; cache.ok() && i < 110; ++i)  // the fault may strike here
        (void)(*cache)->insert(object_id(i), object_bytes(i, kPages), 0).ok();
    }
    disk.clear_faults();
    auto cache = open_cache(disk, cache_options());
    INFO("call " << call);
    CHECK(count_right(*cache, 0, 40) == 40);
    CHECK(cache->stats().damaged_pages == 0);
  }
}

TEST_CASE("an insert that runs out of memory keeps nobody waiting") {
  SimFileSystem disk;
  auto cache = open_cache(disk, cache_options());
  insert_all(*cache, 0, 20);
  bool once = false;
  disk.on_write([&](const std::string&, std::uint64_t, std::uint64_t) {
    if (!std::exchange(once, true)) throw std::bad_alloc();
  });
  CHECK_THROWS_AS(cache->insert(object_id(20), object_bytes(20, kPages), 0), std::bad_alloc);
  CHECK(look(*cache, 20, kPages) == Seen::kAbsent);
  // Its segment can be evicted: that waits for all writers.
  for (std::uint64_t i = 100; cache->stats().evicted_pages == 0; ++i) {
    REQUIRE(i < 20000);
    insert_all(*cache, i, i + 1);
  }
}

TEST_CASE("a failed sync is told, and the next one does not lie") {
  SimFileSystem disk;
  auto cache = open_cache(disk, cache_options());
  insert_all(*cache, 0, 20);
  disk.fail_next_sync();
  CHECK(cache->sync().error().code == ErrorCode::kIo);
  CHECK(count_right(*cache, 0, 20) == 0);  // what may not be on the disk is not kept
  insert_all(*cache, 20, 40);
  REQUIRE(cache->sync().ok());
  auto found = disk.after_power_cut(seed());
  auto again = open_cache(*found, cache_options());
  CHECK(count_right(*again, 20, 40) == 20);
  count_right(*again, 0, 20);
}

TEST_CASE("on a full disk the cache yields, stops growing, and grows again when there is room") {
  SimFileSystem disk;
  auto cache = open_cache(disk, cache_options(32 * kMiB));
  disk.set_capacity(10 * kMiB);
  std::uint64_t failed = 0;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const Status status = cache->insert(object_id(i), object_bytes(i, kPages), 0);
    if (!status) {
      ++failed;
      CHECK(status.error().code == ErrorCode::kNoSpace);
    }
    if (i % 50 == 0) count_right(*cache, i > 50 ? i - 50 : 0, i);
  }
  CHECK(failed > 0);
  CHECK(failed == cache->stats().failed_inserts);
  CHECK(cache->stats().limit_bytes < 32 * kMiB);
  disk.set_capacity(0);
  insert_all(*cache, 10000, 14000);
  CHECK(cache->stats().limit_bytes == 32 * kMiB);
  CHECK(cache->stats().bytes > 24 * kMiB);
  CHECK(folder_bytes(disk) <= 32 * kMiB);
  CHECK(look(*cache, 13999, kPages) == Seen::kRight);
}

TEST_CASE("the cache gives space back when it is asked to") {
  SimFileSystem disk;
  disk.set_capacity(20 * kMiB);
  auto cache = open_cache(disk, cache_options());
  insert_all(*cache, 0, 1000);
  const std::uint64_t before = folder_bytes(disk);
  REQUIRE(cache->yield_space(4 * kMiB).ok());
  CHECK(folder_bytes(disk) + 4 * kMiB <= before);
  CHECK(cache->stats().limit_bytes <= before - 4 * kMiB);
  CHECK(look(*cache, 0, kPages) == Seen::kAbsent);  // the oldest went
  CHECK(look(*cache, 999, kPages) == Seen::kRight);
  const Status all = cache->yield_space(kGiB);
  CHECK(all.error().code == ErrorCode::kNoSpace);
  CHECK(folder_bytes(disk) == 0);
  disk.set_capacity(kMiB);  // somebody else took it
  CHECK(cache->insert(object_id(1), object_bytes(1, kPages), 0).error().code ==
        ErrorCode::kNoSpace);
  CHECK(cache->insert(object_id(1), object_bytes(1, kPages), 0).error().code ==
        ErrorCode::kNoSpace);
  disk.set_capacity(0);
  insert_all(*cache, 0, 100);
  CHECK(count_right(*cache, 0, 100) == 100);
}
