// WriteBack: brings whole sealed epochs to the server, in order, each group as one commit.
//
// The order, never another (docs/durability.md):
//   seal epoch, sync journal -> cut, seal, hash -> Has -> Put -> Commit
//   -> cache pages and nodes synced -> base record synced -> page map -> trim journal
//
// What the server refuses: a stale lease is acquired again; our own commit whose reply was lost is
// recognised by its commit id and adopted; any other head means that somebody else has written: our
// epochs go to a conflict branch that stands on the session's base, and the session goes on there.
//
// Threads: thread-safe; works on one thread of its own. Ownership: all parts outlive it. Errors:
// kept in stats().trouble and retried; commit_through() returns what cannot be retried.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/format/key_file.h"
#include "nbdkit-ldim/fetch/reader.h"
#include "nbdkit-ldim/pagemap/pending_map.h"
#include "nbdkit-ldim/writeback/commit_builder.h"
#include "nbdkit-ldim/writeback/lease_keeper.h"
#include "nbdkit-ldim/writeback/state_file.h"

namespace dims::ldim {

enum class WriteBackPolicy { kEager, kManual, kDelay };

// How far an epoch has come; what each promises: docs/durability.md.
enum class AckPoint {
  kSent,      // the server has answered for every object of it
  kReceived,  // the server's head holds it
  kCommitted  // and this machine has recorded that
};

// Steps of one commit, in order; tests stop at each (see WriteBackOptions::at_step).
enum class CommitStep {
  kSealed,
  kUploaded,
  kCommitted,
  kCacheSynced,
  kBaseRecorded,
  kMapAdvanced,
  kTrimmed
};

struct WriteBackOptions {
  WriteBackPolicy policy = WriteBackPolicy::kEager;
  std::chrono::milliseconds delay{0};     // for kDelay: age of the oldest unsent epoch
  std::chrono::milliseconds gather{500};  // for kEager: epochs sealed meanwhile share a commit
  std::chrono::milliseconds seal_after{30000};  // LDIM seals an open epoch of this age by itself
  bool compress = true;
  std::string machine_name;
  std::function<bool(CommitStep)> at_step;  // tests: false = stop as a crash would
  std::function<void()> on_handed_over;     // the lease was given to the machine that asked
};

struct WriteBackStats {
  std::uint64_t commits = 0;
  std::uint64_t conflicts = 0;  // branches made
  std::uint64_t adopted = 0;    // own commits whose reply had been lost
  std::uint64_t sent_epoch = 0;
  std::uint64_t received_epoch = 0;
  std::uint64_t committed_epoch = 0;
  std::uint64_t pages = 0;
  std::uint64_t chunks = 0;
  std::uint64_t chunks_sent = 0;
  std::uint64_t bytes_sent = 0;
  std::string trouble;  // why the last attempt failed; empty if it did not
};

struct WriteBackParts {
  contract::Remote& remote;
  Journal& journal;
  PendingMap& pending;
  BaseReader& reader;
  Fetcher& fetcher;
  PageCache& cache;
  StateFile& state;
  LeaseKeeper& lease;
  const format::KeyRing& key;
  Clock& clock;
  Random& random;
  MachineId machine;
};

// All machines of a server that was away must not come back in step: 75 to 125 % of a pause.
std::chrono::milliseconds jittered(std::chrono::milliseconds pause, Random& random);

class WriteBack {
 public:
  WriteBack(const WriteBackParts& parts, const WriteBackOptions& options);
  ~WriteBack();
  WriteBack(const WriteBack&) = delete;
  WriteBack& operator=(const WriteBack&) = delete;

  void start();
  void stop();
  // Asks for a commit of everything synced so far, whatever the policy says.
  void request();
  // The same, but what has failed waits for its time.
  void request_in_time();
  // The next try of what failed need not wait for its time.
  void retry_now();
  // Waits until `epoch` is committed. kCancelled when stopped, kDeadlineExceeded after `longest`.
  Status commit_through(std::uint64_t epoch, std::chrono::milliseconds longest) {
    return reach(AckPoint::kCommitted, epoch, longest);
  }
  Status reach(AckPoint point, std::uint64_t epoch, std::chrono::milliseconds longest);
  // Another machine asks for the image: sends all that was written up to now, whatever the policy
  // says, and gives the lease back. Returns at once.
  void hand_over(const std::string& to);
  // While the lock is held no commit is under way: for a session that moves its base.
  std::unique_lock<std::mutex> hold() { return std::unique_lock(work_mutex_); }
  // An attempt is under way: what it sends is kept apart from what is newer (Journal::hold), so
  // that a merge may have to wait for its end.
  bool at_work() { return !std::unique_lock(work_mutex_, std::try_to_lock).owns_lock(); }
  // One attempt on the calling thread (start-up, tests); true if something was committed.
  Result<bool> run_once();
  // From now on commits go to a new conflict branch that stands on the base.
  Status branch_off();
  // For a server that does not know the base (restored from an older copy): stores the base's whole
  // content and all sealed epochs as a conflict branch that stands on the server's head, from what
  // this machine holds. kNotFound: some of it is neither here nor there; nothing was changed.
  // Called under hold().
  Status rescue();
  // The branch of this session seems to be gone. Looked at in time: if it is, what comes goes to
  // the image again, or to another branch. Returns at once.
  void branch_is_gone();
  WriteBackStats stats() const;
  // What is still to be sent, for those who wait for the image: of what was written before they
  // asked, once they have.
  std::uint64_t unsent_bytes() const;

 private:
  void run();
  bool due(bool& asked);  // asked: because somebody wants it now
  Result<bool> attempt(const CommitId& through);
  // refused: what the server said to the lease request or the commit.
  Result<bool> resolve_foreign_head(const Error& refused);
  Status check_ours(const contract::VersionInfo& version, const LdimState& state,
                    const CommitId& through);
  Result<bool> adopt_if_ours(const LdimState& state, const VersionId& head);
  Status adopt(const contract::VersionInfo& version);
  Status make_branch();
  // The id and the first free name, both recorded before they are used.
  Result<contract::ImageInfo> create_branch(const contract::ImageInfo& home,
                                            const VersionId& origin, std::uint64_t sequence);
  // The session's branch was removed (resolved while this machine was away), and the image is
  // there.
  bool lost_branch(const Error& refused);
  Error leave_branch(const Error& gone);
  void leave_lost_branch();
  Result<contract::ImageInfo> rescue_branch(const LdimState& state, const contract::ImageInfo& home,
                                            std::uint64_t sequence);
  Status enter_branch(const contract::ImageInfo& branch);
  void finish_hand_over(std::unique_lock<std::mutex>& lock);
  struct Committed {
    CommitId through;
    VersionId version;
    Bytes record;
    format::Reference root;
    std::vector<PageRange> touched;
    std::uint64_t last_order = 0;
  };
  Status finish(Committed done);
  Bytes make_record(const format::KeyFile& key, const LdimState& state,
                    const format::Reference& root, const CommitId& through);
  bool step(CommitStep step) { return !options_.at_step || options_.at_step(step); }

  WriteBackParts parts_;
  const WriteBackOptions options_;
  std::mutex work_mutex_;  // one attempt at a time

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  bool requested_ = false;
  bool look_at_branch_ = false;
  // A commit on this base may have been made, or may yet be. By work_mutex_.
  bool offered_ = false;
  // Of the commit that is being sent: bytes that the server has, sealed and compressed.
  std::atomic<std::uint64_t> arrived_{0};
  std::atomic<bool> stopping_{false};             // as stop_, for what is being sent
  std::string hand_over_to_;                      // who asked; empty: nobody
  std::chrono::nanoseconds hand_over_asked_{0};   // last
  std::optional<std::uint64_t> hand_over_epoch_;  // what must be committed before, once known
  std::uint64_t hand_over_bytes_ = 0;             // of it
  std::chrono::nanoseconds oldest_unsent_{0};     // 0: nothing unsent
  std::chrono::nanoseconds oldest_unsealed_{0};
  std::uint64_t sealed_before_ = 0;     // as due() saw them last: a guest that never rests must not
  std::uint64_t committed_before_ = 0;  // make an epoch look older than it is
  std::chrono::nanoseconds retry_at_{0};
  std::chrono::milliseconds retry_pause_{0};
  WriteBackStats stats_;
  std::thread thread_;
};

}  // namespace dims::ldim
