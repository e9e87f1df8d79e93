// A sector that the disk cannot read: no worse than one with wrong bytes, and never taken for a
// torn tail.
#include <catch2/catch.hpp>

#include <utility>

#include "nbdkit-ldim/journal/format.h"
#include "nbdkit-ldim/journal/salvage.h"
#include "nbdkit-ldim/journal/segment.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

// One page of one file gives EIO.
struct BadPage {
  std::string path;
  std::uint64_t at = 0;
};

class BadFile : public io::File {
 public:
  BadFile(std::shared_ptr<io::File> file, const BadPage& bad) : file_(std::move(file)), bad_(bad) {}
  Status read_at(std::uint64_t offset, MutByteView out) override {
    if (hits(offset, out.size())) return eio();
    return file_->read_at(offset, out);
  }
  Result<std::size_t> read_some(std::uint64_t offset, MutByteView out) override {
    if (hits(offset, out.size())) return eio();
    return file_->read_some(offset, out);
  }
  Status write_at(std::uint64_t offset, ByteView data) override {
    return file_->write_at(offset, data);
  }
  Status write_gather(std::uint64_t offset, std::span<const ByteView> parts) override {
    return file_->write_gather(offset, parts);
  }
  Status sync_data() override { return file_->sync_data(); }
  Status preallocate(std::uint64_t size) override { return file_->preallocate(size); }
  Status truncate(std::uint64_t size) override { return file_->truncate(size); }
  Result<std::uint64_t> size() override { return file_->size(); }
  const std::string& path() const override { return file_->path(); }

 private:
  bool hits(std::uint64_t offset, std::uint64_t count) const {
    return file_->path() == bad_.path && offset < bad_.at + kPageBytes && offset + count > bad_.at;
  }
  Error eio() const { return make_error(ErrorCode::kIo, "cannot read " + file_->path()); }
  std::shared_ptr<io::File> file_;
  const BadPage& bad_;
};

class BadPageFileSystem : public io::MemoryFileSystem {
 public:
  Result<std::shared_ptr<io::File>> open(const std::string& path, io::OpenMode mode) override {
    DIMS_ASSIGN(auto file, io::MemoryFileSystem::open(path, mode));
    return std::shared_ptr<io::File>(std::make_shared<BadFile>(std::move(file), bad));
  }
  BadPage bad;
};

struct UnreadableFixture : JournalFixture {
  UnreadableFixture() {
    fs = &files;
    options.segment_bytes = 128 * kKiB;
    auto journal = must_open();
    for (std::uint64_t i = 0; i < 60; ++i) {  // three files
      REQUIRE(append(*journal, i * kPageBytes, kPageBytes).ok());
      if (i % 5 == 4) REQUIRE(journal->flush().ok());
    }
    records = journal->records(0, 99);
    REQUIRE(records.size() == 60);
  }
  void break_page_of(const JournalRecord& record) {
    files.bad = {record.location.segment->file().path(),
                 (record.location.file_offset + 200) / kPageBytes * kPageBytes};
  }
  BadPageFileSystem files;
  std::vector<JournalRecord> records;
};

}  // namespace

TEST_CASE("an unreadable page inside the journal is damage with its place, and can be salvaged") {
  // In the first file, in the last one, and at the very end, where no later record vouches for it.
  for (const std::size_t which : {std::size_t{7}, std::size_t{52}, std::size_t{59}}) {
    UnreadableFixture f;
    f.break_page_of(f.records[which]);
    const auto names = *f.files.list(f.options.folder);
    const auto refused = f.open();
    INFO("record " << which);
    REQUIRE(!refused.ok());
    CHECK(refused.error().code == ErrorCode::kCorrupt);
    CHECK(!refused.error().hint.empty());
    CHECK(*f.files.list(f.options.folder) == names);
    JournalOptions target = f.options;
    target.folder = "/salvaged";
    const auto report = salvage_journal(f.files, f.options, target, 0, f.clock, f.random);
    if (!report.ok()) FAIL(report.error().to_string());
    CHECK(report->epochs >= (which - 2) / 5);
    CHECK(report->epochs <= which / 5);
    // An error that passes costs nothing.
    f.files.bad = {};
    CHECK(f.must_open()->records(0, 99).size() == 60);
  }
}

TEST_CASE(
    "an unreadable header, slot or note of a journal file ends no start with an input error") {
  for (const std::uint64_t at : {std::uint64_t{0}, journal_format::kTrimSlotOffset[0],
                                 journal_format::kTrimSlotOffset[1], journal_format::kNoteOffset}) {
    UnreadableFixture f;
    const std::string path = f.records[10].location.segment->file().path();
    f.records.clear();
    f.files.bad = {path, at};
    const auto opened = f.open();
    INFO("at " << at);
    if (at == 0) {
      REQUIRE(!opened.ok());
      CHECK(opened.error().code == ErrorCode::kCorrupt);
    } else {
      if (!opened.ok()) FAIL(opened.error().to_string());
      CHECK((*opened)->records(0, 99).size() == 60);
    }
  }
}
