// The pending map against an array that remembers for every byte who wrote it last.
#include <catch2/catch.hpp>

#include <malloc.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "nbdkit-ldim/pagemap/pending_map.h"
#include "tests/support/seed.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

JournalRecord record_of(std::uint64_t order, ByteRange range, WriteKind kind = WriteKind::kData) {
  JournalRecord record;
  record.order = order;
  record.range = range;
  record.kind = kind;
  record.location.file_offset = order * 16;
  return record;
}

}  // namespace

TEST_CASE("the newest write of every byte wins, in whatever order they arrive") {
  constexpr std::uint64_t kBytes = 5000;
  SeededRandom random(seed());
  for (int round = 0; round < 60; ++round) {
    PendingMap map;
    std::vector<JournalRecord> records;
    std::vector<std::uint64_t> model(kBytes, 0);  // order number, 0 = base
    std::uint64_t next = 1, removed = 0;
    for (int step = 0; step < 120; ++step) {
      // A handful of writes whose insertion order is shuffled.
      std::vector<JournalRecord> batch;
      for (std::uint64_t i = 0; i <= random.below(4); ++i) {
        const std::uint64_t offset = random.below(kBytes);
        const std::uint64_t count =
            1 + random.below(std::min<std::uint64_t>(kBytes - offset, 1 + random.below(1500)));
        batch.push_back(
            record_of(next++, {offset, count}, static_cast<WriteKind>(1 + random.below(3))));
        records.push_back(batch.back());
      }
      for (std::size_t i = batch.size(); i > 1; --i)
        std::swap(batch[i - 1], batch[random.below(i)]);
      for (const auto& record : batch) {
        map.insert(record);
        for (std::uint64_t b = record.range.offset; b < record.range.end(); ++b) {
          model[b] = std::max(model[b], record.order);
        }
      }
      if (random.below(6) == 0) {
        removed += random.below(next - removed);
        map.remove_through(removed);
        for (auto& order : model) {
          if (order <= removed) order = 0;
        }
      }
      const std::uint64_t from = random.below(kBytes);
      const ByteRange asked = random.below(3) == 0
                                  ? ByteRange{0, kBytes}
                                  : ByteRange{from, 1 + random.below(kBytes - from)};
      std::vector<std::uint64_t> seen(kBytes, 0);
      std::uint64_t at = asked.offset;
      for (const PendingPiece& piece : map.lookup(asked)) {
        REQUIRE(piece.range.count > 0);
        REQUIRE(piece.range.offset >= at);
        REQUIRE(piece.range.end() <= asked.end());
        const JournalRecord& record = records[piece.order - 1];
        REQUIRE(piece.kind == record.kind);
        REQUIRE(piece.record_range == record.range);
        REQUIRE(piece.location.file_offset == record.location.file_offset);
        at = piece.range.end();
        for (std::uint64_t b = piece.range.offset; b < at; ++b) seen[b] = piece.order;
      }
      bool any = false;
      for (std::uint64_t b = asked.offset; b < asked.end(); ++b) {
        REQUIRE(seen[b] == model[b]);
        any = any || model[b] != 0;
      }
      REQUIRE(map.overlaps(asked) == any);
    }
    std::uint64_t covered = 0;
    std::vector<bool> pages(pages_for(kBytes), false);
    for (std::uint64_t b = 0; b < kBytes; ++b) {
      if (model[b] == 0) continue;
      ++covered;
      pages[page_of(b)] = true;
    }
    CHECK(map.covered_bytes() == covered);
    std::vector<bool> touched(pages.size(), false);
    std::uint64_t last = 0;
    for (const PageRange& range : map.touched_pages()) {
      CHECK((last == 0 || range.first > last));  // merged and ascending
      last = range.end();
      for (std::uint64_t p = range.first; p < range.end(); ++p) touched[p] = true;
    }
    CHECK(touched == pages);
    map.remove_through(next);
    CHECK(map.pieces() == 0);
    CHECK(map.covered_bytes() == 0);
    CHECK(!map.overlaps({0, kBytes}));
  }
}

TEST_CASE("ranges beyond one piece, and lookups of nothing") {
  PendingMap map;
  map.insert(record_of(1, {10, 3 * kGiB}, WriteKind::kZero));
  CHECK(map.covered_bytes() == 3 * kGiB);
  CHECK(map.lookup({2 * kGiB + 10, 100}).size() == 1);
  CHECK(map.lookup({0, 0}).empty());
  CHECK(!map.overlaps({10, 0}));
  CHECK(!map.overlaps({0, 10}));
  CHECK(map.overlaps({9, 2}));
  map.clear();
  CHECK(map.pieces() == 0);
  CHECK(map.touched_pages().empty());
}

TEST_CASE("pieces keep their file alive, and only they") {
  JournalFixture f;
  auto journal = f.must_open();
  PendingMap map;
  std::weak_ptr<JournalSegment> file;
  {
    const auto records = f.append(*journal, 100, 5000);
    REQUIRE(records.ok());
    file = records->front().location.segment;
    for (const auto& record : *records) map.insert(record);
    map.insert(record_of(records->back().order + 1, {2000, 100}));
  }
  journal.reset();
  REQUIRE(!file.expired());
  {
    const auto pieces = map.lookup({0, 10000});
    REQUIRE(pieces.size() == 3);
    Bytes out(pieces[2].range.count);
    REQUIRE(pieces[2].location.segment == file.lock());
  }
  map.remove_through(~std::uint64_t{0} - 1);
  CHECK(file.expired());
}

TEST_CASE("readers run beside writers and removals") {
  PendingMap map;
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread reader([&] {
    SeededRandom random(seed());
    while (!stop) {
      const std::uint64_t from = random.below(kMiB);
      std::uint64_t at = from;
      for (const auto& piece : map.lookup({from, 50000})) {
        if (piece.range.offset < at || piece.range.empty()) ++wrong;
        at = piece.range.end();
      }
    }
  });
  SeededRandom random(seed() + 1);
  for (std::uint64_t order = 1; order <= 20000; ++order) {
    map.insert(record_of(order, {random.below(kMiB), 1 + random.below(9000)}));
    if (order % 500 == 0) map.remove_through(order - 300);
  }
  stop = true;
  reader.join();
  CHECK(wrong == 0);
}

TEST_CASE("a piece takes at most 80 bytes") {
  PendingMap map;
  SeededRandom random(seed());
  const auto before = mallinfo2().uordblks;
  for (std::uint64_t order = 1; order <= 200000; ++order) {
    map.insert(record_of(order, {random.below(1u << 26) * 4096, 4096}));
  }
  const double each =
      static_cast<double>(mallinfo2().uordblks - before) / static_cast<double>(map.pieces());
  std::printf("pending map: %.1f bytes a piece at %llu pieces\n", each,
              static_cast<unsigned long long>(map.pieces()));
  CHECK(map.pieces() > 190000);
  CHECK(each <= 80.0);
}
