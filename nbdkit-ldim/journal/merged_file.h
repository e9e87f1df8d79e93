// Merged files: what is left of old log files once their overwritten data is gone.
//
//   merged record, data/zero/trim records (with the order numbers they always had), manifest
//
// The manifest is the switch: a merged file counts only if its last record is a manifest that fits
// everything before it, and then it says what the log's beginning is replaced by: this file, the
// other merged files that it lists, and the log from a given start record on. One file is written
// and synced whole, so a crash leaves either the old state or the new one
// (docs/formats/journal.md, "Merging").
//
// Threads: values; a writer has one owner. Ownership: shares the segment. Errors: as the file gives
// them. Durable: nothing until finish() returned.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "common/crypto/hash.h"
#include "nbdkit-ldim/journal/recovery.h"
#include "nbdkit-ldim/journal/scanner.h"

namespace dims::ldim {

Bytes encode_manifest(const Manifest& manifest);
// nullopt if the lengths do not fit.
std::optional<Manifest> decode_manifest(ByteView payload);
// Length of the record. Beyond what a record can hold: kMaxManifestBytes.
std::uint64_t manifest_record_bytes(std::size_t members, std::size_t ids);
inline constexpr std::uint64_t kMaxManifestBytes = journal_format::kMaxDataBytes;

// Goes on behind `first`, the file's merged record, that was just read. nullopt: not whole, so it
// never counted.
Result<std::optional<MergedFile>> scan_merged(SegmentScanner& scanner, const ScannedRecord& first);

class MergedWriter {
 public:
  explicit MergedWriter(std::shared_ptr<JournalSegment> segment);

  Status begin(const journal_format::TrimState& horizon);
  // Ascending orders; data is empty unless the record is kData. Returns where the record lies.
  Result<std::uint64_t> add(WriteKind kind, ByteRange range, std::uint64_t order, ByteView data);
  // Fills in the manifest's chain, writes and syncs. Returns what the file is.
  Result<MergedFile> finish(Manifest manifest);

 private:
  Result<std::uint64_t> put(journal_format::RecordBody body, ByteView payload);
  Status write_out();

  std::shared_ptr<JournalSegment> segment_;
  journal_format::TrimState horizon_;
  crypto::Sha256 chain_;
  Bytes buffer_;  // sealed records on their way to the file
  std::uint64_t buffer_at_ = journal_format::kRecordsStart;
  std::vector<PackedRecord> records_;
};

}  // namespace dims::ldim
