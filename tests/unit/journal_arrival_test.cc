// Writes that wait: what came later and was placed first stays.
#include <catch2/catch.hpp>

#include <atomic>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "nbdkit-ldim/pagemap/pending_map.h"
#include "tests/support/sim_file.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

// A journal that is soon full, the page map over it, and what has left both for the base.
struct WaitingFixture : JournalFixture {
  static constexpr std::uint64_t kDisk = 256 * kKiB;
  WaitingFixture() {
    options.segment_bytes = 64 * kKiB;
    options.limit_bytes = 256 * kKiB;
    journal = must_open();
  }

  // One attempt, as Disk makes it.
  Result<std::vector<JournalRecord>> write(WriteKind kind, ByteRange range, std::uint8_t value,
                                           WriteArrival& arrival) {
    const Bytes data(kind == WriteKind::kData ? range.count : 0, value);
    auto records = journal->append(kind, range, data, arrival);
    if (!records.ok()) return records;
    for (const JournalRecord& record : *records) pending.insert(record);
    for (const JournalRecord& record : arrival.covers()) pending.insert(record);
    return records;
  }
  Result<std::vector<JournalRecord>> write(ByteRange range, std::uint8_t value) {
    WriteArrival arrival;
    return write(WriteKind::kData, range, value, arrival);
  }
  void fill() {
    for (int i = 0; i < 1000; ++i) {
      const auto done = write({kDisk - 4096, 4096}, 0xee);
      if (done.ok()) continue;
      REQUIRE(done.error().code == ErrorCode::kNoSpace);
      return;
    }
    FAIL("the journal is never full");
  }
  // As the write-back does when a commit has arrived.
  void make_room() {
    const auto commit = journal->flush();
    REQUIRE(commit.ok());
    std::uint64_t last = 0;
    for (const JournalRecord& record : journal->records(0, commit->epoch)) {
      lay(base, record);
      last = std::max(last, record.order);
    }
    pending.remove_through(last);
    REQUIRE(journal->trim(commit->epoch).ok());
  }
  void lay(Bytes& onto, const JournalRecord& record) const {
    const MutByteView to = MutByteView(onto).subspan(record.range.offset, record.range.count);
    if (record.kind == WriteKind::kData)
      REQUIRE(journal->read(record.location, record.range, record.range.offset, to).ok());
    else
      std::fill(to.begin(), to.end(), std::uint8_t{0});
  }
  Bytes content() const {
    Bytes out = base;
    for (const PendingPiece& piece : pending.lookup({0, kDisk})) {
      const MutByteView to = MutByteView(out).subspan(piece.range.offset, piece.range.count);
      if (piece.kind == WriteKind::kData)
        REQUIRE(journal->read(piece.location, piece.record_range, piece.range.offset, to).ok());
      else
        std::fill(to.begin(), to.end(), std::uint8_t{0});
    }
    return out;
  }
  // What a start finds.
  Bytes content_after_reopen() {
    journal = must_open();
    Bytes out = base;
    for (const JournalRecord& record : journal->records(0, ~std::uint64_t{0})) lay(out, record);
    return out;
  }
  void check_bytes(ByteRange range, std::uint8_t value) const {
    const Bytes now = content();
    for (std::uint64_t at = range.offset; at < range.end(); ++at) {
      INFO("at " << at);
      REQUIRE(now[at] == value);
    }
  }

  Bytes base = Bytes(kDisk, 0);
  PendingMap pending;
  std::unique_ptr<Journal> journal;
};

}  // namespace

TEST_CASE("a write that waited leaves alone what came later and was placed first") {
  WaitingFixture f;
  f.fill();
  WriteArrival arrival;
  REQUIRE(f.write(WriteKind::kData, {8192, 16384}, 1, arrival).error().code == ErrorCode::kNoSpace);
  f.make_room();
  REQUIRE(f.write({4096, 8192}, 2).ok());  // over its beginning
  WriteArrival zero, trim;
  REQUIRE(f.write(WriteKind::kZero, {16384, 512}, 0, zero).ok());
  REQUIRE(f.write(WriteKind::kTrim, {20000, 100}, 0, trim).ok());
  const auto placed = f.write(WriteKind::kData, {8192, 16384}, 1, arrival);
  REQUIRE(placed.ok());
  REQUIRE(placed->size() == 3);
  const auto check = [&] {
    f.check_bytes({4096, 8192}, 2);
    f.check_bytes({12288, 4096}, 1);
    f.check_bytes({16384, 512}, 0);
    f.check_bytes({16896, 3104}, 1);
    f.check_bytes({20000, 100}, 0);
    f.check_bytes({20100, 4476}, 1);
  };
  check();
  const Bytes before = f.content();
  CHECK(f.content_after_reopen() == before);
}

TEST_CASE("a zero and a trim that waited leave alone what came later, too") {
  for (const WriteKind kind : {WriteKind::kZero, WriteKind::kTrim}) {
    WaitingFixture f;
    REQUIRE(f.write({0, 16384}, 9).ok());
    f.fill();
    WriteArrival arrival;
    // A zero needs little: only when nothing at all fits does it wait.
    std::uint64_t tries = 0;
    for (;;) {
      WriteArrival small;
      const auto done = f.write(WriteKind::kZero, {64 * kKiB, 512}, 0, small);
      if (!done.ok()) break;
      REQUIRE(++tries < 1000);
    }
    REQUIRE(f.write(kind, {0, 16384}, 0, arrival).error().code == ErrorCode::kNoSpace);
    f.make_room();
    REQUIRE(f.write({4096, 4096}, 7).ok());
    REQUIRE(f.write(kind, {0, 16384}, 0, arrival).ok());
    f.check_bytes({0, 4096}, 0);
    f.check_bytes({4096, 4096}, 7);
    f.check_bytes({8192, 8192}, 0);
  }
}

TEST_CASE("a write that waits several times loses to all that came meanwhile, and is answered") {
  WaitingFixture f;
  f.fill();
  WriteArrival arrival;
  REQUIRE(!f.write(WriteKind::kData, {0, 12288}, 1, arrival).ok());
  f.make_room();
  REQUIRE(f.write({0, 4096}, 2).ok());
  f.fill();
  REQUIRE(!f.write(WriteKind::kData, {0, 12288}, 1, arrival).ok());
  f.make_room();  // what covers it has left the journal meanwhile
  REQUIRE(f.write({8000, 5000}, 3).ok());
  f.fill();
  REQUIRE(!f.write(WriteKind::kData, {0, 12288}, 1, arrival).ok());
  f.make_room();
  REQUIRE(f.write({4096, 4096}, 4).ok());
  f.fill();
  // Nothing of it is left to be placed: no room is needed.
  const auto placed = f.write(WriteKind::kData, {0, 12288}, 1, arrival);
  REQUIRE(placed.ok());
  CHECK(placed->empty());
  f.check_bytes({0, 4096}, 2);
  f.check_bytes({4096, 4096}, 4);
  f.check_bytes({8192, 4808}, 3);
}

TEST_CASE("of two writes that wait the later one stays, whichever is placed first") {
  for (const bool later_first : {true, false}) {
    WaitingFixture f;
    f.fill();
    WriteArrival first, second;
    REQUIRE(!f.write(WriteKind::kData, {0, 8192}, 1, first).ok());
    REQUIRE(!f.write(WriteKind::kData, {4096, 8192}, 2, second).ok());
    f.make_room();
    if (later_first) REQUIRE(f.write(WriteKind::kData, {4096, 8192}, 2, second).ok());
    REQUIRE(f.write(WriteKind::kData, {0, 8192}, 1, first).ok());
    if (!later_first) REQUIRE(f.write(WriteKind::kData, {4096, 8192}, 2, second).ok());
    f.check_bytes({0, 4096}, 1);
    f.check_bytes({4096, 8192}, 2);
  }
}

TEST_CASE("a write that was given up while it waited stands in nobody's way") {
  WaitingFixture f;
  f.fill();
  {
    WriteArrival gone;
    REQUIRE(!f.write(WriteKind::kData, {0, 8192}, 1, gone).ok());
  }
  f.make_room();
  REQUIRE(f.write({0, 8192}, 2).ok());
  f.check_bytes({0, 8192}, 2);
}

TEST_CASE("a write that came before a quiesce counts from then on") {
  WaitingFixture f;
  WriteArrival arrival;
  f.journal->arrive(arrival, {0, 8192});
  REQUIRE(f.write({4096, 4096}, 2).ok());
  REQUIRE(f.write(WriteKind::kData, {0, 8192}, 1, arrival).ok());
  f.check_bytes({0, 4096}, 1);
  f.check_bytes({4096, 4096}, 2);
}

TEST_CASE("a write that later ones cover is not answered before they are in the kernel's hands") {
  JournalFixture f;
  SimFileSystem disk;
  f.fs = &disk;
  auto journal = f.must_open();
  PendingMap pending;
  std::mutex mutex;
  std::condition_variable changed;
  bool release = false;
  std::atomic<int> writes{0};
  WriteArrival arrival;
  journal->arrive(arrival, {0, 4096});
  disk.on_write([&](const std::string&, std::uint64_t, std::uint64_t) {
    if (writes++ != 0) return;
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return release; });
  });
  std::atomic<bool> later_ok{false}, waited_ok{false};
  std::thread later([&] {  // placed, and stalls before it has written or told the page map
    later_ok = f.append(*journal, 0, 4096, 2).ok();
  });
  while (writes < 1) std::this_thread::yield();
  std::thread waited([&] {
    const auto records =
        journal->append(WriteKind::kData, {0, 4096}, f.pattern(0, 4096, 1), arrival);
    if (records.ok() && records->empty())
      for (const JournalRecord& record : arrival.covers()) pending.insert(record);
    waited_ok = records.ok();
  });
  for (int i = 0; i < 2000; ++i) std::this_thread::yield();
  CHECK(!waited_ok);
  CHECK(journal->records(0, 9).empty());
  {
    const std::lock_guard lock(mutex);
    release = true;
  }
  changed.notify_all();
  later.join();
  waited.join();
  CHECK(later_ok);
  CHECK(waited_ok);
  // And whoever was answered reads what covers him.
  const auto pieces = pending.lookup({0, 4096});
  REQUIRE(pieces.size() == 1);
  Bytes data(4096);
  REQUIRE(journal->read(pieces[0].location, pieces[0].record_range, 0, data).ok());
  CHECK(data == f.pattern(0, 4096, 2));
}

TEST_CASE("whatever waits, trims and merges: each byte is of the write that came last") {
  WaitingFixture f;
  struct Waits {
    WriteArrival arrival;
    WriteKind kind = WriteKind::kData;
    ByteRange range;
    std::uint64_t number = 0;
  };
  constexpr std::uint64_t kPart = 48 * kKiB;
  std::list<Waits> waiting;
  std::vector<std::uint64_t> newest(kPart, 0);
  Bytes model(kPart, 0);
  std::uint64_t number = 0, waited = 0;
  const auto value_of = [](std::uint64_t n) { return static_cast<std::uint8_t>(n % 251 + 1); };
  const auto attempt = [&](Waits& one) {
    const auto done = f.write(one.kind, one.range, value_of(one.number), one.arrival);
    if (!done.ok()) {
      REQUIRE(done.error().code == ErrorCode::kNoSpace);
      return false;
    }
    for (std::uint64_t at = one.range.offset; at < one.range.end(); ++at) {
      if (newest[at] > one.number) continue;
      newest[at] = one.number;
      model[at] = one.kind == WriteKind::kData ? value_of(one.number) : 0;
    }
    return true;
  };
  const auto check = [&](const Bytes& now) {
    REQUIRE(std::equal(model.begin(), model.end(), now.begin()));
  };
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t choice = f.random.below(100);
    if (choice < 70 && waiting.size() < 8) {
      waiting.emplace_back();
      Waits& one = waiting.back();
      one.number = ++number;
      one.kind = static_cast<WriteKind>(1 + (f.random.below(4) == 0 ? f.random.below(3) : 0));
      one.range.offset = f.random.below(kPart - 1);
      one.range.count = 1 + f.random.below(std::min<std::uint64_t>(9000, kPart - one.range.offset));
      if (f.random.below(10) == 0)
        f.journal->arrive(one.arrival, one.range);
      else if (attempt(one))
        waiting.pop_back();
      else
        ++waited;
    } else if (choice < 95 && !waiting.empty()) {
      auto one = waiting.begin();
      std::advance(one, f.random.below(waiting.size()));
      if (attempt(*one)) waiting.erase(one);
    } else if (choice == 95) {
      f.make_room();
    } else if (choice == 96) {
      REQUIRE(f.journal->flush().ok());
      MergeWish wish;
      wish.urgent = true;
      wish.on_moved = [&](const std::vector<MovedRecord>& moved) { f.pending.repoint(moved); };
      const auto merged = f.journal->merge(wish);
      REQUIRE((merged.ok() || merged.error().code == ErrorCode::kNoSpace));
    } else if (choice == 99 && f.random.below(3) == 0) {
      check(f.content());
    }
  }
  CHECK(waited > 50);
  check(f.content());
  waiting.clear();
  check(f.content_after_reopen());
}
