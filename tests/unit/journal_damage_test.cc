// What is wrong on disk is told apart and told: wrong key, another's file, damage, a torn tail.
#include <catch2/catch.hpp>

#include "common/crypto/hash.h"
#include "nbdkit-ldim/journal/format.h"
#include "nbdkit-ldim/journal/segment.h"
#include "tests/support/keys.h"
#include "tests/support/sim_file.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

struct DamageFixture : JournalFixture {
  DamageFixture() {
    fs = &disk;
    options.segment_bytes = 64 * kKiB;
  }
  std::map<std::string, Bytes> files() {
    std::map<std::string, Bytes> out;
    const auto names = disk.list(options.folder);
    for (const auto& name : *names) out[name] = disk.peek(options.folder + "/" + name);
    return out;
  }
  // The open fails with this code and leaves every byte alone.
  Error refused(ErrorCode code) {
    const auto before = files();
    const auto opened = open();
    REQUIRE(!opened.ok());
    CHECK(opened.error().code == code);
    CHECK(files() == before);
    return opened.error();
  }
  void flip(const std::string& path, std::uint64_t at) {
    const std::uint8_t other = static_cast<std::uint8_t>(disk.peek(path)[at] ^ 0x40);
    disk.poke(path, at, {&other, 1});
  }
  std::string path(std::uint64_t number) const { return segment_path(options.folder, number); }

  SimFileSystem disk;
};

}  // namespace

TEST_CASE("wrong_key_is_refused_by_the_key_check") {
  DamageFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 100).ok());
  REQUIRE(journal->flush().ok());
  journal.reset();
  f.options.key = dims::test::bent_key(f.options.key, 5);
  f.refused(ErrorCode::kWrongKey);
  f.options.key = dims::test::bent_key(f.options.key, 5);
  CHECK(f.must_open()->records(0, 1).size() == 1);
}

TEST_CASE("file_of_another_image_machine_journal_or_place_is_refused") {
  DamageFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 100).ok());
  REQUIRE(journal->flush().ok());
  journal.reset();
  SECTION("image") {
    f.options.image.bytes[0] ^= 1;
    CHECK(f.refused(ErrorCode::kInvalidArgument).message.find("belongs to image") !=
          std::string::npos);
  }
  SECTION("machine") {
    f.options.machine.bytes[0] ^= 1;
    CHECK(f.refused(ErrorCode::kInvalidArgument).message.find("on machine") != std::string::npos);
  }
  SECTION("another journal of the same image") {
    DamageFixture other;
    other.random.fill(other.options.session.mut());
    auto theirs = other.must_open();
    REQUIRE(other.append(*theirs, 0, 100).ok());
    REQUIRE(theirs->flush().ok());
    const JournalId id = theirs->id();
    theirs = other.must_open();  // file 2
    f.disk.plant(f.path(2), other.disk.peek(other.path(2)));
    CHECK(f.refused(ErrorCode::kInvalidArgument).message.find(id.hex()) != std::string::npos);
  }
  SECTION("a copy under another number") {
    f.disk.plant(f.path(2), f.disk.peek(f.path(1)));
    f.refused(ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("damaged_header_is_damage_and_not_an_empty_journal") {
  DamageFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 100).ok());
  REQUIRE(journal->flush().ok());
  journal.reset();
  const std::uint64_t at = GENERATE(as<std::uint64_t>{}, 0, 8, 20, 48, 112, 150, 300, 500);
  f.flip(f.path(1), at);
  f.refused(ErrorCode::kCorrupt);
}

TEST_CASE("unknown_format_version_is_unsupported") {
  DamageFixture f;
  f.must_open().reset();
  Bytes bytes = f.disk.peek(f.path(1));
  bytes[8] = 9;
  const Digest sum = crypto::sha256(ByteView(bytes).first(journal_format::kChecksumOffset));
  std::copy(sum.bytes.begin(), sum.bytes.end(), bytes.begin() + journal_format::kChecksumOffset);
  f.disk.plant(f.path(1), bytes);
  f.refused(ErrorCode::kUnsupported);
}

TEST_CASE("damage_before_a_synced_seal_is_refused_with_its_place") {
  DamageFixture f;
  auto journal = f.must_open();
  std::vector<JournalRecord> records;
  for (std::uint64_t i = 0; i < 8; ++i) {
    records.push_back((*f.append(*journal, i * 4096, 2000))[0]);
    if (i % 3 == 2) REQUIRE(journal->flush().ok());
  }
  REQUIRE(journal->flush().ok());
  journal.reset();
  // Header, tag and data of each record; only what was flushed is in there.
  const std::size_t which = GENERATE(as<std::size_t>{}, 0, 3, 7);
  const std::uint64_t part = GENERATE(as<std::uint64_t>{}, 0, 10, 60, 100, 500);
  f.flip(f.path(1), records[which].location.file_offset + part);
  const Error error = f.refused(ErrorCode::kCorrupt);
  CHECK(error.message.find("at byte " + std::to_string(records[which].location.file_offset)) !=
        std::string::npos);
  CHECK(!error.hint.empty());
}

TEST_CASE("a_seal_whose_chain_does_not_match_is_damage") {
  // A record replaced by an older one of the same file and place cannot happen; a seal cut out can.
  DamageFixture f;
  auto journal = f.must_open();
  const auto record = (*f.append(*journal, 0, 2000))[0];
  REQUIRE(journal->flush().ok());
  REQUIRE(f.append(*journal, 4096, 2000).ok());
  REQUIRE(journal->flush().ok());
  journal.reset();
  const std::uint64_t seal =
      record.location.file_offset +
      journal_format::record_bytes(journal_format::RecordType::kData, 0, 2000);
  const Bytes zeros(journal_format::kSealBytes);
  f.disk.poke(f.path(1), seal, zeros);
  f.refused(ErrorCode::kCorrupt);
}

TEST_CASE("missing_file_in_the_middle_or_at_an_end_is_damage") {
  DamageFixture f;
  auto journal = f.must_open();
  for (std::uint64_t i = 0; i < 60; ++i) {
    REQUIRE(f.append(*journal, i * 4096, 4096).ok());
    if (i % 5 == 4) REQUIRE(journal->flush().ok());
  }
  REQUIRE(journal->flush().ok());
  journal.reset();
  REQUIRE(f.files().size() >= 5);
  const std::uint64_t gone = GENERATE(as<std::uint64_t>{}, 1, 2, 3);
  f.disk.erase(f.path(gone));
  f.refused(ErrorCode::kCorrupt);
}

TEST_CASE("newest_used_file_gone_is_damage_when_a_spare_knows_better") {
  DamageFixture f;
  auto journal = f.must_open();
  for (std::uint64_t i = 0; i < 10; ++i) {
    REQUIRE(f.append(*journal, i * 4096, 4096).ok());
    REQUIRE(journal->flush().ok());
  }
  journal.reset();
  REQUIRE(f.files().size() == 2);  // the second one is the spare
  f.disk.erase(f.path(1));
  f.refused(ErrorCode::kCorrupt);
}

TEST_CASE("torn_tail_is_cut_and_told") {
  DamageFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 4096).ok());
  const auto commit = journal->flush();
  REQUIRE(commit.ok());
  const auto good = (*f.append(*journal, 4096, 4096))[0];
  const auto torn = (*f.append(*journal, 8192, 4096))[0];
  REQUIRE(f.append(*journal, 12288, 4096).ok());
  journal.reset();
  f.flip(f.path(1), torn.location.file_offset + 3000);
  journal = f.must_open();
  const auto records = journal->records(0, 99);
  REQUIRE(records.size() == 2);
  CHECK(records[1].order == good.order);
  CHECK(journal->commit_id(1) == *commit);
  CHECK(journal->stats().cut_bytes > 4096);
  CHECK(journal->stats().cut_seals == 0);
  CHECK(f.disk.peek(f.path(1)).size() == torn.location.file_offset);
  // Once cut, it stays cut, whatever else happens.
  journal = f.must_open();
  CHECK(journal->records(0, 99).size() == 2);
  CHECK(journal->stats().cut_bytes == 0);
}

TEST_CASE("a_seal_behind_a_torn_record_that_never_was_synced_is_no_damage_but_told") {
  DamageFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 4096).ok());
  REQUIRE(journal->flush().ok());
  const auto torn = (*f.append(*journal, 4096, 4096))[0];
  f.disk.stop_at_call(f.disk.calls() + 1);  // the seal is written, the sync never happens
  CHECK(!journal->flush().ok());
  journal.reset();
  f.disk.clear_faults();
  f.flip(f.path(1), torn.location.file_offset + 200);
  journal = f.must_open();
  CHECK(journal->records(0, 99).size() == 1);
  CHECK(journal->synced().epoch == 1);
  CHECK(journal->stats().cut_seals == 1);
}

TEST_CASE("damage_found_while_reading_is_reported_and_leaves_no_text") {
  DamageFixture f;
  auto journal = f.must_open();
  const auto record = (*f.append(*journal, 100, 40000))[0];
  const std::uint64_t second_block = record.location.file_offset + 96 + 16 + (4096 - 100) + 16;
  f.flip(f.path(1), second_block + 5);
  Bytes out(10, 0xee);
  CHECK(journal->read(record.location, record.range, 100, out).ok());
  CHECK(out == f.pattern(100, 10));
  const Status bad = journal->read(record.location, record.range, 4090, out);
  REQUIRE(!bad.ok());
  CHECK(bad.error().code == ErrorCode::kCorrupt);
  CHECK(is_all_zero(out));
  CHECK(journal->read(record.location, record.range, 8192, out).ok());
  // A wrong place of a sound record is no answer either.
  CHECK(!journal->read(record.location, {101, record.range.count}, 101, out).ok());
  CHECK(!journal->read(record.location, record.range, 99, out).ok());
}

TEST_CASE("no_guest_text_lies_in_the_files") {
  DamageFixture f;
  auto journal = f.must_open();
  const std::string secret = "my secret of 32 bytes, or so ....";
  REQUIRE(journal->append(WriteKind::kData, {0, secret.size()}, as_bytes(secret)).ok());
  REQUIRE(journal->flush().ok());
  for (const auto& [name, bytes] : f.files()) {
    CHECK(std::search(bytes.begin(), bytes.end(), secret.begin(), secret.end()) == bytes.end());
  }
}
