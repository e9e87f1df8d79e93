// The checksum that replaces RocksDB's must be RocksDB's.
#include <dlfcn.h>

#include <catch2/catch.hpp>

#include "common/base/bytes.h"
#include "rdim-server/stores/fast_crc32c.h"
#include "tests/support/seed.h"

namespace rocksdb::crc32c {
std::uint32_t Extend(std::uint32_t crc, const char* data, std::size_t size);
}

namespace dims {
namespace {

using Extend = std::uint32_t (*)(std::uint32_t, const char*, std::size_t);
constexpr const char* kName = "_ZN7rocksdb6crc32c6ExtendEjPKcm";

TEST_CASE("crc32c has the standard's value") {
  CHECK(rocksdb::crc32c::Extend(0, "123456789", 9) == 0xe3069283U);
  CHECK(rocksdb::crc32c::Extend(0, "", 0) == 0);
}

TEST_CASE("crc32c is the value that the library computes, at any length, place and beginning") {
  const auto library = reinterpret_cast<Extend>(dlsym(RTLD_NEXT, kName));
  REQUIRE(library != nullptr);
  SeededRandom random(test::seed());
  Bytes bytes(5000);
  random.fill(bytes);
  const auto* const data = reinterpret_cast<const char*>(bytes.data());
  for (std::size_t size = 0; size < 100; ++size) {
    for (std::size_t at = 0; at < 9; ++at) {
      const auto begin = static_cast<std::uint32_t>(size * 2654435761U + at);
      CHECK(rocksdb::crc32c::Extend(begin, data + at, size) == library(begin, data + at, size));
    }
  }
  CHECK(rocksdb::crc32c::Extend(7, data, bytes.size()) == library(7, data, bytes.size()));
}

TEST_CASE("the library calls ours where the processor can") {
  if (!stores::fast_crc32c()) return;
  CHECK(dlsym(RTLD_DEFAULT, kName) != dlsym(RTLD_NEXT, kName));
}

}  // namespace
}  // namespace dims
