// Each kind of damage is found, by its name, and once; and the check changes nothing.
#include <catch2/catch.hpp>

#include "nbdkit-ldim/journal/check.h"
#include "nbdkit-ldim/journal/format.h"
#include "nbdkit-ldim/journal/segment.h"
#include "tests/support/corruptors.h"
#include "tests/support/keys.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

struct CheckFixture : JournalFixture {
  CheckFixture() {
    fs = &disk;
    options.segment_bytes = 64 * kKiB;
    options.limit_bytes = 2 * kMiB;
    auto journal = must_open();
    for (std::uint64_t i = 0; i < 60; ++i) {
      const auto written = append(*journal, i * 4096, 4096);
      REQUIRE(written.ok());
      records.push_back(written->front());
      if (i % 5 == 4) REQUIRE(journal->flush().ok());
      if (i == 6) older = disk.copy();
    }
  }
  std::string path(std::uint64_t number) const { return segment_path(options.folder, number); }
  const std::string& path_of(std::size_t record) const {
    return records[record].location.segment->file().path();
  }
  JournalCheck check() {
    std::map<std::string, Bytes> before;
    const auto names = disk.list(options.folder);
    for (const auto& name : *names) before[name] = disk.peek(options.folder + "/" + name);
    const auto found = check_journal(disk, options);
    if (!found.ok()) FAIL(found.error().to_string());
    CHECK(*disk.list(options.folder) == *names);
    for (const auto& name : *names) CHECK(disk.peek(options.folder + "/" + name) == before[name]);
    for (const auto& finding : found->findings) {
      CHECK(!finding.text.empty());
      CHECK(!finding.todo.empty());
    }
    // The verdict is that of the next start.
    const auto copy = disk.copy();
    CHECK(Journal::open(*copy, options, clock, random).ok() == found->opens);
    return *found;
  }
  // Just this one, at this place.
  void expect(JournalDamage code, Severity severity, const std::string& where) {
    const JournalCheck found = check();
    std::string all;
    for (const auto& one : found.findings)
      all += std::string(journal_damage_name(one.code)) + " " + one.where + ": " + one.text + "\n";
    INFO(all);
    REQUIRE(found.findings.size() == 1);
    CHECK(found.findings[0].code == code);
    CHECK(found.findings[0].severity == severity);
    CHECK(found.findings[0].where == where);
    CHECK(found.opens == (severity != Severity::kDamage));
  }

  SimFileSystem disk;
  std::unique_ptr<SimFileSystem> older;
  std::vector<JournalRecord> records;
};

}  // namespace

TEST_CASE("a_sound_journal_has_no_finding") {
  CheckFixture f;
  const JournalCheck found = f.check();
  CHECK(found.findings.empty());
  CHECK(found.records == 60);
  CHECK(found.last_epoch == 12);
  CHECK(found.files >= 4);
  f.options.folder = "/nowhere";
  CHECK(check_journal(f.disk, f.options)->findings.empty());
}

TEST_CASE("each_damage_of_a_journal_is_found_by_its_name") {
  CheckFixture f;
  const std::uint64_t at = f.records[20].location.file_offset;
  const std::string file = f.path_of(20);
  SECTION("flip_bit in a record's header, tag or data") {
    const std::uint64_t part = GENERATE(as<std::uint64_t>{}, 0, 12, 60, 100, 2000);
    flip_bit(f.disk, file, at + part);
    f.expect(JournalDamage::kRecordDamaged, Severity::kDamage, file);
  }
  SECTION("zero_sector in a record") {
    zero_sector(f.disk, file, at + 1024);
    f.expect(JournalDamage::kRecordDamaged, Severity::kDamage, file);
  }
  SECTION("misdirect a valid record onto another one") {
    misdirect(f.disk, file, at, f.records[21].location.file_offset,
              journal_format::record_bytes(journal_format::RecordType::kData, 0, 4096));
    f.expect(JournalDamage::kRecordDamaged, Severity::kDamage, file);
  }
  SECTION("flip_bit in a file's header") {
    flip_bit(f.disk, file, 120);
    f.expect(JournalDamage::kHeaderDamaged, Severity::kDamage, file);
  }
  SECTION("truncate_tail in the middle of what was synced") {
    const std::string last = f.path_of(59);
    truncate_tail(f.disk, last, f.records[59].location.file_offset + 50);
    f.expect(JournalDamage::kRecordDamaged, Severity::kDamage, last);
  }
  SECTION("remove_file") {
    remove_file(f.disk, file);
    f.expect(JournalDamage::kRecordsMissing, Severity::kDamage, f.options.folder);
  }
  SECTION("restore_old_file: whole by itself, and older than its neighbours") {
    restore_old_file(f.disk, *f.older, f.path(1));
    f.expect(JournalDamage::kRecordsMissing, Severity::kDamage, f.options.folder);
  }
  SECTION("swap_files") {
    swap_files(f.disk, f.path(1), f.path(2));
    const JournalCheck found = f.check();
    REQUIRE(found.findings.size() == 2);
    CHECK(found.findings[0].code == JournalDamage::kMisplacedFile);
    CHECK(found.findings[1].code == JournalDamage::kMisplacedFile);
  }
  SECTION("another key") {
    f.options.key = dims::test::bent_key(f.options.key, 3);
    CHECK(f.check().findings.front().code == JournalDamage::kWrongKey);
  }
  SECTION("scribble behind the end") {
    const std::string last = f.path_of(59);
    scribble(f.disk, last, f.records[59].location.file_offset + 8000, 300);
    f.expect(JournalDamage::kTornTail, Severity::kNote, last);
  }
  SECTION("flip_bit in a note") {
    flip_bit(f.disk, f.path_of(59), journal_format::kNoteOffset + 30);
    f.expect(JournalDamage::kSlotDamaged, Severity::kWarning, f.path_of(59));
  }
  SECTION("a file of somebody else") {
    f.disk.plant(f.options.folder + "/notes.txt", Bytes(10));
    f.expect(JournalDamage::kForeignFile, Severity::kNote, f.options.folder + "/notes.txt");
  }
}

TEST_CASE("each_damage_of_a_merged_journal_is_found_by_its_name") {
  CheckFixture f;
  std::string merged;
  {
    auto journal = f.must_open();
    for (std::uint64_t i = 0; i < 40; ++i) REQUIRE(f.append(*journal, i % 30 * 4096, 4096).ok());
    REQUIRE(journal->flush().ok());
    REQUIRE(journal->merge({0, true, nullptr})->files > 0);
    for (const auto& record : journal->records(0, journal->stats().merged_epoch)) {
      merged = record.location.segment->file().path();
      break;
    }
  }
  const JournalCheck sound = f.check();
  CHECK(sound.findings.empty());
  CHECK(sound.merged_epoch > 0);
  SECTION("flip_bit in a record or the manifest") {
    const std::uint64_t size = f.disk.peek(merged).size();
    const std::uint64_t at =
        GENERATE_COPY(as<std::uint64_t>{}, journal_format::kRecordsStart + 150,
                      journal_format::kRecordsStart + 3000, size - 200, size - 40);
    flip_bit(f.disk, merged, at);
    f.expect(JournalDamage::kMergedDamaged, Severity::kDamage, merged);
  }
  SECTION("flip_bit in the first record") {
    flip_bit(f.disk, merged, journal_format::kRecordsStart + 20);
    f.expect(JournalDamage::kRecordDamaged, Severity::kDamage, merged);
  }
  SECTION("remove_file") {
    remove_file(f.disk, merged);
    f.expect(JournalDamage::kRecordsMissing, Severity::kDamage, f.options.folder);
  }
  SECTION("a removed log file that came back") {
    restore_old_file(f.disk, *f.older, f.path(1));
    f.expect(JournalDamage::kSuperfluousFile, Severity::kNote, f.path(1));
  }
}
