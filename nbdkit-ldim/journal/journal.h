// The journal: LDIM's local log of guest writes that RDIM does not hold yet. What is in it must not
// be lost. A folder of segment files, each preallocated and sealed under a key of its own
// (docs/formats/journal.md).
//
// Durability, beside which everything here is written:
//     appended (in the kernel's hands, contiguous) >= sealed >= synced >= committed >= trimmed
// and, independent of what is committed:  synced >= merged. Epochs up to the merged one have become
// one group: what was overwritten inside it is gone, and only its end is a state of the disk.
//
// Threads: all methods are thread-safe. Ownership: a Segment is shared; a Location keeps its
// segment (and so its file) readable after trim(). Units: bytes of the guest's disk; order numbers
// and epochs count from 1 and never repeat in a journal's life. Errors: kNoSpace when the limit is
// reached (the caller waits or tells the guest; the reserve for seals is kept); kCorrupt on damage
// before a valid later seal; kWrongKey; after the first failed write or sync every append/flush
// fails with kIo, for good (latched).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/base/units.h"
#include "common/crypto/held_key.h"
#include "common/io/file.h"
#include "nbdkit-ldim/journal/arrival.h"

namespace dims::ldim {

enum class WriteKind : std::uint8_t { kData = 1, kZero = 2, kTrim = 3 };

class JournalSegment;  // one file

// Where a record's bytes lie. For kZero and kTrim there are no bytes.
struct JournalLocation {
  std::shared_ptr<JournalSegment> segment;
  std::uint64_t file_offset = 0;  // of the record's header
};

// One appended record, as kept in memory until it is trimmed.
struct JournalRecord {
  std::uint64_t order = 0;  // order number: the later write wins
  std::uint64_t epoch = 0;  // the epoch that it belongs to (sealed by the seal of that number)
  WriteKind kind = WriteKind::kData;
  ByteRange range;  // of the guest's disk
  JournalLocation location;
};

// Names a point of the guest's history: everything up to and including `epoch`.
struct CommitId {
  JournalId journal;
  std::uint64_t epoch = 0;
  Digest digest;  // chained through every seal up to this epoch
  friend bool operator==(const CommitId&, const CommitId&) = default;
};

struct JournalOptions {
  std::string folder;
  MachineId machine;
  ImageId image;
  SessionId session;
  crypto::HeldKey key;  // J of SECURITY 12
  std::uint64_t segment_bytes = 64 * kMiB;
  std::uint64_t limit_bytes = 4 * kGiB;  // of all segments together; one is kept for merge()
};

// A record that merge() has copied. Whoever still points at the old place may point at the new one;
// the old one stays readable as long as its location is held.
struct MovedRecord {
  JournalRecord record;  // as it is now; its range may be a part of what it was
  JournalLocation old_location;
  ByteRange old_range;
};

struct MergeWish {
  std::uint64_t enough_bytes = 0;  // stop when so many are freed; 0 = do all that is worth it
  bool urgent = false;             // for little gain too: somebody waits for room
  // Called after each step, on the merging thread, without locks.
  std::function<void(const std::vector<MovedRecord>&)> on_moved;
};

struct MergeReport {
  std::uint64_t files = 0;        // that are gone
  std::uint64_t freed_bytes = 0;  // what they held, less what was written instead
  std::uint64_t moved_bytes = 0;  // written
};

// While it lives, no epoch behind `through` is merged with it.
struct HeldCommit {
  CommitId through;             // the newest synced one
  std::shared_ptr<void> guard;  // gives the hold up; must not outlive the journal
};

struct JournalStats {
  std::uint64_t bytes = 0;  // space held by segments
  std::uint64_t limit_bytes = 0;
  std::uint64_t free_bytes =
      0;                      // about what can be appended before kNoSpace: slow the guest by this
  std::uint64_t records = 0;  // not yet trimmed
  std::uint64_t ending_epoch = 0;        // newest that takes no more writes: sealed, or being so
  std::uint64_t sealed_epoch = 0;        // newest sealed
  std::uint64_t synced_epoch = 0;        // newest sealed and synced
  std::uint64_t trimmed_epoch = 0;       // everything up to here is gone
  std::uint64_t merged_epoch = 0;        // everything up to here is one group; 0 = there is none
  std::uint64_t merged_bytes = 0;        // space held by merged files; part of `bytes`
  std::uint64_t segment_bytes = 0;       // of a new file
  std::uint64_t merges = 0;              // steps since this open
  std::uint64_t open_epoch_bytes = 0;    // guest bytes appended since the newest seal
  std::uint64_t open_epoch_records = 0;  // writes, zeroes and trims behind ending_epoch
  std::uint64_t recovered_records = 0;
  std::uint64_t cut_bytes = 0;  // torn tail that recovery gave up
  std::uint64_t cut_seals = 0;  // seals in it, of flushes that had not returned; worth a warning
  double recovery_seconds = 0;
  std::uint64_t recovery_bytes = 0;  // read and verified for it
  bool failed = false;
};

class Journal {
 public:
  // Opens or creates the journal in options.folder and recovers it. A torn tail (a bad record with
  // no valid seal behind it) is cut off; a bad record followed by a valid later seal is kCorrupt
  // and nothing is changed on disk. After recovery the records that were not sealed are sealed as
  // one epoch and synced. `journal_id` and the epoch numbering continue; nothing is appended to a
  // file of an earlier open.
  static Result<std::unique_ptr<Journal>> open(io::FileSystem& fs, const JournalOptions& options,
                                               Clock& clock, Random& random);
  virtual ~Journal() = default;

  // Appends one write. Returns when it and every record of a lower order number are in the kernel's
  // hands. Large data is split into several records inside one order number's place; the list
  // returned holds them. If it must wait, for a file or, after kNoSpace, for the caller's next
  // attempt with the same arrival, what came later and was placed first stays: only the rest is
  // placed, perhaps nothing. On return that is in the kernel's hands too, and arrival.covers() are
  // its records.
  virtual Result<std::vector<JournalRecord>> append(WriteKind kind, ByteRange range, ByteView data,
                                                    WriteArrival& arrival) = 0;
  Result<std::vector<JournalRecord>> append(WriteKind kind, ByteRange range, ByteView data) {
    WriteArrival now;
    return append(kind, range, data, now);
  }
  // A write that will wait before its first append() came now. Does nothing if it has come already.
  virtual void arrive(WriteArrival& arrival, ByteRange range) = 0;

  // Reads guest bytes [at, at+out.size()) of a kData record; the range must lie inside record
  // range. A tag failure is kCorrupt.
  virtual Status read(const JournalLocation& location, ByteRange record_range, std::uint64_t at,
                      MutByteView out) = 0;

  // Seals the open epoch and makes it durable: every write that returned before this call is in
  // the sealed, synced prefix on return. Concurrent calls share one sync. Returns the newest
  // synced commit id. Costs nothing when nothing was appended since the last flush.
  virtual Result<CommitId> flush() = 0;

  // The newest synced commit id (epoch 0 and zero digest if there is none yet).
  virtual CommitId synced() = 0;
  // As synced(), for a commit that is being sent: keeps merge() away from what is newer.
  virtual HeldCommit hold() = 0;
  // The commit of this epoch is about to leave: its id stays known even when the epoch is merged
  // into a later one, so that a commit whose reply was lost is recognised.
  virtual void offer(std::uint64_t epoch) = 0;
  // The records of epochs (after, through], in order. For write-back and for building the page map.
  // Merged epochs count as the last of their group; some of their records may be pieces of what was
  // appended, with the same order number.
  virtual std::vector<JournalRecord> records(std::uint64_t after_epoch,
                                             std::uint64_t through_epoch) = 0;
  // The digest of a sealed epoch that is not yet trimmed, or of trimmed_epoch itself. Of an epoch
  // inside a merged group only if it was offered, or may have been before this open.
  virtual std::optional<CommitId> commit_id(std::uint64_t epoch) = 0;
  // Where the group of this epoch ends: the epoch itself if it is not merged.
  virtual std::uint64_t group_end(std::uint64_t epoch) = 0;

  // Frees what epochs <= through hold: whole segments whose records all are that old. Call only
  // after the commit and the base record are durable. Durable on return is the fact that recovery
  // will not report these epochs as unsent (a trim record or the segments' absence). An epoch
  // inside a merged group trims nothing: its records are needed for the group's end.
  virtual Status trim(std::uint64_t through_epoch) = 0;

  // Merges synced epochs and frees what they have overwritten, oldest files first, file by file: a
  // step writes at most one new file of segment_bytes before it frees the old ones, and append()
  // leaves that much room. Durable on return: the same writes as before. An error (kNoSpace, kIo,
  // kCorrupt) leaves the last good state, in memory and on disk; appends go on. One call at a time
  // runs; others wait. Costs nothing to appends but a short lock now and then.
  virtual Result<MergeReport> merge(const MergeWish& wish) = 0;

  virtual JournalStats stats() = 0;
  virtual JournalId id() = 0;
};

}  // namespace dims::ldim
