// What becomes of a cache whose files were damaged, cut, exchanged or planted: pages are lost,
// never wrong, and the cache goes on.
#include <catch2/catch.hpp>

#include <functional>
#include <map>
#include <vector>

#include "tests/support/keys.h"
#include "tests/unit/page_cache_fixture.h"

using namespace dims;
using namespace dims::test;
using ldim::CacheFileKind;
using ldim::CachePlace;
using ldim::CacheRead;
using ldim::PageCache;

namespace {

constexpr std::uint64_t kObjects = 120;
std::vector<std::string> cache_files(io::FileSystem& fs) { return fs.list(kCacheFolder).value(); }

void fill(io::FileSystem& fs, const ldim::PageCacheOptions& options, std::uint64_t first = 0) {
  auto cache = open_cache(fs, options);
  for (std::uint64_t i = first; i < first + kObjects; ++i) {
    REQUIRE(cache->insert(object_id(i), object_bytes(i, kPages), 0).ok());
  }
}

std::uint64_t count_right(PageCache& cache, std::uint64_t first = 0) {
  std::uint64_t right = 0;
  for (std::uint64_t i = first; i < first + kObjects; ++i)
    right += look(cache, i, kPages) == Seen::kRight ? 1u : 0u;
  return right;
}

// The cache takes everything in again and serves it.
void check_goes_on(io::FileSystem& fs, PageCache& cache) {
  for (std::uint64_t i = 0; i < kObjects; ++i) {
    REQUIRE(cache.insert(object_id(i), object_bytes(i, kPages), 0).ok());
  }
  CHECK(count_right(cache) == kObjects);
  CHECK(folder_bytes(fs) <= PageCache::kMinLimitBytes);
}

void flip(io::FileSystem& fs, const std::string& name, std::size_t at) {
  Bytes bytes = file_bytes(fs, name);
  REQUIRE(at < bytes.size());
  bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ 0x10);
  write_file(fs, name, bytes);
}

std::uint64_t segment_of(PageCache& cache, std::uint64_t number) {
  return cache.find(object_id(number), nullptr).value >> 30 & 0x7fffffff;
}

std::uint32_t slot_of(PageCache& cache, std::uint64_t number) {
  return static_cast<std::uint32_t>(cache.find(object_id(number), nullptr).value >> 7 & 0x7fffff);
}

std::string seg(std::uint64_t sequence) {
  return ldim::cache_file_name(CacheFileKind::kData, sequence);
}
std::string idx(std::uint64_t sequence) {
  return ldim::cache_file_name(CacheFileKind::kIndex, sequence);
}

std::uint32_t capacity() { return ldim::cache_segment_capacity(PageCache::kMinLimitBytes); }

}  // namespace

TEST_CASE("a flipped byte anywhere costs at most what it touches") {
  SeededRandom random(seed());
  for (int round = 0; round < 60; ++round) {
    io::MemoryFileSystem fs;
    fill(fs, cache_options());
    const auto names = cache_files(fs);
    const std::string name = names[random.below(names.size())];
    const std::size_t size = file_bytes(fs, name).size();
    // Headers, tags and records are small: aim at them often.
    const std::size_t at =
        random.below(random.below(2) == 0 ? size : std::min<std::size_t>(size, 8192));
    flip(fs, name, at);
    INFO("byte " << at << " of " << name);
    auto cache = open_cache(fs, cache_options());
    const std::uint64_t right = count_right(*cache);
    const bool header = at < sizeof(ldim::CacheHeaderLayout);
    if (header)
      CHECK(right <= kObjects);  // the whole segment may go
    else
      CHECK(right >= kObjects - 1);
    CHECK(cache->stats().damaged_pages <= 1);
    if (!header && right < kObjects && name.ends_with(".seg"))
      CHECK(cache->stats().damaged_pages == 1);
    check_goes_on(fs, *cache);
  }
}

TEST_CASE("a damaged page is dropped once, zeroed, counted, and can be cached again") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t i = 0; i < 10; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, kPages), 0).ok());
  const std::uint64_t offset = ldim::cache_page_offset(capacity(), slot_of(*cache, 4) + 1);
  flip(fs, seg(segment_of(*cache, 4)), offset + 100);
  const CachePlace place = cache->find(object_id(4), nullptr);
  Bytes first(kPageBytes);
  CHECK(cache->read(place, object_id(4), 0, first) ==
        CacheRead::kOk);  // the neighbour page is whole
  Bytes out(kPages * kPageBytes, 1);
  CHECK(cache->read(place, object_id(4), 0, out) == CacheRead::kDamaged);
  CHECK(is_all_zero(out));
  CHECK(cache->stats().damaged_pages == 1);
  out.assign(out.size(), 1);
  CHECK(cache->read(place, object_id(4), 0, out) == CacheRead::kGone);  // told once
  CHECK(is_all_zero(out));
  CHECK(cache->stats().damaged_pages == 1);
  CHECK_FALSE(cache->find(object_id(4), nullptr).known());
  CHECK(cache->stats().objects == 9);
  REQUIRE(cache->insert(object_id(4), object_bytes(4, kPages), 0).ok());
  CHECK(look(*cache, 4, kPages) == Seen::kRight);
  cache = nullptr;
  cache = open_cache(fs, cache_options());  // two records now speak of it: the later one counts
  CHECK(look(*cache, 4, kPages) == Seen::kRight);
}

TEST_CASE("files cut anywhere open as what is left") {
  SeededRandom random(seed() + 1);
  for (int round = 0; round < 60; ++round) {
    io::MemoryFileSystem fs;
    fill(fs, cache_options());
    const auto names = cache_files(fs);
    const std::string name = names[random.below(names.size())];
    Bytes bytes = file_bytes(fs, name);
    bytes.resize(random.below(bytes.size()));
    write_file(fs, name, bytes);
    INFO(name << " cut to " << bytes.size());
    auto cache = open_cache(fs, cache_options());
    count_right(*cache);
    check_goes_on(fs, *cache);
  }
}

TEST_CASE("a file cut under the running cache loses pages, no more") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t i = 0; i < kObjects; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, kPages), 0).ok());
  auto file = fs.open(kCacheFolder + "/" + seg(1), io::OpenMode::kReadWrite).value();
  REQUIRE(file->truncate(file->size().value() / 2).ok());
  const std::uint64_t right = count_right(*cache);
  CHECK(right < kObjects);
  CHECK(right > 0);
  CHECK(cache->stats().damaged_pages == kObjects - right);
  check_goes_on(fs, *cache);
}

TEST_CASE("files are exchanged, doubled, renamed or torn apart") {
  io::MemoryFileSystem fs;
  fill(fs, cache_options());
  const auto names = cache_files(fs);
  REQUIRE(names.size() >= 4);
  const Bytes seg1 = file_bytes(fs, seg(1));
  const Bytes seg2 = file_bytes(fs, seg(2));
  const Bytes idx1 = file_bytes(fs, idx(1));
  const Bytes idx2 = file_bytes(fs, idx(2));
  SECTION("two segments' data files change places") {
    write_file(fs, seg(1), seg2);
    write_file(fs, seg(2), seg1);
  }
  SECTION("two segments change places with their indexes") {
    write_file(fs, seg(1), seg2);
    write_file(fs, seg(2), seg1);
    write_file(fs, idx(1), idx2);
    write_file(fs, idx(2), idx1);
  }
  SECTION("the bodies of two segments change places under their own headers") {
    const auto body = static_cast<std::ptrdiff_t>(ldim::kCacheHeaderBytes);
    Bytes mixed(seg1.begin(), seg1.begin() + body);
    mixed.insert(mixed.end(), seg2.begin() + body, seg2.end());
    write_file(fs, seg(1), mixed);
  }
  SECTION("an index's records stand under another header") {
    const auto body = static_cast<std::ptrdiff_t>(ldim::kCacheHeaderBytes);
    Bytes mixed(idx1.begin(), idx1.begin() + body);
    mixed.insert(mixed.end(), idx2.begin() + body, idx2.end());
    write_file(fs, idx(1), mixed);
  }
  SECTION("an index is missing") { REQUIRE(fs.remove(kCacheFolder + "/" + idx(1)).ok()); }
  SECTION("a data file is missing") { REQUIRE(fs.remove(kCacheFolder + "/" + seg(1)).ok()); }
  SECTION("a segment stands there under a second number") {
    write_file(fs, seg(7), seg1);
    write_file(fs, idx(7), idx1);
  }
  SECTION("names that no segment can have") {
    write_file(fs, "99999999999999999999999999.seg", seg1);
    write_file(fs, "1.idx", idx1);
    write_file(fs, "9999999999.seg", seg1);
  }
  SECTION("strange files are left alone") { write_file(fs, "notes.txt", as_bytes("mine")); }
  auto cache = open_cache(fs, cache_options());
  const std::uint64_t right = count_right(*cache);
  CHECK(right <= kObjects);
  check_goes_on(fs, *cache);
  for (const std::string& name : cache_files(fs)) {
    if (name == "notes.txt") continue;
    CHECK(ldim::parse_cache_file_name(name)->sequence != 0);  // nothing useless stays to take space
  }
}

TEST_CASE("slots that change places are noticed, also inside one object") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t i = 0; i < 10; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, kPages), 0).ok());
  Bytes bytes = file_bytes(fs, seg(1));
  const auto exchange = [&](std::uint32_t a, std::uint32_t b) {
    for (std::size_t i = 0; i < kPageBytes; ++i) {
      std::swap(bytes[ldim::cache_page_offset(capacity(), a) + i],
                bytes[ldim::cache_page_offset(capacity(), b) + i]);
    }
    for (std::size_t i = 0; i < crypto::kTagBytes; ++i) {
      std::swap(bytes[ldim::cache_tag_offset(a) + i], bytes[ldim::cache_tag_offset(b) + i]);
    }
  };
  exchange(slot_of(*cache, 1), slot_of(*cache, 2));      // the same page of two objects
  exchange(slot_of(*cache, 3), slot_of(*cache, 3) + 1);  // two pages of one
  write_file(fs, seg(1), bytes);
  for (std::uint64_t i = 0; i < 10; ++i) {
    CHECK(look(*cache, i, kPages) == (i >= 1 && i <= 3 ? Seen::kAbsent : Seen::kRight));
  }
  CHECK(cache->stats().damaged_pages == 3);
}

TEST_CASE("old but valid bytes put back into a reused number are noticed") {
  io::MemoryFileSystem fs;
  fill(fs, cache_options());
  const Bytes old_data = file_bytes(fs, seg(1));
  const Bytes old_index = file_bytes(fs, idx(1));
  for (const auto& name : cache_files(fs)) REQUIRE(fs.remove(kCacheFolder + "/" + name).ok());
  fill(fs, cache_options(), 1000);  // numbers begin again, under another salt
  SECTION("the whole data file") { write_file(fs, seg(1), old_data); }
  SECTION("its pages under the new header") {
    Bytes mixed = file_bytes(fs, seg(1));
    std::copy(old_data.begin() + static_cast<std::ptrdiff_t>(ldim::kCacheHeaderBytes),
              old_data.end(), mixed.begin() + static_cast<std::ptrdiff_t>(ldim::kCacheHeaderBytes));
    write_file(fs, seg(1), mixed);
  }
  SECTION("both files: an old state that was valid, whose objects are what their ids say") {
    write_file(fs, seg(1), old_data);
    write_file(fs, idx(1), old_index);
  }
  auto cache = open_cache(fs, cache_options());
  count_right(*cache);  // look() checks the bytes
  count_right(*cache, 1000);
  check_goes_on(fs, *cache);
}

TEST_CASE("segments of another machine, image or key are not ours") {
  io::MemoryFileSystem fs;
  auto foreign = cache_options();
  SECTION("machine") { foreign.machine.bytes[0] ^= 1; }
  SECTION("image") { foreign.image.bytes[15] ^= 1; }
  SECTION("key") { foreign.key = dims::test::bent_key(foreign.key, 7); }
  fill(fs, foreign);
  auto cache = open_cache(fs, cache_options());
  CHECK(cache->stats().objects == 0);
  CHECK(count_right(*cache) == 0);
  CHECK(cache->stats().damaged_pages == 0);
  CHECK(folder_bytes(fs) == 0);
  check_goes_on(fs, *cache);
}

TEST_CASE("verify_all finds every kind of damage and drops it") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t i = 0; i < kObjects; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, kPages), 0).ok());
  CHECK(cache->verify_all().value() == 0);
  flip(fs, seg(segment_of(*cache, 5)), ldim::cache_page_offset(capacity(), slot_of(*cache, 5)));
  flip(fs, seg(segment_of(*cache, 9)), ldim::cache_tag_offset(slot_of(*cache, 9) + kPages - 1));
  flip(fs, idx(segment_of(*cache, 20)),
       ldim::cache_record_offset(20));  // record numbers follow the inserts
  CHECK(cache->verify_all().value() == 3 * kPages);
  CHECK(cache->stats().objects == kObjects - 3);
  CHECK(cache->stats().damaged_pages == 3);
  CHECK(cache->verify_all().value() == 0);
  for (const std::uint64_t i : {5u, 9u, 20u})
    CHECK_FALSE(cache->find(object_id(i), nullptr).known());
  check_goes_on(fs, *cache);
}

TEST_CASE("damage does not spread when eviction carries over") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t i = 0; i < 20; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, 2), 3).ok());
  flip(fs, seg(1), ldim::cache_page_offset(capacity(), slot_of(*cache, 3)) + 7);
  for (std::uint64_t i = 100; i < 1300; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, 4), 0).ok());
  for (std::uint64_t i = 0; i < 20; ++i)
    CHECK(look(*cache, i, 2) == (i == 3 ? Seen::kAbsent : Seen::kRight));
  CHECK(cache->stats().damaged_pages == 1);
}

TEST_CASE("no nonce is ever used twice under one key") {
  // A page's key follows from the salt, its nonce from the sequence and the slot.
  io::MemoryFileSystem fs;
  SeededRandom random(seed());
  std::map<std::pair<ldim::CacheSalt, std::uint64_t>, Bytes>
      seen;  // (salt, sequence) -> pages as they were first seen
  std::uint64_t number = 0;
  for (int open = 0; open < 12; ++open) {
    auto cache = open_cache(fs, cache_options(), random);
    if (open % 4 == 3) cache->clear();
    for (int i = 0; i < 60; ++i) {
      REQUIRE(
          cache->insert(object_id(number), object_bytes(number, 4), number % 3 == 0 ? 1 : 0).ok());
      ++number;
    }
    cache.reset();
    for (const std::string& name : cache_files(fs)) {
      if (!name.ends_with(".seg")) continue;
      const Bytes bytes = file_bytes(fs, name);
      const auto header = ldim::parse_cache_header(CacheFileKind::kData, bytes);
      REQUIRE(header.ok());
      const auto [at, fresh] = seen.try_emplace({header->salt, header->sequence}, bytes);
      if (!fresh) CHECK(at->second == bytes);  // never written again after the open that made it
    }
    // The next open has no file to learn the newest number from: it begins again, under another
    // salt.
    if (open % 4 == 1) {
      for (const std::string& name : cache_files(fs))
        REQUIRE(fs.remove(kCacheFolder + "/" + name).ok());
    }
  }
  CHECK(seen.size() >= 12);
}
