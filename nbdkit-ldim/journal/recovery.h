// What a journal's folder holds: reads and verifies every file and decides what is valid. Changes
// nothing.
//
// Files are linked: the first record of each (start) says which file it continues, where, and with
// which chain. The newest start record whose links all hold wins. What is lost behind that is a
// torn tail unless something proves that it was synced once: every record, and a note in each file,
// says how far everything was synced when it was written. Then it is damage: kCorrupt. The log's
// beginning may have been replaced by merged files: then the chain ends at the start record that
// their newest whole manifest names.
// (docs/formats/journal.md, "Recovery")
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nbdkit-ldim/journal/journal.h"
#include "nbdkit-ldim/journal/scanner.h"

namespace dims::ldim {

// A record in few bytes: 32 of them. The epoch follows from the seals' order numbers.
struct PackedRecord {
  std::uint64_t order = 0;
  std::uint64_t kind_offset = 0;  // kind in the top 8 bits, guest offset below
  std::uint32_t count = 0;
  std::uint32_t file_offset = 0;
  std::uint32_t segment = 0;  // its number

  std::uint64_t offset() const { return kind_offset & ((std::uint64_t{1} << 56) - 1); }
  WriteKind kind() const { return static_cast<WriteKind>(kind_offset >> 56); }
};
static_assert(sizeof(PackedRecord) == 32);
PackedRecord pack(const journal_format::RecordBody& body, std::uint64_t file_offset,
                  std::uint64_t segment);

struct SealedEpoch {
  std::uint64_t epoch = 0;
  std::uint64_t seal_order = 0;
  Digest digest;
  std::uint64_t file_offset = 0;  // of the seal; only while recovering
};

// One file with a good start record.
struct RecoveredSegment {
  std::shared_ptr<JournalSegment> segment;
  journal_format::StartPayload start;
  std::uint64_t first_order = 0;  // of the start record
  std::uint64_t first_epoch = 0;
  std::vector<PackedRecord> records;
  std::vector<SealedEpoch> seals;
  // Behind the last good record:
  std::uint64_t end = 0;
  std::uint64_t used_end = 0;  // behind the last byte that is not zero
  std::uint64_t next_order = 0;
  std::uint64_t open_epoch = 0;
  Digest chain;
};

// What a manifest says, and the file that it ends. (merged_file.h)
struct Manifest {
  journal_format::ManifestHead head;
  std::vector<journal_format::ManifestMember> members;
  std::vector<journal_format::ManifestId> ids;
};
struct MergedFile {
  std::shared_ptr<JournalSegment> segment;
  Manifest manifest;
  std::uint64_t end = 0;
  Digest chain;
  std::vector<PackedRecord> records;  // ascending by order
};

struct RecoveredJournal {
  bool existed = false;  // false: nothing there yet, the ids below are unset
  JournalId journal;
  journal_format::TrimState trimmed;
  std::vector<RecoveredSegment> segments;  // the valid chain, oldest first
  // What stands before the chain instead of the log's beginning; empty: nothing. The last one's
  // manifest is the one that counts.
  std::vector<MergedFile> merged;
  std::uint64_t synced_order =
      0;  // proven to be on disk; what is behind it may be in the cache only
  std::uint64_t newest_number = 0;  // of any file in the folder
  // Files that hold nothing valid, to be removed once the new file is durable.
  std::vector<std::uint64_t> garbage;
  // A garbage file without any record that may become the new file, so that a full disk stops no
  // start.
  std::uint64_t reusable_number = 0;
  std::uint64_t reusable_bytes = 0;
  std::uint64_t cut_bytes = 0;   // behind the end, not zero, given up as a torn tail
  std::uint64_t cut_seals = 0;   // seals among them: flushes that had not returned
  std::uint64_t read_bytes = 0;  // to find this out
};

// mode: how the files are opened; whoever goes on with them needs kReadWrite.
Result<RecoveredJournal> examine_journal(io::FileSystem& fs, const JournalOptions& options,
                                         io::OpenMode mode = io::OpenMode::kReadWrite);
// As examine_journal(), but what was synced once and is missing or damaged is no error: the chain
// ends before it. For salvage only; synced_order says what there was.
Result<RecoveredJournal> examine_damaged_journal(io::FileSystem& fs, const JournalOptions& options);

// Where a new journal's chain begins.
Digest first_chain(const JournalId& journal);

}  // namespace dims::ldim
