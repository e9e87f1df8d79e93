// What the cache's tests share: objects whose bytes follow from their id, and a look at the folder.
#pragma once

#include <catch2/catch.hpp>

#include <memory>
#include <string>
#include <utility>

#include "common/io/memory_file.h"
#include "nbdkit-ldim/cache/cache_format.h"
#include "nbdkit-ldim/cache/page_cache.h"
#include "tests/support/keys.h"
#include "tests/support/seed.h"

namespace dims::test {

inline const std::string kCacheFolder = "/cache";
inline constexpr std::uint32_t kPages = 3;  // of an object, where a test does not care

inline ObjectId object_id(std::uint64_t number) {
  SeededRandom random(number * 2 + 1);
  return random.id<ObjectId>();
}

// The right bytes of an object: they depend on nothing but its number.
inline Bytes object_bytes(std::uint64_t number, std::uint32_t pages) {
  Bytes bytes(pages * kPageBytes);
  SeededRandom random(number * 2);
  random.fill(bytes);
  return bytes;
}

inline ldim::PageCacheOptions cache_options(
    std::uint64_t limit_bytes = ldim::PageCache::kMinLimitBytes) {
  ldim::PageCacheOptions options;
  options.folder = kCacheFolder;
  options.machine.bytes.fill(0x11);
  options.image.bytes.fill(0x22);
  options.key = dims::test::filled_key(0x33);
  options.limit_bytes = limit_bytes;
  return options;
}

inline std::unique_ptr<ldim::PageCache> open_cache(io::FileSystem& fs,
                                                   const ldim::PageCacheOptions& options,
                                                   Random& random = system_random()) {
  auto cache = ldim::PageCache::open(fs, options, random);
  if (!cache) FAIL("cannot open the cache: " << cache.error().to_string());
  return std::move(cache).value();
}

// The sizes of all files in the cache's folder together (0 if a planned fault strikes this very
// call).
inline std::uint64_t folder_bytes(io::FileSystem& fs) {
  std::uint64_t sum = 0;
  const auto names = fs.list(kCacheFolder);
  if (!names) return 0;
  for (const std::string& name : *names) {
    auto file = fs.open(kCacheFolder + "/" + name, io::OpenMode::kReadOnly);
    if (!file) continue;
    const auto size = (*file)->size();
    if (size) sum += *size;
  }
  return sum;
}

inline Bytes file_bytes(io::FileSystem& fs, const std::string& name) {
  auto bytes = io::read_file(fs, kCacheFolder + "/" + name, std::size_t{1} << 30);
  REQUIRE(bytes.ok());
  return *bytes;
}

inline void write_file(io::FileSystem& fs, const std::string& name, ByteView bytes) {
  auto file = fs.open(kCacheFolder + "/" + name, io::OpenMode::kCreate);
  REQUIRE(file.ok());
  REQUIRE((*file)->truncate(0).ok());
  REQUIRE((*file)->write_at(0, bytes).ok());
}

enum class Seen { kRight, kAbsent };

// Looks an object up and reads all its present pages. Anything but right bytes or absence fails the
// test.
inline Seen look(ldim::PageCache& cache, std::uint64_t number, std::uint32_t pages) {
  std::uint32_t present = 0;
  const ldim::CachePlace place = cache.find(object_id(number), &present);
  if (!place.known()) return Seen::kAbsent;
  REQUIRE(present <= pages);
  Bytes out(present * kPageBytes, 0xee);
  const ldim::CacheRead result = cache.read(place, object_id(number), 0, out);
  if (result != ldim::CacheRead::kOk) {
    CHECK(is_all_zero(out));
    return Seen::kAbsent;
  }
  const Bytes want = object_bytes(number, pages);
  if (std::memcmp(out.data(), want.data(), out.size()) != 0)
    FAIL("wrong bytes of object " << number);
  return Seen::kRight;
}

}  // namespace dims::test
