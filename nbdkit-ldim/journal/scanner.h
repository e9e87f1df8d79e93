// Reads a journal file front to back: the next good record, or the place where none is; and looks
// for good records behind such a place. Used by recovery, and by whoever salvages a damaged
// journal.
//
// Threads: one owner at a time. Ownership: shares the segment. Units: bytes. Errors: kIo when the
// file cannot be read; bytes that fail a check are no error but the end of the scan.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "nbdkit-ldim/journal/segment.h"

namespace dims::ldim {

struct ScannedRecord {
  journal_format::RecordBody body;
  std::uint64_t file_offset = 0;
  crypto::Tag tag{};  // of the header: what the chain is made of
  Bytes payload;      // opened; control records (seal, start, merged, manifest) only
};

class SegmentScanner {
 public:
  explicit SegmentScanner(std::shared_ptr<JournalSegment> segment);

  // The record at position(), with every block verified; nullopt if there is none or it is damaged.
  // Moves position() behind it.
  Result<std::optional<ScannedRecord>> next();
  // From `from` on, the first header that opens (its blocks are not looked at). Notes what it
  // passes over that is not zero.
  Result<std::optional<ScannedRecord>> find_header(std::uint64_t from);
  // Behind the last byte of [from, to or the end of the file) that is not zero; `from` if all are.
  Result<std::uint64_t> used_end(std::uint64_t from, std::uint64_t to = ~std::uint64_t{0});

  // Behind the last byte, not zero, that find_header() came by; 0: none.
  std::uint64_t passed_end() const { return passed_end_; }

  // The last place that the disk could not read, of what was looked at. What lies there counts as
  // something, and opens as nothing.
  std::optional<std::uint64_t> unreadable() const { return unreadable_; }

  // What was asked of the file so far; no byte twice while it goes forward.
  std::uint64_t bytes_read() const { return bytes_read_; }

  std::uint64_t position() const { return position_; }
  const std::shared_ptr<JournalSegment>& segment() const { return segment_; }

 private:
  // At least `count` bytes at `at`, or what the file has. The view lasts until the next call.
  Result<ByteView> window(std::uint64_t at, std::size_t count);

  std::shared_ptr<JournalSegment> segment_;
  std::uint64_t position_ = journal_format::kRecordsStart;
  // Reads what the disk can read, page by page.
  Result<std::size_t> read_around(std::uint64_t at, MutByteView out);

  std::optional<std::uint64_t> unreadable_;
  Bytes buffer_;
  std::uint64_t buffer_at_ = 0;
  std::size_t buffer_count_ = 0;
  std::uint64_t bytes_read_ = 0;
  std::uint64_t passed_end_ = 0;
};

}  // namespace dims::ldim
