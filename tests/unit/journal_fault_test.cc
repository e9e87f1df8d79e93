// Failing disks, full disks, and the situations that lose data in other journals.
#include <catch2/catch.hpp>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <set>
#include <thread>
#include <utility>

#include "nbdkit-ldim/journal/format.h"
#include "nbdkit-ldim/journal/segment.h"
#include "tests/support/sim_file.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {
struct FaultFixture : JournalFixture {
  FaultFixture() {
    fs = &disk;
    options.segment_bytes = 64 * kKiB;
  }
  SimFileSystem disk;
};
}  // namespace

TEST_CASE("failed_sync_latches_for_good") {
  FaultFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 100).ok());
  const auto before = journal->flush();
  REQUIRE(before.ok());
  REQUIRE(f.append(*journal, 4096, 100).ok());
  f.disk.fail_next_sync();
  CHECK(journal->flush().error().code == ErrorCode::kIo);
  // The next sync would succeed, and lie.
  CHECK(journal->flush().error().code == ErrorCode::kIo);
  CHECK(f.append(*journal, 8192, 100).error().code == ErrorCode::kIo);
  CHECK(journal->trim(1).error().code == ErrorCode::kIo);
  CHECK(journal->stats().failed);
  CHECK(journal->synced() == *before);
  CHECK(!journal->flush().error().hint.empty());
}

TEST_CASE("a_sync_that_failed_beside_a_trim_lets_nothing_be_removed") {
  // Both sync the open file; the kernel told the flush what the trim did not hear.
  FaultFixture f;
  auto journal = f.must_open();
  for (std::uint64_t i = 0; i < 30; ++i) REQUIRE(f.append(*journal, i * 4096, 4096).ok());
  REQUIRE(journal->flush().ok());
  REQUIRE(f.append(*journal, 0, 4096, 1).ok());
  const auto files = f.disk.list(f.options.folder);
  REQUIRE(files.ok());
  REQUIRE(files->size() > 1);
  bool once = false;
  f.disk.on_write([&](const std::string&, std::uint64_t, std::uint64_t count) {
    if (std::exchange(once, true)) return;
    REQUIRE(count == sizeof(journal_format::TrimSlot));
    f.disk.fail_next_sync();
    CHECK(!journal->flush().ok());
  });
  CHECK(journal->trim(1).error().code == ErrorCode::kIo);
  CHECK(journal->stats().trimmed_epoch == 0);
  CHECK(f.disk.list(f.options.folder)->size() == files->size());
}

TEST_CASE("a_sync_that_failed_beside_a_flush_is_no_flush") {
  FaultFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 4096).ok());
  const auto first = journal->flush();
  REQUIRE(first.ok());
  REQUIRE(f.append(*journal, 4096, 4096).ok());
  bool once = false;
  f.disk.on_write([&](const std::string&, std::uint64_t, std::uint64_t) {
    if (std::exchange(once, true)) return;  // this is the seal
    f.disk.fail_next_sync();
    CHECK(!journal->trim(1).ok());
  });
  CHECK(journal->flush().error().code == ErrorCode::kIo);
  CHECK(journal->synced() == *first);
}

TEST_CASE("sync_that_failed_before_a_restart_is_not_believed_after_it") {
  FaultFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 4096).ok());
  f.disk.fail_next_sync();
  CHECK(!journal->flush().ok());
  journal.reset();
  // Same machine: the pages are in the kernel's cache, clean, and not on the disk.
  journal = f.must_open();
  REQUIRE(journal->records(0, 9).size() == 1);
  REQUIRE(journal->synced().epoch == 1);
  journal.reset();
  for (std::uint64_t i = 0; i < 20; ++i) {
    const auto cut = f.disk.after_power_cut(seed() + i);
    f.fs = cut.get();
    const auto again = f.must_open();
    REQUIRE(again->records(0, 9).size() == 1);
  }
}

TEST_CASE("failed_write_stops_everyone") {
  FaultFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 100).ok());
  f.disk.fail_call(f.disk.calls(), SimFault::kShort);
  CHECK(f.append(*journal, 4096, 4000).error().code == ErrorCode::kIo);
  CHECK(f.append(*journal, 8192, 100).error().code == ErrorCode::kIo);
  CHECK(journal->flush().error().code == ErrorCode::kIo);
  journal = f.must_open();  // a new start is allowed to try
  CHECK(journal->records(0, 9).size() == 1);
}

TEST_CASE("a_write_or_a_flush_that_runs_out_of_memory_stops_the_journal_and_keeps_nobody_waiting") {
  for (const bool flush : {false, true}) {
    FaultFixture f;
    auto journal = f.must_open();
    REQUIRE(f.append(*journal, 0, 100).ok());
    bool once = false;
    f.disk.on_write([&](const std::string&, std::uint64_t, std::uint64_t) {
      if (!std::exchange(once, true)) throw std::bad_alloc();
    });
    if (flush)
      CHECK_THROWS_AS(journal->flush(), std::bad_alloc);
    else
      CHECK_THROWS_AS(f.append(*journal, 4096, 100), std::bad_alloc);
    CHECK(f.append(*journal, 8192, 100).error().code == ErrorCode::kIo);
    CHECK(journal->flush().error().code == ErrorCode::kIo);
    CHECK(journal->stats().failed);
    journal = f.must_open();
    CHECK(journal->records(0, 9).size() == 1);
  }
}

TEST_CASE("full_disk_is_no_space_and_recovers_by_itself") {
  FaultFixture f;
  auto journal = f.must_open();
  f.disk.set_capacity(100 * kKiB);
  std::uint64_t accepted = 0;
  while (f.append(*journal, accepted * 4096, 4096).ok()) REQUIRE(++accepted < 100);
  CHECK(f.append(*journal, 0, 4096).error().code == ErrorCode::kNoSpace);
  REQUIRE(journal->flush().ok());
  CHECK(!journal->stats().failed);
  f.disk.set_capacity(0);
  CHECK(f.append(*journal, 0, 4096).ok());
  CHECK(journal->flush()->epoch == 2);
}

TEST_CASE("full_disk_does_not_stop_a_start") {
  FaultFixture f;
  auto journal = f.must_open();
  for (std::uint64_t i = 0; i < 6; ++i)
    REQUIRE(f.append(*journal, i * 4096, 4096).ok());  // makes the spare
  journal.reset();
  f.disk.set_capacity(1);
  journal = f.must_open();
  CHECK(journal->synced().epoch == 1);
  CHECK(journal->records(0, 9).size() == 6);
  CHECK(f.append(*journal, 0, 4096).ok());
  CHECK(journal->flush().ok());
}

TEST_CASE("stalled_lower_write_holds_back_later_acknowledgements") {
  // W1 stalls; W2 must not be acknowledged, for recovery would stop at the hole that W1 leaves.
  FaultFixture f;
  auto journal = f.must_open();
  std::mutex mutex;
  std::condition_variable changed;
  bool release = false;
  std::atomic<int> writes{0};
  f.disk.on_write([&](const std::string&, std::uint64_t, std::uint64_t) {
    if (writes++ != 0) return;  // the first write stalls
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return release; });
  });
  std::atomic<bool> first_ok{false}, second_ok{false}, flush_ok{false};
  std::thread first([&] { first_ok = f.append(*journal, 0, 4096).ok(); });
  while (writes < 1) std::this_thread::yield();
  std::thread second([&] {
    second_ok = f.append(*journal, 4096, 4096).ok();
    flush_ok = journal->flush().ok();
  });
  while (writes < 2) std::this_thread::yield();
  for (int i = 0; i < 1000; ++i) std::this_thread::yield();
  CHECK(!second_ok);
  CHECK(!flush_ok);
  // Killed now, recovery finds neither, for the hole comes first; so neither may be acknowledged.
  {
    const auto killed = f.disk.copy();
    f.fs = killed.get();
    CHECK(f.must_open()->records(0, 9).empty());
    f.fs = &f.disk;
  }
  {
    const std::lock_guard lock(mutex);
    release = true;
  }
  changed.notify_all();
  first.join();
  second.join();
  CHECK(first_ok);
  CHECK(second_ok);
  CHECK(flush_ok);
  CHECK(journal->synced().epoch == 1);
  const auto cut = f.disk.after_power_cut(seed());
  f.fs = cut.get();
  CHECK(f.must_open()->records(0, 9).size() == 2);
}

TEST_CASE("parallel_flushes_share_syncs") {
  FaultFixture f;
  f.options.segment_bytes = kMiB;
  auto journal = f.must_open();
  const std::uint64_t before = f.disk.syncs();
  std::vector<std::thread> threads;
  std::atomic<int> errors{0};
  for (std::uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 20; ++i) {
        const auto records = f.append(*journal, (t * 20 + i) * 4096, 500);
        const auto commit = journal->flush();
        if (!records.ok() || !commit.ok() || commit->epoch < records->back().epoch) ++errors;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(errors == 0);
  CHECK(f.disk.syncs() - before <= 120 + 4);  // at most one a flush, and the spares'
  CHECK(journal->records(0, journal->synced().epoch).size() == 120);
}

TEST_CASE("salts_and_nonces_never_repeat_over_reopens") {
  using namespace journal_format;
  FaultFixture f;
  std::set<Bytes> salts;
  std::set<std::pair<Bytes, std::uint64_t>> used;  // (salt, file offset of a header)
  for (int round = 0; round < 6; ++round) {
    {
      auto journal = f.must_open();
      for (std::uint64_t i = 0; i < 4; ++i) {
        REQUIRE(f.append(*journal, i * 4096, 4096).ok());
        REQUIRE(journal->flush().ok());
      }
    }
    // Every second time the disk goes back to an older state, as after a restored backup.
    if (round % 2 == 1) {
      const auto older = f.disk.copy();
      for (int twice = 0; twice < 2; ++twice) {
        const auto branch = older->copy();
        f.fs = branch.get();
        auto journal = f.must_open();
        REQUIRE(f.append(*journal, 0, 4096, static_cast<std::uint8_t>(twice)).ok());
        const auto names = branch->list(f.options.folder);
        const Bytes newest = branch->peek(f.options.folder + "/" + names->back());
        FileHeader header;
        std::memcpy(&header, newest.data(), sizeof header);
        CHECK(salts.insert(Bytes(header.salt.begin(), header.salt.end())).second);
      }
      f.fs = &f.disk;
    }
  }
  const auto names = f.disk.list(f.options.folder);
  for (const auto& name : *names) {
    const Bytes bytes = f.disk.peek(f.options.folder + "/" + name);
    FileHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    const Bytes salt(header.salt.begin(), header.salt.end());
    CHECK(salts.insert(salt).second);
    for (std::uint64_t at = kRecordsStart; at + sizeof(RecordHeader) <= bytes.size();
         at += kAlign) {
      if (std::memcmp(bytes.data() + at, kRecordMagic.data(), kRecordMagic.size()) == 0) {
        CHECK(used.insert({salt, at}).second);
      }
    }
  }
  CHECK(used.size() >= 6 * 9);
}
