// The memory of tags only saves work: whatever it holds, the file decides.
#include <catch2/catch.hpp>

#include <atomic>
#include <thread>
#include <vector>

#include "nbdkit-ldim/cache/tag_memory.h"
#include "tests/unit/page_cache_fixture.h"

using namespace dims;
using namespace dims::test;
using ldim::TagMemory;

namespace {

// Tags of a line: tag i is 16 times (base + i), never zero.
Bytes line_of(std::uint8_t base, std::uint32_t tags) {
  Bytes line;
  for (std::uint32_t i = 0; i < tags; ++i) {
    line.insert(line.end(), crypto::kTagBytes, static_cast<std::uint8_t>((base + i) % 255 + 1));
  }
  return line;
}

}  // namespace

TEST_CASE("tags are remembered by segment and slot, and unwritten ones are not") {
  TagMemory memory(64 * kKiB, 1000);
  Bytes out(4 * crypto::kTagBytes);
  CHECK_FALSE(memory.get(1, 0, 1, out.data()));
  CHECK(memory.wants(1, 300));
  const Bytes line = line_of(3, 10);
  memory.put(1, 300, line);  // slots 256 to 265 of the line that begins at 256
  REQUIRE(memory.get(1, 258, 4, out.data()));
  CHECK(std::equal(out.begin(), out.end(),
                   line.begin() + 2 * static_cast<std::ptrdiff_t>(crypto::kTagBytes)));
  CHECK_FALSE(memory.get(1, 264, 4, out.data()));  // runs into what the file did not have
  CHECK_FALSE(memory.get(2, 258, 1, out.data()));
  CHECK_FALSE(memory.get(1, 2, 1, out.data()));
  memory.put(1, 0, line_of(9, TagMemory::kLineTags));
  CHECK(memory.get(1, 254, 4, out.data()));  // across two lines
}

TEST_CASE("a line in use is not pushed out by the first that comes") {
  TagMemory memory(1, 256);  // one line
  Bytes tag(crypto::kTagBytes);
  memory.put(1, 0, line_of(1, TagMemory::kLineTags));
  REQUIRE(memory.get(1, 0, 1, tag.data()));
  CHECK_FALSE(memory.wants(2, 0));
  CHECK(memory.wants(1, 5));
  for (int i = 0; i < 3; ++i) (void)memory.wants(2, 0);
  CHECK(memory.wants(2, 0));
  memory.put(2, 0, line_of(2, TagMemory::kLineTags));
  CHECK_FALSE(memory.get(1, 0, 1, tag.data()));
  CHECK(memory.get(2, 0, 1, tag.data()));
}

TEST_CASE("readers of one line never see a mixture of two") {
  TagMemory memory(1, 256);
  std::atomic<std::uint64_t> mixed{0};
  std::atomic<int> readers{2};
  const Bytes first(TagMemory::kLineBytes, 0x11);
  const Bytes second(TagMemory::kLineBytes, 0x22);
  std::vector<std::thread> threads;
  for (std::uint64_t sequence = 1; sequence <= 2; ++sequence) {
    threads.emplace_back([&, sequence] {
      Bytes out(64 * crypto::kTagBytes);
      for (int hits = 0; hits < 300;) {
        if (!memory.get(sequence, 7, 64, out.data())) continue;
        ++hits;
        for (const std::uint8_t byte : out) mixed += byte == 0x11 * sequence ? 0u : 1u;
      }
      --readers;
    });
  }
  threads.emplace_back([&] {
    for (std::uint64_t i = 0; readers != 0; ++i) {
      memory.put(1 + i % 2, 0, i % 2 == 0 ? first : second);
      std::this_thread::yield();
    }
  });
  for (auto& thread : threads) thread.join();
  CHECK(mixed == 0);
}

TEST_CASE("what is read does not depend on how many tags are remembered") {
  for (const std::uint64_t bytes : {std::uint64_t{0}, 8 * kKiB, 16 * kMiB}) {
    io::MemoryFileSystem fs;
    auto options = cache_options();
    options.tag_memory_bytes = bytes;
    auto cache = open_cache(fs, options);
    CHECK(cache->stats().tag_memory_bytes <= std::max<std::uint64_t>(bytes, 8 * kKiB));
    for (std::uint64_t i = 0; i < 600; ++i) {
      const auto pages = static_cast<std::uint32_t>(1 + i % 40);
      REQUIRE(cache->insert(object_id(i), object_bytes(i, pages), 0).ok());
      // Reading at once remembers lines that are only partly written.
      REQUIRE(look(*cache, i, pages) == Seen::kRight);
      if (i > 10) look(*cache, i - 10, 1 + static_cast<std::uint32_t>((i - 10) % 40));
    }
    CHECK(cache->stats().damaged_pages == 0);
  }
}

TEST_CASE("a tag damaged in the file is found by checking, remembered or not") {
  io::MemoryFileSystem fs;
  auto cache = open_cache(fs, cache_options());
  for (std::uint64_t i = 0; i < 10; ++i)
    REQUIRE(cache->insert(object_id(i), object_bytes(i, 2), 0).ok());
  for (std::uint64_t i = 0; i < 10; ++i) REQUIRE(look(*cache, i, 2) == Seen::kRight);
  const auto slot =
      static_cast<std::uint32_t>(cache->find(object_id(3), nullptr).value >> 7 & 0x7fffff);
  const std::string name = ldim::cache_file_name(ldim::CacheFileKind::kData, 1);
  Bytes bytes = file_bytes(fs, name);
  bytes[ldim::cache_tag_offset(slot)] ^= 1;
  write_file(fs, name, bytes);
  CHECK(look(*cache, 3, 2) == Seen::kRight);  // the remembered tag opens the page: right bytes
  CHECK(cache->verify_all().value() == 2);    // but the file would not, so it goes
  CHECK(look(*cache, 3, 2) == Seen::kAbsent);
}
