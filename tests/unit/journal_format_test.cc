// The format cannot change unnoticed: a file from fixed inputs equals the golden one, and the
// golden one opens. DIMS_WRITE_GOLDEN=1 writes it anew (only together with a new format version).
#include <catch2/catch.hpp>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "nbdkit-ldim/journal/format.h"
#include "nbdkit-ldim/journal/merged_file.h"
#include "nbdkit-ldim/journal/scanner.h"
#include "tests/support/sim_file.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::ldim::journal_format;
using namespace dims::test;

namespace {

const char* const kGolden = DIMS_GOLDEN "/journal_v1.hex";
const char* const kGoldenMerged = DIMS_GOLDEN "/journal_merged_v1.hex";

// "offset: hex" for every 32 bytes that are not all zero; the last line is "size: N".
std::string dump(const Bytes& bytes) {
  std::string out =
      "# A journal file of format version 1; docs/formats/journal.md says what is what.\n";
  char head[32];
  for (std::size_t at = 0; at < bytes.size(); at += 32) {
    const ByteView line = ByteView(bytes).subspan(at, std::min<std::size_t>(32, bytes.size() - at));
    if (is_all_zero(line)) continue;
    std::snprintf(head, sizeof head, "%08zx: ", at);
    out += head + to_hex(line) + "\n";
  }
  return out + "size: " + std::to_string(bytes.size()) + "\n";
}

Bytes undump(const std::string& text) {
  Bytes bytes;
  std::istringstream in(text);
  std::string line;
  while (std::getline(in, line)) {
    if (line.empty() || line[0] == '#') continue;
    if (line.rfind("size: ", 0) == 0) {
      bytes.resize(std::stoul(line.substr(6)));
      continue;
    }
    const std::size_t at = std::stoul(line.substr(0, 8), nullptr, 16);
    const auto part = from_hex(line.substr(10));
    if (!part) return {};
    if (bytes.size() < at + part->size()) bytes.resize(at + part->size());
    std::copy(part->begin(), part->end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return bytes;
}

struct GoldenFixture : JournalFixture {
  GoldenFixture() : JournalFixture(42) {
    fs = &disk;
    options.segment_bytes = 32 * kKiB;
  }
  SimFileSystem disk;
};

Bytes make_golden() {
  GoldenFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 4090, 20).ok());  // two blocks: the page edge lies inside
  REQUIRE(journal->append(WriteKind::kZero, {8192, 65536}, {}).ok());
  REQUIRE(journal->flush().ok());
  REQUIRE(journal->trim(1).ok());
  REQUIRE(f.append(*journal, 512, 100).ok());
  REQUIRE(journal->append(WriteKind::kTrim, {1048576, 4096}, {}).ok());
  REQUIRE(journal->flush().ok());
  return f.disk.peek(segment_path(f.options.folder, 1));
}

// Reads the golden file, or writes it anew.
Bytes golden_of(const char* path, const Bytes& made) {
  if (std::getenv("DIMS_WRITE_GOLDEN") != nullptr) std::ofstream(path) << dump(made);
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return undump(text.str());
}

}  // namespace

TEST_CASE("a merged file's bytes equal the golden file") {
  GoldenFixture f;
  auto journal = f.must_open();
  std::vector<std::uint64_t> epochs;
  REQUIRE(journal->append(WriteKind::kZero, {65536, 8192}, {}).ok());
  for (std::uint8_t i = 0; i < 8; ++i) {
    REQUIRE(f.append(*journal, 4090, 4096, i).ok());
    if (i % 2 == 1) epochs.push_back(journal->flush()->epoch);
    if (i == 3) journal->offer(epochs.back());
  }
  const auto report = journal->merge({0, true, nullptr});
  REQUIRE(report.ok());
  REQUIRE(report->files == 2);
  const auto names = f.disk.list(f.options.folder);
  REQUIRE(names->size() == 3);  // the open log file, the next one, and the merged one
  const Bytes made = f.disk.peek(f.options.folder + "/" + names->back());
  const Bytes golden = golden_of(kGoldenMerged, made);
  CHECK(made == golden);

  const std::uint64_t number = *segment_number(names->back());
  f.disk.plant(segment_path(f.options.folder, number), golden);
  auto file = f.disk.open(segment_path(f.options.folder, number), io::OpenMode::kReadOnly);
  auto segment =
      JournalSegment::load(*file, number, f.options.machine, f.options.image, f.options.key);
  REQUIRE(segment.ok());
  SegmentScanner scanner(*segment);
  auto first = scanner.next();
  REQUIRE((first.ok() && first->has_value()));
  CHECK((*first)->body.type == RecordType::kMerged);
  auto merged = scan_merged(scanner, **first);
  REQUIRE((merged.ok() && merged->has_value()));
  const Manifest& manifest = (*merged)->manifest;
  CHECK(manifest.head.horizon.epoch == 4);
  CHECK(manifest.head.trim.epoch == 0);
  CHECK(manifest.members.empty());
  REQUIRE(manifest.ids.size() == 1);
  CHECK(manifest.ids[0].epoch == epochs[1]);
  REQUIRE((*merged)->records.size() == 1);  // the newer ones are still in the log
  CHECK((*merged)->records[0].kind() == WriteKind::kZero);
  journal = f.must_open();
  CHECK(journal->stats().merged_epoch == 4);
  CHECK(journal->commit_id(epochs[1]).has_value());
}

TEST_CASE("journal bytes equal the golden file") {
  const Bytes made = make_golden();
  const Bytes golden = golden_of(kGolden, made);
  REQUIRE(golden.size() == 32 * kKiB);
  CHECK(made == golden);

  GoldenFixture f;
  REQUIRE(f.disk.make_folder(f.options.folder).ok());
  f.disk.plant(segment_path(f.options.folder, 1), golden);
  auto file = f.disk.open(segment_path(f.options.folder, 1), io::OpenMode::kReadOnly);
  REQUIRE(file.ok());
  auto segment = JournalSegment::load(*file, 1, f.options.machine, f.options.image, f.options.key);
  REQUIRE(segment.ok());
  CHECK((*segment)->header().session == f.options.session);
  CHECK((*segment)->header().file_bytes == 32 * kKiB);
  SegmentScanner scanner(*segment);
  const RecordType types[] = {RecordType::kStart, RecordType::kData, RecordType::kZero,
                              RecordType::kSeal,  RecordType::kData, RecordType::kTrim,
                              RecordType::kSeal};
  const std::uint64_t offsets[] = {0x4000, 0x40d0, 0x4170, 0x41d0, 0x4260, 0x4340, 0x43a0};
  const std::uint64_t epochs[] = {1, 1, 1, 1, 2, 2, 2};
  std::uint64_t order = 0;
  for (std::size_t i = 0; i < std::size(types); ++i) {
    auto record = scanner.next();
    REQUIRE(record.ok());
    REQUIRE(record->has_value());
    CHECK((*record)->body.type == types[i]);
    CHECK((*record)->file_offset == offsets[i]);
    CHECK((*record)->body.epoch == epochs[i]);
    CHECK((*record)->body.order == ++order);
  }
  auto end = scanner.next();
  REQUIRE(end.ok());
  CHECK(!end->has_value());
  auto slots = (*segment)->read_trim_slots();
  REQUIRE(slots.ok());
  REQUIRE(slots->has_value());
  CHECK((*slots)->epoch == 1);
  CHECK((*slots)->order == 4);
  auto note = (*segment)->read_note();
  REQUIRE(note.ok());
  CHECK(*note == std::optional<std::uint64_t>(7));

  auto journal = f.must_open();
  CHECK(journal->synced().epoch == 2);
  CHECK(journal->stats().trimmed_epoch == 1);
  const auto records = journal->records(0, 9);
  REQUIRE(records.size() == 2);
  Bytes out(100);
  REQUIRE(journal->read(records[0].location, records[0].range, 512, out).ok());
  CHECK(out == f.pattern(512, 100));
  CHECK(records[1].range == ByteRange{1048576, 4096});
}

TEST_CASE("records of every size and alignment have the length that the format says") {
  CHECK(record_bytes(RecordType::kSeal, 0, sizeof(SealPayload)) == kSealBytes);
  CHECK(record_bytes(RecordType::kStart, 0, sizeof(StartPayload)) == kStartBytes);
  CHECK(record_bytes(RecordType::kMerged, 0, sizeof(MergedPayload)) == kMergedBytes);
  CHECK(record_bytes(RecordType::kZero, 5, 1000000) == 96);
  CHECK(record_bytes(RecordType::kData, 0, 4096) == 96 + 16 + 4096);
  CHECK(record_bytes(RecordType::kData, 1, 4096) == 96 + 32 + 4096);
  CHECK(record_bytes(RecordType::kData, 4095, 2) == 96 + 32 + 16);
  CHECK(record_bytes(RecordType::kData, 0, kMiB) == 96 + 256 * 16 + kMiB);
}
