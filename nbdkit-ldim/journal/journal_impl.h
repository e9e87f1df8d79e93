// The journal's inside. open: journal_open.cc; append, read: journal_append.cc; flush:
// journal_flush.cc; writes that wait: journal_arrival.cc; trim and space: journal_space.cc;
// merging: journal_merge.cc.
//
// One mutex guards everything below `mutex_`; no file is read, written or synced while it is held.
// How an append runs: under the mutex it gets its order numbers, its epoch and its place in a file;
// it seals and writes outside; under the mutex it marks itself done, and whoever closes the gap
// retires all that is contiguous (chain, list of records); it returns when its own order number has
// retired. A seal and a start record hold the chain over everything before them, so their writer
// waits until that has retired. Everyone waits only for lower order numbers: no cycle.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <set>

#include "common/crypto/hash.h"
#include "nbdkit-ldim/journal/journal.h"
#include "nbdkit-ldim/journal/recovery.h"

namespace dims::ldim {

class JournalImpl final : public Journal {
 public:
  JournalImpl(io::FileSystem& fs, const JournalOptions& options, Clock& clock, Random& random);
  ~JournalImpl() override;

  Status start();

  using Journal::append;
  Result<std::vector<JournalRecord>> append(WriteKind kind, ByteRange range, ByteView data,
                                            WriteArrival& arrival) override;
  void arrive(WriteArrival& arrival, ByteRange range) override;
  void depart(WriteArrival& arrival);  // it is placed, or given up
  Status read(const JournalLocation& location, ByteRange record_range, std::uint64_t at,
              MutByteView out) override;
  Result<CommitId> flush() override;
  CommitId synced() override;
  HeldCommit hold() override;
  void offer(std::uint64_t epoch) override;
  std::vector<JournalRecord> records(std::uint64_t after_epoch,
                                     std::uint64_t through_epoch) override;
  std::optional<CommitId> commit_id(std::uint64_t epoch) override;
  std::uint64_t group_end(std::uint64_t epoch) override;
  Result<MergeReport> merge(const MergeWish& wish) override;
  Status trim(std::uint64_t through_epoch) override;
  JournalStats stats() override;
  JournalId id() override;

 private:
  using Lock = std::unique_lock<std::mutex>;

  // A file that is or was written by this or an earlier open.
  struct SegmentState {
    std::shared_ptr<JournalSegment> segment;
    std::uint64_t bytes = 0;
    std::uint64_t first_order = 0;
    std::uint64_t first_epoch = 0;       // of its start record
    Digest start_chain;                  // in its start record
    std::uint64_t last_order = 0;        // once closed; 0 while it is the open one
    std::uint64_t start_trim_epoch = 0;  // what its start record says
    std::uint64_t slot_trim_epoch = 0;   // what its synced trim slots say
    bool dirty = false;                  // something may be in it that was not synced
  };
  // What stands instead of the log's beginning. Nothing if there are no files.
  struct Merged {
    struct File {
      std::shared_ptr<JournalSegment> segment;
      std::uint64_t end = 0;
      Digest chain;
    };
    std::vector<File> files;
    journal_format::ManifestHead head;            // of the newest manifest
    std::deque<PackedRecord> records;             // ascending by order; what is dead may be missing
    std::vector<journal_format::ManifestId> ids;  // inside the group, perhaps known to the server
  };
  // A record between its order number and its retirement.
  struct InFlight {
    journal_format::RecordType type = journal_format::RecordType::kData;
    bool done = false;
    crypto::Tag tag{};
    PackedRecord record;
  };
  // What the owner of a reserved record needs to write it.
  struct Placed {
    journal_format::RecordBody body;
    std::shared_ptr<JournalSegment> segment;
    std::uint64_t file_offset = 0;
    std::uint64_t data_offset = 0;       // into the caller's data
    journal_format::StartPayload start;  // of a start record; the chain is still missing
  };
  struct Piece {
    ByteRange range;
    std::uint64_t data_offset = 0;
  };

  // --- journal_append.cc ---
  std::vector<Piece> cut(WriteKind kind, ByteRange range) const;
  // Reserves all pieces, or nothing if the files at hand do not hold them.
  bool place_all(journal_format::RecordType type, const std::vector<Piece>& pieces,
                 std::vector<Placed>* out);
  bool fits(journal_format::RecordType type, const std::vector<Piece>& pieces) const;
  Placed reserve(journal_format::RecordType type, ByteRange range, std::uint64_t total_bytes);
  Placed switch_segment();
  Status write_placed(Placed& placed, ByteView data);
  // Waits until everything below is retired, then completes `placed` with the chain and writes it.
  Status write_control(Placed& placed);
  Status complete(std::uint64_t order, const crypto::Tag& tag);
  void retire_done();
  Status wait_retired(Lock& lock, std::uint64_t order);
  // Latches when an exception ends the scope: while it is armed, records are reserved and not
  // written. To be made before the lock is taken.
  class FailOnThrow {
   public:
    explicit FailOnThrow(JournalImpl& journal) : journal_(journal) {}
    ~FailOnThrow();
    FailOnThrow(const FailOnThrow&) = delete;
    FailOnThrow& operator=(const FailOnThrow&) = delete;
    void arm(bool armed) { armed_ = armed; }

   private:
    JournalImpl& journal_;
    bool armed_ = false;
    const int exceptions_ = std::uncaught_exceptions();
  };
  void wake_all();
  Error fail(const Error& error);  // latches the first failure; mutex_ held
  Error latched() const;
  void prepare_spare();
  JournalRecord unpack(const PackedRecord& record, std::uint64_t epoch) const;

  // --- journal_arrival.cc ---
  void enter_arrival(WriteArrival& arrival, ByteRange range);
  std::vector<Piece> cut_left(WriteKind kind, const WriteArrival& arrival) const;
  void supersede(WriteKind kind, const std::vector<Placed>& placed, const WriteArrival& by);

  // --- journal_flush.cc ---
  Status seal_and_sync(Lock& lock);

  // --- journal_space.cc ---
  Status obtain_spare(Lock& lock);
  // Files that trim has made superfluous leave the list; the caller removes them, without the
  // mutex.
  std::vector<std::string> take_reclaimable();
  void remove_files(const std::vector<std::string>& paths);
  std::uint64_t payload_bytes(std::uint64_t segment_bytes) const;

  // --- journal_merge.cc ---
  struct MergePlan;
  struct MergeVictim;
  struct MergeStep;
  const SealedEpoch* sealed(std::uint64_t epoch) const;  // nullptr: unknown or merged away
  std::vector<std::string> drop_merged();
  Result<MergePlan> plan_merge(bool urgent);
  Status run_merge_step(const MergePlan& plan, const MergeStep& step, MergeReport& report,
                        std::vector<MovedRecord>& moved);
  Result<MergedFile> write_merged(const MergePlan& plan, const MergeStep& step,
                                  const Manifest& manifest, std::vector<MovedRecord>& moved);
  std::vector<std::string> switch_to(const MergePlan& plan, const MergeStep& step,
                                     MergedFile&& file);

  // --- journal_open.cc ---
  Result<std::shared_ptr<JournalSegment>> make_first_segment(const RecoveredJournal& found);
  void adopt(const RecoveredJournal& found);
  void adopt_merged(const RecoveredJournal& found);
  void clean_up(const RecoveredJournal& found);

  io::FileSystem& fs_;
  const JournalOptions options_;
  Clock& clock_;
  Random& random_;
  JournalIdentity identity_;
  std::uint64_t segment_bytes_ = 0;
  std::uint64_t max_data_bytes_ = 0;

  std::mutex mutex_;
  std::condition_variable retired_cv_;  // retired_order_ or failed_ changed
  std::condition_variable sync_cv_;     // syncing_ ended
  std::condition_variable spare_cv_;    // creating_ ended

  std::optional<Error> failed_;
  std::deque<SegmentState> segments_;  // oldest first; the last one is open
  std::deque<std::shared_ptr<JournalSegment>> spares_;
  std::uint64_t position_ = 0;     // in the open file
  std::uint64_t next_number_ = 1;  // of files
  std::uint64_t bytes_held_ = 0;   // all files, spares included
  bool creating_ = false;
  bool spare_tried_ = false;  // ahead of time, for the open file

  std::uint64_t next_order_ = 1;
  std::uint64_t retired_order_ = 0;
  std::deque<InFlight> in_flight_;  // orders retired_order_ + 1 ...
  std::size_t waiters_ = 0;
  std::vector<WriteArrival*> waiting_writes_;  // that have no place yet
  std::uint64_t arrivals_ = 0;                 // of writes that had to wait
  crypto::Sha256 chain_;                 // over everything retired since the newest seal or start
  std::optional<Digest> resumed_chain_;  // what the first start record of this open goes on from

  std::uint64_t open_epoch_ = 1;        // of records that are reserved now
  std::uint64_t open_records_ = 0;      // reserved in it
  std::uint64_t open_epoch_bytes_ = 0;  // retired since the newest retired seal
  std::deque<PackedRecord> records_;    // retired, not trimmed, in log files
  // Retired seals, not trimmed: without a gap from the end of the merged group on, if there is one.
  std::deque<SealedEpoch> epochs_;
  Merged merged_;
  std::multiset<std::uint64_t> holds_;
  std::set<std::uint64_t> offered_;    // epochs whose ids survive a merge
  std::uint64_t recovered_epoch_ = 0;  // up to here epochs may have been offered before this open
  std::uint64_t merges_ = 0;
  SealedEpoch sealing_;  // the one seal that may be in flight
  journal_format::TrimState trimmed_;
  CommitId synced_;
  std::uint64_t synced_order_ = 0;
  bool syncing_ = false;
  std::uint64_t note_generation_ = 0;  // only the syncing thread uses it

  std::mutex merge_mutex_;  // one merge at a time; taken before trim_mutex_
  std::mutex trim_mutex_;   // one trim or step of a merge at a time; taken before mutex_
  std::uint64_t trim_generation_ = 0;

  JournalStats start_stats_;  // what recovery found
};

}  // namespace dims::ldim
