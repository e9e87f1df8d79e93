// Merging: overwritten data leaves, everything else stays as it was.
#include <catch2/catch.hpp>

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "nbdkit-ldim/pagemap/tidy.h"
#include "tests/support/sim_file.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

constexpr std::uint64_t kPage = kPageBytes;

// A journal with its pending map, as the disk has them.
struct MergeFixture : JournalFixture {
  MergeFixture() {
    options.segment_bytes = 128 * kKiB;
    options.limit_bytes = 2 * kMiB;
  }
  explicit MergeFixture(io::FileSystem& files) : MergeFixture() { fs = &files; }
  void start() {
    journal = must_open();
    pending.clear();
    for (const auto& record : journal->records(0, ~std::uint64_t{0})) pending.insert(record);
  }
  Status write(std::uint64_t page, std::uint8_t salt) {
    const auto records = append(*journal, page * kPage, kPage, salt);
    if (!records.ok()) return records.error();
    for (const auto& record : *records) pending.insert(record);
    salts[page] = salt;
    return ok_status();
  }
  Result<MergeReport> merge(std::uint64_t enough_bytes = 0) {
    return journal->merge(
        {enough_bytes, false, [&](const auto& moved) { pending.repoint(moved); }});
  }
  // What the guest would read is what it wrote.
  void check_pages() {
    for (const auto& [page, salt] : salts) {
      const auto pieces = pending.lookup({page * kPage, kPage});
      REQUIRE(!pieces.empty());
      Bytes got(kPage);
      std::uint64_t covered = 0;
      for (const auto& piece : pieces) {
        covered += piece.range.count;
        if (piece.kind != WriteKind::kData) continue;
        REQUIRE(journal
                    ->read(piece.location, piece.record_range, piece.range.offset,
                           MutByteView(got).subspan(piece.range.offset - page * kPage,
                                                    piece.range.count))
                    .ok());
      }
      REQUIRE(covered == kPage);
      REQUIRE(got == pattern(page * kPage, kPage, salt));
    }
  }

  PendingMap pending;
  std::unique_ptr<Journal> journal;
  std::map<std::uint64_t, std::uint8_t> salts;
};

}  // namespace

TEST_CASE("a_write_that_needs_room_does_not_wait_for_the_whole_merge_of_another") {
  SimFileSystem disk;
  MergeFixture f(disk);
  f.start();
  for (int round = 0; round < 14; ++round) {
    for (std::uint64_t page = 0; page < 25; ++page)
      REQUIRE(f.write(page, static_cast<std::uint8_t>(round)).ok());
  }
  REQUIRE(f.journal->flush().ok());
  JournalTidy tidy(*f.journal, f.pending);
  std::mutex mutex;
  std::condition_variable changed;
  bool merging = false, release = false, answered = false;
  disk.on_write([&](const std::string&, std::uint64_t, std::uint64_t) {
    std::unique_lock lock(mutex);
    merging = true;
    changed.notify_all();
    changed.wait(lock, [&] { return release; });
  });
  std::thread background([&] { CHECK(tidy.run_once(false).ok()); });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return merging; });
  }
  std::thread writer([&] {
    const auto done = tidy.run_once(true);
    CHECK((done.ok() && *done));  // look again
    const std::lock_guard lock(mutex);
    answered = true;
    changed.notify_all();
  });
  {
    std::unique_lock lock(mutex);
    CHECK(changed.wait_for(lock, std::chrono::seconds(30), [&] { return answered; }));
    release = true;
  }
  changed.notify_all();
  background.join();
  writer.join();
  f.check_pages();
}

TEST_CASE("rewriting_the_same_pages_for_long_needs_little_more_room_than_they_do") {
  MergeFixture f;
  constexpr std::uint64_t kPages = 1024;  // 4 MiB; small files, so their headers count
  f.options.segment_bytes = 128 * kKiB;
  f.options.limit_bytes = 6 * kMiB;
  f.start();
  JournalTidy tidy(*f.journal, f.pending);
  SeededRandom random(seed());
  std::uint64_t written = 0;
  for (int round = 0; round < 16; ++round) {
    for (std::uint64_t i = 0; i < kPages; ++i) {
      // In order, and wildly.
      const std::uint64_t page = round % 2 == 0 ? i : random.below(kPages);
      Status done = f.write(page, static_cast<std::uint8_t>(round));
      for (int tries = 0; !done.ok() && tries < 3; ++tries) {
        REQUIRE(done.error().code == ErrorCode::kNoSpace);
        const auto freed = tidy.run_once(true);
        if (!freed.ok()) FAIL(freed.error().to_string());
        done = f.write(page, static_cast<std::uint8_t>(round));
      }
      if (!done.ok()) FAIL("round " << round << " page " << i << ": " << done.error().to_string());
      ++written;
      if (i % 16 == 15) {
        REQUIRE(f.journal->flush().ok());
        REQUIRE(tidy.run_once(false).ok());
      }
      REQUIRE(f.journal->stats().bytes <= f.options.limit_bytes);
    }
    if (round % 10 == 9) {
      f.check_pages();
      REQUIRE(f.journal->flush().ok());
    }
  }
  CHECK(written == 16 * kPages);
  CHECK(f.journal->stats().merges > 10);
  f.check_pages();
  REQUIRE(f.journal->flush().ok());
  const auto commit = f.journal->synced();
  f.start();
  CHECK(f.journal->synced() == commit);
  CHECK(f.journal->stats().bytes <= f.options.limit_bytes + f.options.segment_bytes);
  f.check_pages();
}

TEST_CASE("merged_records_keep_their_order_and_the_map_follows") {
  MergeFixture f;
  f.start();
  for (std::uint64_t i = 0; i < 200; ++i)
    REQUIRE(f.write(i % 20, static_cast<std::uint8_t>(i)).ok());
  // Unaligned pieces, zeroes and trims are kept in part.
  const auto keep = [&](const Result<std::vector<JournalRecord>>& records) {
    REQUIRE(records.ok());
    for (const auto& record : *records) f.pending.insert(record);
  };
  keep(f.append(*f.journal, 100 * kPage + 7, 9000, 3));
  keep(f.append(*f.journal, 100 * kPage + 2000, 100, 4));
  keep(f.journal->append(WriteKind::kZero, {200 * kPage, 40 * kPage}, {}));
  keep(f.journal->append(WriteKind::kTrim, {210 * kPage + 5, 700}, {}));
  for (std::uint64_t i = 0; i < 60; ++i)
    REQUIRE(f.write(i % 20, static_cast<std::uint8_t>(i)).ok());
  const auto commit = f.journal->flush();
  REQUIRE(commit.ok());
  // Some that stay in the log.
  for (std::uint64_t i = 0; i < 3; ++i) REQUIRE(f.write(i, 99).ok());

  const auto before = f.journal->records(0, ~std::uint64_t{0});
  const auto held = f.pending.lookup({0, 300 * kPage});
  const std::uint64_t bytes_before = f.journal->stats().bytes;
  const auto report = f.merge();
  REQUIRE(report.ok());
  CHECK(report->files > 2);
  CHECK(f.journal->stats().bytes < bytes_before);
  CHECK(f.journal->stats().merged_epoch == commit->epoch);
  f.check_pages();
  // The same pieces with the same orders; every one can be read at both places.
  const auto now = f.pending.lookup({0, 300 * kPage});
  REQUIRE(now.size() == held.size());
  std::uint64_t moved = 0;
  for (std::size_t i = 0; i < now.size(); ++i) {
    REQUIRE(now[i].range == held[i].range);
    REQUIRE(now[i].order == held[i].order);
    REQUIRE(now[i].kind == held[i].kind);
    if (now[i].location.segment != held[i].location.segment) ++moved;
    if (now[i].kind != WriteKind::kData) continue;
    Bytes a(now[i].range.count), b(now[i].range.count);
    REQUIRE(f.journal->read(held[i].location, held[i].record_range, held[i].range.offset, a).ok());
    REQUIRE(f.journal->read(now[i].location, now[i].record_range, now[i].range.offset, b).ok());
    REQUIRE(a == b);
  }
  CHECK(moved > 0);
  const auto after = f.journal->records(0, ~std::uint64_t{0});
  CHECK(after.size() < before.size());
  for (std::size_t i = 1; i < after.size(); ++i) CHECK(after[i - 1].order <= after[i].order);
  for (const auto& record : after) CHECK(record.epoch >= commit->epoch);
  // A map made anew says the same.
  PendingMap again;
  for (const auto& record : after) again.insert(record);
  const auto fresh = again.lookup({0, 300 * kPage});
  REQUIRE(fresh.size() == now.size());
  for (std::size_t i = 0; i < now.size(); ++i) {
    CHECK(fresh[i].range == now[i].range);
    CHECK(fresh[i].order == now[i].order);
  }
  CHECK(again.covered_bytes() == f.pending.covered_bytes());
  f.start();
  f.check_pages();
  CHECK(f.pending.covered_bytes() == again.covered_bytes());
}

TEST_CASE("a_held_commit_is_not_merged_with_what_follows") {
  MergeFixture f;
  f.start();
  for (std::uint64_t i = 0; i < 100; ++i)
    REQUIRE(f.write(i % 10, static_cast<std::uint8_t>(i)).ok());
  REQUIRE(f.journal->flush().ok());
  auto held = f.journal->hold();
  const auto sent = f.journal->records(0, held.through.epoch);
  for (std::uint64_t i = 0; i < 100; ++i)
    REQUIRE(f.write(i % 10, static_cast<std::uint8_t>(i + 7)).ok());
  REQUIRE(f.journal->flush().ok());
  REQUIRE(f.merge().ok());
  CHECK(f.journal->stats().merged_epoch == held.through.epoch);
  CHECK(f.journal->commit_id(held.through.epoch) == held.through);
  for (const auto& record : sent) {  // what is being sent can be read to its end
    Bytes text(record.range.count);
    REQUIRE(f.journal->read(record.location, record.range, record.range.offset, text).ok());
  }
  REQUIRE(f.journal->trim(held.through.epoch).ok());
  CHECK(f.journal->stats().trimmed_epoch == held.through.epoch);
  CHECK(f.journal->stats().merged_bytes == 0);
  held.guard.reset();
  REQUIRE(f.merge().ok());
  CHECK(f.journal->stats().merged_epoch == f.journal->synced().epoch);
  f.check_pages();
}

TEST_CASE("a_lost_reply_is_recognised_after_its_epoch_was_merged_away") {
  MergeFixture f;
  f.start();
  const auto fill = [&](std::uint8_t salt) {
    for (std::uint64_t i = 0; i < 100; ++i) REQUIRE(f.write(i % 10, salt).ok());
    const auto commit = f.journal->flush();
    REQUIRE(commit.ok());
    return *commit;
  };
  const CommitId first = fill(1);
  f.journal->offer(first.epoch);
  const CommitId second = fill(2);
  const CommitId third = fill(3);
  REQUIRE(f.merge().ok());
  REQUIRE(f.journal->group_end(first.epoch) == third.epoch);
  CHECK(f.journal->commit_id(first.epoch) == first);
  CHECK(!f.journal->commit_id(second.epoch));  // never offered, and never again
  CHECK(f.journal->commit_id(third.epoch) == third);
  CHECK(f.journal->records(0, second.epoch).empty());
  f.start();
  CHECK(f.journal->commit_id(first.epoch) == first);
  CHECK(f.journal->commit_id(third.epoch) == third);
  // Another start, another merge: what may have been offered before the start stays known.
  const CommitId fourth = fill(4);
  REQUIRE(f.merge().ok());
  CHECK(f.journal->commit_id(first.epoch) == first);
  CHECK(f.journal->commit_id(third.epoch) == third);
  CHECK(f.journal->commit_id(fourth.epoch) == fourth);
  // Its records are in the group: trimming to it frees nothing, and loses nothing.
  REQUIRE(f.journal->trim(first.epoch).ok());
  CHECK(f.journal->stats().trimmed_epoch == 0);
  f.check_pages();
  REQUIRE(f.journal->trim(fourth.epoch).ok());
  CHECK(f.journal->stats().trimmed_epoch == fourth.epoch);
  CHECK(f.journal->stats().records == 0);
  CHECK(f.journal->stats().merged_bytes == 0);
  CHECK(!f.journal->commit_id(first.epoch));
  f.start();
  CHECK(f.journal->stats().trimmed_epoch == fourth.epoch);
  CHECK(f.journal->records(0, ~std::uint64_t{0}).empty());
}

TEST_CASE("what_is_not_synced_or_has_no_garbage_is_left_alone") {
  MergeFixture f;
  f.start();
  for (std::uint64_t i = 0; i < 100; ++i)
    REQUIRE(f.write(i % 10, static_cast<std::uint8_t>(i)).ok());
  auto report = f.merge();
  REQUIRE(report.ok());
  CHECK(report->files == 0);  // nothing is sealed
  f.start();
  f.salts.clear();
  REQUIRE(f.journal->trim(f.journal->synced().epoch).ok());
  for (std::uint64_t i = 0; i < 100; ++i) REQUIRE(f.write(i, static_cast<std::uint8_t>(i)).ok());
  REQUIRE(f.journal->flush().ok());
  report = f.merge();
  REQUIRE(report.ok());
  CHECK(report->files == 0);
  CHECK(f.journal->stats().merged_epoch == 0);
}

TEST_CASE("a_merge_that_fails_changes_nothing_and_can_be_tried_again") {
  MergeFixture f;
  SimFileSystem disk;
  f.fs = &disk;
  f.start();
  for (std::uint64_t i = 0; i < 150; ++i)
    REQUIRE(f.write(i % 10, static_cast<std::uint8_t>(i)).ok());
  REQUIRE(f.journal->flush().ok());
  const auto commit = f.journal->synced();
  const auto names = disk.list("/journal");
  const std::uint64_t bytes = f.journal->stats().bytes;
  for (std::uint64_t call = 0; call < 6; ++call) {
    for (const SimFault fault : {SimFault::kIo, SimFault::kSpace, SimFault::kShort}) {
      disk.clear_faults();
      disk.fail_call(disk.calls() + call, fault);
      INFO("call " << call);
      const auto report = f.merge();
      REQUIRE(!report.ok());
      CHECK(f.journal->stats().bytes == bytes);
      CHECK(f.journal->stats().merged_epoch == 0);
      CHECK(*disk.list("/journal") == *names);
      CHECK(!f.journal->stats().failed);
      f.check_pages();
    }
  }
  disk.clear_faults();
  REQUIRE(f.merge().ok());
  CHECK(f.journal->stats().bytes < bytes);
  CHECK(f.journal->synced() == commit);
  f.check_pages();
  f.start();
  f.check_pages();
}

TEST_CASE("merging_under_parallel_writers_and_readers_changes_no_byte") {
  MergeFixture f;
  f.options.segment_bytes = 64 * kKiB;
  f.options.limit_bytes = 16 * kMiB;
  f.start();
  constexpr int kWriters = 3;
  constexpr std::uint64_t kPages = 24;  // a writer
  std::atomic<int> errors{0};
  std::atomic<int> running{kWriters};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < kWriters; ++t) {
    threads.emplace_back([&, t] {
      SeededRandom random(seed() + t);
      std::vector<int> mine(kPages, -1);
      for (int i = 0; i < 1500; ++i) {
        const std::uint64_t n = random.below(kPages);
        const std::uint64_t page = t * kPages + n;
        const auto salt = static_cast<std::uint8_t>(i);
        const auto records = f.append(*f.journal, page * kPage, kPage, salt);
        if (!records.ok()) {
          ++errors;
          break;
        }
        for (const auto& record : *records) f.pending.insert(record);
        mine[n] = salt;
        if (i % 40 == 0 && !f.journal->flush().ok()) ++errors;
        const std::uint64_t look = random.below(kPages);
        if (mine[look] < 0) continue;
        const std::uint64_t at = (t * kPages + look) * kPage;
        const auto pieces = f.pending.lookup({at, kPage});
        Bytes got(kPage);
        if (pieces.size() != 1 ||
            !f.journal
                 ->read(pieces[0].location, pieces[0].record_range, pieces[0].range.offset, got)
                 .ok() ||
            got != f.pattern(at, kPage, static_cast<std::uint8_t>(mine[look])))
          ++errors;
      }
      --running;
    });
  }
  std::uint64_t files = 0;
  while (running > 0) {
    const auto report = f.merge(2 * f.options.segment_bytes);
    if (!report.ok()) ++errors;
    if (report.ok()) files += report->files;
  }
  for (auto& thread : threads) thread.join();
  CHECK(errors == 0);
  CHECK(files > 10);
}

TEST_CASE("merging_is_due_by_share_and_garbage") {
  JournalStats stats;
  stats.segment_bytes = kMiB;
  stats.limit_bytes = 100 * kMiB;
  stats.bytes = 20 * kMiB;
  CHECK(!merging_is_due(stats, 0, false));  // a small journal rests
  stats.bytes = 30 * kMiB;
  CHECK(merging_is_due(stats, 10 * kMiB, false));
  CHECK(!merging_is_due(stats, 16 * kMiB, false));
  CHECK(merging_is_due(stats, 16 * kMiB, true));
  stats.bytes = 71 * kMiB;
  CHECK(merging_is_due(stats, 65 * kMiB, false));
  CHECK(!merging_is_due(stats, 69 * kMiB, false));
  CHECK(!merging_is_due(stats, 80 * kMiB, true));
}
