// What a start costs: bounded by what the files hold, and what they hold by what is pending.
#include <catch2/catch.hpp>

#include <vector>

#include "nbdkit-ldim/pagemap/tidy.h"
#include "tests/support/sim_file.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

std::uint64_t bytes_in(SimFileSystem& fs, const std::string& folder, std::uint64_t* files) {
  const auto names = fs.list(folder);
  REQUIRE(names.ok());
  std::uint64_t bytes = 0;
  for (const std::string& name : *names) bytes += fs.peek(folder + "/" + name).size();
  *files = names->size();
  return bytes;
}

// Opens what a killed process left, and looks at what that read. The headers, slots and notes of
// each file are looked at twice, and what may have to be synced again: a merged file.
std::uint64_t check_start(JournalFixture& f, SimFileSystem& disk) {
  const auto left = disk.copy();
  std::uint64_t files = 0;
  const std::uint64_t held = bytes_in(*left, f.options.folder, &files);
  f.fs = left.get();
  const auto journal = f.must_open();
  const std::uint64_t read = left->bytes_read();
  INFO(journal->stats().recovery_bytes << " of them by recovery; " << read << " bytes read, "
                                       << held << " held by " << files << " files");
  const JournalStats stats = journal->stats();
  const std::uint64_t again = stats.merged_epoch == 0 ? 0 : f.options.segment_bytes;
  CHECK(read <= held + again + files * 8 * kKiB);
  CHECK(stats.recovery_bytes <= read);
  CHECK(stats.recovery_bytes + files * 32 * kKiB >= held / 2);  // it is counted at all
  f.fs = &disk;
  return read;
}

}  // namespace

TEST_CASE("a_start_reads_no_more_than_the_journals_files_hold") {
  // Records of every length: one that ends in the next window of the reader is not read twice.
  const std::vector<std::size_t> lengths = {512, 4096, 300'000, 1024 * 1024};
  for (const std::size_t length : lengths) {
    SimFileSystem disk;
    JournalFixture f;
    f.fs = &disk;
    const auto journal = f.must_open();
    const std::uint64_t count = 24 * kMiB / std::max<std::size_t>(length, 8192);
    for (std::uint64_t i = 0; i < count; ++i) {
      REQUIRE(JournalFixture::append(*journal, i * length, length).ok());
      if (i % 64 == 0) REQUIRE(journal->flush().ok());
    }
    REQUIRE(journal->flush().ok());
    INFO("records of " << length);
    check_start(f, disk);
  }
}

TEST_CASE("a_merged_journals_start_follows_what_is_pending_and_not_what_was_written") {
  JournalFixture f;
  SimFileSystem disk;
  f.fs = &disk;
  f.options.segment_bytes = kMiB;
  f.options.limit_bytes = 32 * kMiB;
  const auto journal = f.must_open();
  PendingMap pending;
  JournalTidy tidy(*journal, pending);
  constexpr std::uint64_t kPages = 1024;  // 4 MiB
  constexpr std::uint64_t kTimes = 24;
  const std::uint64_t most =
      std::max(f.options.limit_bytes / 4, 2 * kPages * kPageBytes) + 4 * f.options.segment_bytes;
  for (std::uint64_t i = 0; i < kTimes * kPages; ++i) {
    const std::uint64_t page = i < kPages ? i : f.random.below(kPages);
    const auto records = JournalFixture::append(*journal, page * kPageBytes, kPageBytes);
    REQUIRE(records.ok());
    for (const JournalRecord& record : *records) pending.insert(record);
    if (i % 64 == 63) {
      REQUIRE(journal->flush().ok());
      REQUIRE(tidy.run_once(false).ok());
    }
    if (i % (kPages * 4) == kPages * 4 - 1) {
      const std::uint64_t read = check_start(f, disk);
      INFO(i * kPageBytes << " bytes written, " << read << " read");
      CHECK(read <= most);
    }
  }
  CHECK(journal->stats().merges > 0);
}
