// How long the cache's hot paths take: random 4 KiB reads with the place known, runs, inserts,
// reopening.
//   cache_bench FOLDER [MIB]      (the folder is filled and emptied; default 512 MiB)
// Prints the median of 5 rounds; the files stay in the kernel's page cache. Times of one thread are
// CPU times, so that neighbours on a shared machine disturb less.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "nbdkit-ldim/cache/page_cache.h"
#include "tests/support/keys.h"

using namespace dims;

namespace {

double cpu_now() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double cpu_seconds_of(const std::function<void()>& work) {
  const double from = cpu_now();
  work();
  return cpu_now() - from;
}

double seconds_of(const std::function<void()>& work) {
  const auto from = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

double median_of_5(const std::function<double()>& round) {
  std::vector<double> rounds;
  for (int i = 0; i < 5; ++i) rounds.push_back(round());
  std::sort(rounds.begin(), rounds.end());
  return rounds[2];
}

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "cache_bench: %s\n", what);
  std::exit(1);
}

struct Object {
  ObjectId id;
  ldim::CachePlace place;
};

double read_random(ldim::PageCache& cache, const std::vector<Object>& objects,
                   std::uint32_t object_pages, std::uint32_t run_pages, std::uint64_t count,
                   std::uint64_t seed) {
  SeededRandom random(seed);
  Bytes out(run_pages * kPageBytes);
  return cpu_seconds_of([&] {
    for (std::uint64_t i = 0; i < count; ++i) {
      const Object& object = objects[random.below(objects.size())];
      const auto first = static_cast<std::uint32_t>(random.below(object_pages - run_pages + 1));
      if (cache.read(object.place, object.id, first, out) != ldim::CacheRead::kOk)
        fail("a read failed");
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) fail("usage: cache_bench FOLDER [MIB]");
  const std::uint64_t bytes = (argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 512) * kMiB;
  ldim::PageCacheOptions options;
  options.folder = argv[1];
  options.limit_bytes = 10 * kGiB;
  options.key = dims::test::filled_key(7);
  for (const auto& [pages, tag_memory] : {std::pair{5u, true}, {5u, false}, {64u, true}}) {
    options.tag_memory_bytes = tag_memory ? ldim::PageCacheOptions{}.tag_memory_bytes : 0;
    std::printf("-- objects of %u pages, %s tag memory\n", pages, tag_memory ? "with" : "without");
    auto opened = ldim::PageCache::open(io::posix_file_system(), options, system_random());
    if (!opened.ok()) fail(opened.error().to_string().c_str());
    auto cache = std::move(opened).value();
    cache->clear();
    SeededRandom random(1);
    Bytes data(pages * kPageBytes);
    random.fill(data);
    std::vector<Object> objects(bytes / data.size());
    for (Object& object : objects) object.id = random.id<ObjectId>();
    const double filled = cpu_seconds_of([&] {
      for (const Object& object : objects) {
        if (!cache->insert(object.id, data, 0).ok()) fail("an insert failed");
      }
    });
    const double mib = static_cast<double>(bytes) / static_cast<double>(kMiB);
    std::printf("%2u pages: insert %.0f MiB/s, %.2f us an object\n", pages, mib / filled,
                filled * 1e6 / static_cast<double>(objects.size()));
    std::printf("%2u pages: sync %.2f s\n", pages, seconds_of([&] { (void)cache->sync(); }));
    cache.reset();
    const double reopened = cpu_seconds_of([&] {
      cache = ldim::PageCache::open(io::posix_file_system(), options, system_random()).value();
    });
    std::printf("%2u pages: reopen %.3f s, %.2f us an object\n", pages, reopened,
                reopened * 1e6 / static_cast<double>(objects.size()));
    const double found = cpu_seconds_of([&] {
      for (Object& object : objects) object.place = cache->find(object.id, nullptr);
    });
    std::printf("%2u pages: find %.0f ns\n", pages,
                found * 1e9 / static_cast<double>(objects.size()));
    constexpr std::uint64_t kReads = 200000;
    const double one =
        median_of_5([&] { return read_random(*cache, objects, pages, 1, kReads, 2); }) / kReads *
        1e6;
    std::printf("%2u pages: random 4 KiB read, place known: %.2f us\n", pages, one);
    const double two = median_of_5([&] {
      return seconds_of([&] {
        std::thread other([&] { read_random(*cache, objects, pages, 1, kReads, 3); });
        read_random(*cache, objects, pages, 1, kReads, 4);
        other.join();
      });
    });
    std::printf("%2u pages: the same from 2 threads: %.0f reads/s together\n", pages,
                2 * kReads / two);
    const double run =
        median_of_5([&] { return read_random(*cache, objects, pages, pages, 8000, 5); });
    std::printf("%2u pages: whole objects (%u KiB): %.2f GB/s\n", pages, pages * 4,
                8000.0 * static_cast<double>(data.size()) / run / 1e9);
    cache->clear();
  }
  return 0;
}
