// The cache against a model: whatever it answers is right bytes or absence, and it keeps its limit.
#include <catch2/catch.hpp>

#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "nbdkit-ldim/cache/cache_index.h"
#include "tests/unit/page_cache_fixture.h"

using namespace dims;
using namespace dims::test;
using ldim::CachePlace;
using ldim::CacheRead;
using ldim::PageCache;

TEST_CASE("what was inserted is found and read, in part and as a whole") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  const Bytes data = object_bytes(1, 5);
  CHECK_FALSE(cache->find(object_id(1), nullptr).known());
  REQUIRE(cache->insert(object_id(1), data, 0).ok());
  std::uint32_t pages = 0;
  const CachePlace place = cache->find(object_id(1), &pages);
  REQUIRE(place.known());
  CHECK(pages == 5);
  Bytes middle(2 * kPageBytes);
  REQUIRE(cache->read(place, object_id(1), 2, middle) == CacheRead::kOk);
  CHECK(std::equal(middle.begin(), middle.end(), data.begin() + 2 * kPageBytes));
  CHECK(look(*cache, 1, 5) == Seen::kRight);
  CHECK(cache->stats().pages == 5);
  CHECK(cache->stats().objects == 1);

  SECTION("more pages than are present are gone, not zero") {
    Bytes more(2 * kPageBytes, 1);
    CHECK(cache->read(place, object_id(1), 4, more) == CacheRead::kGone);
    CHECK(is_all_zero(more));
    CHECK(cache->stats().damaged_pages == 0);
  }
  SECTION("the same object again costs nothing, a longer one replaces") {
    const auto before = cache->stats();
    REQUIRE(cache->insert(object_id(1), data, 0).ok());
    REQUIRE(cache->insert(object_id(1), ByteView(data).first(kPageBytes), 0).ok());
    CHECK(cache->stats().bytes == before.bytes);
    REQUIRE(cache->insert(object_id(1), object_bytes(1, 9), 0).ok());
    CHECK(cache->stats().objects == 1);
    CHECK(cache->stats().pages == 9);
    CHECK(look(*cache, 1, 9) == Seen::kRight);
    CHECK(cache->read(place, object_id(1), 2, middle) ==
          CacheRead::kOk);  // the old place still tells the truth
  }
  SECTION("the place of one object does not open as another") {
    Bytes page(kPageBytes, 1);
    CHECK(cache->read(place, object_id(2), 0, page) == CacheRead::kGone);
    CHECK(is_all_zero(page));
    CHECK(look(*cache, 1, 5) == Seen::kRight);
  }
  SECTION("clear leaves nothing, and the cache goes on") {
    cache->clear();
    CHECK(look(*cache, 1, 5) == Seen::kAbsent);
    CHECK(cache->read(place, object_id(1), 2, middle) == CacheRead::kGone);
    CHECK(folder_bytes(fs) == 0);
    CHECK(cache->stats().bytes == 0);
    REQUIRE(cache->insert(object_id(1), data, 0).ok());
    CHECK(look(*cache, 1, 5) == Seen::kRight);
  }
}

TEST_CASE("bad arguments are refused with a reason") {
  io::MemoryFileSystem fs;
  auto small = PageCache::open(fs, cache_options(PageCache::kMinLimitBytes - 1), system_random());
  REQUIRE_FALSE(small.ok());
  CHECK(small.error().code == ErrorCode::kInvalidArgument);
  CHECK(small.error().to_string().find("cache-size") != std::string::npos);

  auto cache = open_cache(fs, cache_options());
  CHECK(cache->insert(object_id(1), Bytes(100), 0).error().code == ErrorCode::kInvalidArgument);
  CHECK(cache->insert(object_id(1), Bytes(), 0).error().code == ErrorCode::kInvalidArgument);
  CHECK(cache->insert(object_id(1), Bytes(129 * kPageBytes), 0).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(cache->insert(object_id(1), Bytes(kPageBytes), 4).error().code ==
        ErrorCode::kInvalidArgument);
  Bytes page(kPageBytes, 1);
  CHECK(cache->read(CachePlace{}, object_id(1), 0, page) == CacheRead::kGone);
  CHECK(is_all_zero(page));
  page.assign(kPageBytes, 1);
  CHECK(cache->read(CachePlace{~std::uint64_t{0}}, object_id(1), 0, page) == CacheRead::kGone);
  CHECK(is_all_zero(page));
}

TEST_CASE("the largest objects work at the smallest limit") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t i = 0; i < 60; ++i) {
    REQUIRE(cache->insert(object_id(i), object_bytes(i, 128), 0).ok());
    REQUIRE(look(*cache, i, 128) == Seen::kRight);
    REQUIRE(folder_bytes(fs) <= PageCache::kMinLimitBytes);
  }
}

TEST_CASE("what the cache says is free can be put in without an eviction") {
  SeededRandom random(seed());
  const std::uint64_t limit = GENERATE(16 * kMiB, 48 * kMiB);
  const bool reopen = GENERATE(false, true);
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options(limit));
  for (std::uint64_t i = 0;; ++i) {
    const auto pages = static_cast<std::uint32_t>(1 + random.below(128));
    if (cache->stats().free_pages < pages) break;
    REQUIRE(cache->insert(object_id(i), object_bytes(i, pages), 0).ok());
    REQUIRE(cache->stats().evicted_pages == 0);
    if (reopen && i % 20 == 19) cache = open_cache(fs, cache_options(limit));
  }
  // Room for a new segment is always kept; ends of segments are too short for the next object.
  CHECK(cache->stats().bytes > limit / 2);
}

TEST_CASE("random work against a model: never wrong bytes, never over the limit") {
  SeededRandom random(seed());
  io::MemoryFileSystem fs;
  std::uint64_t limit = PageCache::kMinLimitBytes + random.below(16 * kMiB);
  auto cache = open_cache(fs, cache_options(limit));
  struct Known {
    std::uint32_t pages = 0;
    CachePlace place;
  };
  std::map<std::uint64_t, Known> model;
  std::uint64_t hits = 0;
  std::uint64_t lookups = 0;
  std::uint64_t next = 1;
  for (int step = 0; step < 12000; ++step) {
    const std::uint64_t dice = random.below(1000);
    if (dice < 500 || model.empty()) {
      const auto pages =
          static_cast<std::uint32_t>(1 + random.below(random.below(20) == 0 ? 128 : 12));
      const std::uint64_t number = next++;
      REQUIRE(cache
                  ->insert(object_id(number), object_bytes(number, pages),
                           static_cast<unsigned>(random.below(4)))
                  .ok());
      model[number] = {pages, cache->find(object_id(number), nullptr)};
      if (model.size() > 4000) model.erase(model.begin());
    } else if (dice < 990) {
      auto at = model.lower_bound(next - std::min(next - 1, random.below(3000)));
      if (at == model.end()) at = model.begin();
      ++lookups;
      if (look(*cache, at->first, at->second.pages) == Seen::kRight) ++hits;
      // An old place: right bytes or gone.
      Bytes page(kPageBytes, 1);
      const auto which = static_cast<std::uint32_t>(random.below(at->second.pages));
      const CacheRead result = cache->read(at->second.place, object_id(at->first), which, page);
      REQUIRE(result != CacheRead::kDamaged);
      if (result == CacheRead::kOk) {
        const Bytes want = object_bytes(at->first, at->second.pages);
        REQUIRE(std::equal(page.begin(), page.end(),
                           want.begin() + which * static_cast<std::ptrdiff_t>(kPageBytes)));
      } else {
        REQUIRE(is_all_zero(page));
      }
    } else if (dice < 996) {
      REQUIRE(cache->sync().ok());
    } else {
      const auto before = cache->stats();
      cache.reset();
      if (random.below(2) == 0) limit = PageCache::kMinLimitBytes + random.below(16 * kMiB);
      cache = open_cache(fs, cache_options(limit));
      if (limit >= before.limit_bytes) {
        CHECK(cache->stats().objects == before.objects);
        CHECK(cache->stats().pages == before.pages);
      }
    }
    if (step % 16 == 0) {
      REQUIRE(folder_bytes(fs) <= limit);
      REQUIRE(folder_bytes(fs) <= cache->stats().bytes);
      REQUIRE(cache->stats().bytes <= limit);
    }
  }
  CHECK(cache->stats().damaged_pages == 0);
  CHECK(hits > lookups / 10);
  CHECK(cache->verify_all().value() == 0);
}

TEST_CASE("a reopened cache holds what it held, under any limit that is large enough") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options(64 * kMiB));
  for (std::uint64_t i = 0; i < 1000; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, 8), 0).ok());
  REQUIRE(cache->sync().ok());
  cache.reset();
  cache = open_cache(fs, cache_options(64 * kMiB));
  for (std::uint64_t i = 0; i < 1000; ++i) REQUIRE(look(*cache, i, 8) == Seen::kRight);
  // Opening and closing alone makes no files.
  const std::uint64_t before = folder_bytes(fs);
  for (int i = 0; i < 3; ++i) cache = nullptr, cache = open_cache(fs, cache_options(64 * kMiB));
  CHECK(folder_bytes(fs) == before);
  // A smaller limit drops the oldest at once.
  cache = nullptr;
  cache = open_cache(fs, cache_options(16 * kMiB));
  CHECK(folder_bytes(fs) <= 16 * kMiB);
  CHECK(cache->stats().bytes <= 16 * kMiB);
  CHECK(look(*cache, 0, 8) == Seen::kAbsent);
  CHECK(look(*cache, 999, 8) == Seen::kRight);
  REQUIRE(cache->insert(object_id(5000), object_bytes(5000, 8), 0).ok());
  CHECK(folder_bytes(fs) <= 16 * kMiB);
}

TEST_CASE("short runs take only the space of what they hold") {
  io::MemoryFileSystem fs;
  for (std::uint64_t run = 0; run < 30; ++run) {
    auto cache = open_cache(fs, cache_options());
    REQUIRE(cache->insert(object_id(run), object_bytes(run, 4), 0).ok());
  }
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t run = 0; run < 30; ++run) CHECK(look(*cache, run, 4) == Seen::kRight);
  CHECK(cache->stats().bytes < 30 * 40 * kKiB);
}

TEST_CASE("hundreds of short runs push nothing out of a cache that has room") {
  io::MemoryFileSystem fs;
  const auto options = cache_options(64 * kMiB);
  std::uint64_t number = 0;
  {
    auto cache = open_cache(fs, options);
    for (; number < 400; ++number)
      REQUIRE(cache->insert(object_id(number), object_bytes(number, 16), 0).ok());
  }
  for (int run = 0; run < 400; ++run, ++number) {
    auto cache = open_cache(fs, options);
    REQUIRE(cache->insert(object_id(number), object_bytes(number, 2), 0).ok());
    REQUIRE(cache->stats().evicted_pages == 0);
  }
  auto cache = open_cache(fs, options);
  for (std::uint64_t i = 0; i < number; ++i)
    REQUIRE(look(*cache, i, i < 400 ? 16 : 2) == Seen::kRight);
}

TEST_CASE("a place that outlived its segment is gone") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  REQUIRE(cache->insert(object_id(0), object_bytes(0, 4), 0).ok());
  const CachePlace place = cache->find(object_id(0), nullptr);
  for (std::uint64_t i = 1; i < 1500; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, 4), 0).ok());
  CHECK_FALSE(cache->find(object_id(0), nullptr).known());
  Bytes page(kPageBytes, 1);
  CHECK(cache->read(place, object_id(0), 0, page) == CacheRead::kGone);
  CHECK(is_all_zero(page));
  CHECK(cache->stats().evicted_pages > 0);
  CHECK(cache->stats().damaged_pages == 0);
}

TEST_CASE("eviction carries over what was used and what has lives") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  // 20 hot objects, 20 with three lives, 20 that nobody asks for.
  for (std::uint64_t i = 0; i < 60; ++i) {
    REQUIRE(cache->insert(object_id(i), object_bytes(i, 2), i / 20 == 1 ? 3 : 0).ok());
  }
  const auto pour = [&](std::uint64_t from, std::uint64_t count, bool keep_hot) {
    for (std::uint64_t i = from; i < from + count; ++i) {
      REQUIRE(cache->insert(object_id(i), object_bytes(i, 4), 0).ok());
      if (!keep_hot) continue;
      for (std::uint64_t hot = 0; hot < 20; ++hot) REQUIRE(look(*cache, hot, 2) == Seen::kRight);
    }
  };
  pour(1000, 1200, true);  // somewhat more than the cache holds
  std::uint32_t with_lives = 0;
  std::uint32_t cold = 0;
  for (std::uint64_t i = 20; i < 40; ++i)
    with_lives += cache->find(object_id(i), nullptr).known() ? 1u : 0u;
  for (std::uint64_t i = 40; i < 60; ++i)
    cold += cache->find(object_id(i), nullptr).known() ? 1u : 0u;
  CHECK(with_lives == 20);
  CHECK(cold == 0);
  CHECK(cache->stats().carried_pages >= 80);
  // Lives run out when nobody asks; what is asked for stays for ever.
  pour(10000, 8000, true);
  for (std::uint64_t i = 20; i < 40; ++i) CHECK_FALSE(cache->find(object_id(i), nullptr).known());
  for (std::uint64_t hot = 0; hot < 20; ++hot) CHECK(look(*cache, hot, 2) == Seen::kRight);
  // And goes like everything else once nobody asks.
  pour(30000, 4000, false);
  for (std::uint64_t hot = 0; hot < 20; ++hot)
    CHECK_FALSE(cache->find(object_id(hot), nullptr).known());
}

TEST_CASE("a cache in which everything is hot still takes new objects") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t i = 0; i < 6000; ++i) {
    REQUIRE(cache->insert(object_id(i), object_bytes(i, 4), 3).ok());
    REQUIRE(look(*cache, i, 4) == Seen::kRight);
    if (i % 50 == 0) REQUIRE(folder_bytes(fs) <= PageCache::kMinLimitBytes);
  }
}

TEST_CASE("eight threads insert, read, sync and evict at once") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> hits{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      SeededRandom random(seed() + t);
      for (int step = 0; step < 2500; ++step) {
        const std::uint64_t number = random.below(1600);
        const auto pages = static_cast<std::uint32_t>(1 + number % 9);
        const Bytes want = object_bytes(number, pages);
        const CachePlace place = cache->find(object_id(number), nullptr);
        if (place.known()) {
          Bytes out(want.size());
          const CacheRead result = cache->read(place, object_id(number), 0, out);
          if (result == CacheRead::kDamaged || (result == CacheRead::kOk && out != want)) ++wrong;
          if (result == CacheRead::kOk) ++hits;
        } else if (!cache->insert(object_id(number), want, static_cast<unsigned>(number % 4))
                        .ok()) {
          ++wrong;
        }
        if (random.below(200) == 0 && !cache->sync().ok()) ++wrong;
        if (random.below(2000) == 0) cache->clear();
        if (t == 0 && random.below(500) == 0 && cache->verify_all().value() != 0) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(hits > 0);
  CHECK(cache->stats().damaged_pages == 0);
  CHECK(folder_bytes(fs) <= PageCache::kMinLimitBytes);
  // The totals that were kept agree with what is there.
  std::uint64_t objects = 0;
  std::uint64_t present = 0;
  for (std::uint64_t number = 0; number < 1600; ++number) {
    std::uint32_t pages = 0;
    if (!cache->find(object_id(number), &pages).known()) continue;
    ++objects;
    present += pages;
  }
  CHECK(cache->stats().objects == objects);
  CHECK(cache->stats().pages == present);
}

TEST_CASE("the index in memory agrees with a map and stays small") {
  SeededRandom random(seed());
  ldim::CacheIndex index(random.next());
  std::map<std::uint64_t, ldim::PackedPlace> model;
  std::vector<ObjectId> ids;
  for (int step = 0; step < 60000; ++step) {
    if (random.below(3) != 0 || ids.empty()) {
      ids.push_back(random.id<ObjectId>());
      const auto place = ldim::PackedPlace::make(1 + random.below(40),
                                                 static_cast<std::uint32_t>(random.below(16000)),
                                                 static_cast<std::uint32_t>(1 + random.below(128)),
                                                 static_cast<unsigned>(random.below(4)));
      index.put(index.key_of(ids.back()), place);
      model[index.key_of(ids.back())] = place;
    } else {
      const std::uint64_t key = index.key_of(ids[random.below(ids.size())]);
      const auto at = model.find(key);
      const bool there = at != model.end();
      CHECK(index.erase(key, there ? at->second.location() : 1) == there);
      if (there) model.erase(at);
    }
    if (step % 20000 == 19999) {
      const std::uint64_t victim = 1 + random.below(40);
      std::uint64_t pages = 0;
      CHECK(index.in_segment(victim).size() ==
            static_cast<std::size_t>(std::count_if(
                model.begin(), model.end(),
                [&](const auto& entry) { return entry.second.sequence() == victim; })));
      std::erase_if(model, [&](const auto& entry) {
        if (entry.second.sequence() != victim) return false;
        pages += entry.second.pages();
        return true;
      });
      CHECK(index.erase_segment(victim) == pages);
    }
  }
  std::uint64_t pages = 0;
  for (const auto& [key, place] : model) {
    const auto found = index.find(key);
    REQUIRE(found);
    REQUIRE(found->value == place.value);
    pages += place.pages();
  }
  for (int i = 0; i < 1000; ++i) CHECK_FALSE(index.find(index.key_of(random.id<ObjectId>())));
  CHECK(index.totals().objects == model.size());
  CHECK(index.totals().pages == pages);
}

TEST_CASE("1.3 million objects cost at most 24 bytes of memory each") {
  SeededRandom random(seed());
  ldim::CacheIndex index(random.next());
  std::uint64_t worst = 0;
  for (std::uint64_t i = 1; i <= 1'300'000; ++i) {
    index.put(index.key_of(random.id<ObjectId>()),
              ldim::PackedPlace::make(1 + i / 4096, i % 4096 * 4, 4, 0));
    if (i % 50'000 == 0) worst = std::max(worst, index.totals().memory_bytes * 100 / i);
  }
  WARN("bytes an object: " << static_cast<double>(index.totals().memory_bytes) / 1.3e6
                           << ", worst on the way " << static_cast<double>(worst) / 100);
  CHECK(worst <= 2400);
}
