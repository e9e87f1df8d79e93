// A journal in a file system of the test's choice, with fixed identities.
#pragma once

#include <catch2/catch.hpp>

#include "common/io/memory_file.h"
#include "nbdkit-ldim/journal/journal.h"
#include "tests/support/keys.h"
#include "tests/support/seed.h"

namespace dims::test {

struct JournalFixture {
  explicit JournalFixture(std::uint64_t random_seed = seed()) : random(random_seed) {
    options.folder = "/journal";
    options.machine.bytes.fill(0x11);
    options.image.bytes.fill(0x22);
    options.session.bytes.fill(0x33);
    options.key = dims::test::filled_key(0x44);
    options.segment_bytes = 4 * kMiB;
    options.limit_bytes = 64 * kMiB;
  }

  Result<std::unique_ptr<ldim::Journal>> open() {
    return ldim::Journal::open(*fs, options, clock, random);
  }
  std::unique_ptr<ldim::Journal> must_open() {
    auto opened = open();
    if (!opened.ok()) FAIL(opened.error().to_string());
    return std::move(opened).value();
  }
  // What append() below writes: bytes that tell their place.
  static Bytes pattern(std::uint64_t offset, std::size_t count, std::uint8_t salt = 0) {
    Bytes data(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t at = offset + i;
      data[i] = static_cast<std::uint8_t>(at * 31 + (at >> 8) * 7 + salt);
    }
    return data;
  }
  static Result<std::vector<ldim::JournalRecord>> append(ldim::Journal& journal,
                                                         std::uint64_t offset, std::size_t count,
                                                         std::uint8_t salt = 0) {
    return journal.append(ldim::WriteKind::kData, {offset, count}, pattern(offset, count, salt));
  }
  static Bytes random_bytes(Random& from, std::size_t count) {
    Bytes data(count);
    from.fill(data);
    return data;
  }

  io::MemoryFileSystem memory;
  io::FileSystem* fs = &memory;
  ldim::JournalOptions options;
  ManualClock clock;
  SeededRandom random;
};

}  // namespace dims::test
