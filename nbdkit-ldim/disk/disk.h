// Disk: the emulated disk of one session. Everything of LDIM is put together here.
//
//   read   pending map -> journal; else base tree -> zeros, cache, server
//   write  journal -> pending map -> answer          flush  seal the epoch, sync the journal ->
//   answer later  write-back (writeback/write_back.h)
//
// The base moves only by the session's own commits or at the start of a session; never under a live
// guest.
//
// Threads: open() and close() once; everything else is thread-safe and may run in parallel.
// Ownership: the disk owns all its parts; the environment outlives it. Units: bytes. Errors: every
// message says what, where and what to do; io::errno_of() gives the guest's errno. While the server
// is away, reads of absent pages wait; nothing else does. Durable on return: flush() and writes
// with fua, as `ack` says.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>
#include <nlohmann/json_fwd.hpp>

#include "common/contract/remote.h"
#include "common/format/key_file.h"
#include "common/io/file.h"
#include "nbdkit-ldim/disk/cache_folder.h"
#include "nbdkit-ldim/disk/fill.h"
#include "nbdkit-ldim/disk/options.h"
#include "nbdkit-ldim/disk/room_wait.h"
#include "nbdkit-ldim/disk/version_fetch.h"
#include "nbdkit-ldim/fetch/read_ahead.h"
#include "nbdkit-ldim/pagemap/tidy.h"
#include "nbdkit-ldim/writeback/write_back.h"

namespace dims::ldim {

struct DiskEnvironment {
  contract::Remote& remote;
  io::FileSystem& fs;
  Clock& clock;
  Random& random;
  std::function<bool(CommitStep)> at_step{};  // tests
  // Asked by requests that wait: true when the process was told to stop. May be empty.
  std::function<bool()> quitting{};
  // Why the session's keys are of no use any more, for status(); empty: they are. May be empty.
  std::function<std::string()> session_trouble{};
};

// The server cannot be reached now: no reason to fail what can be done from here.
inline bool is_away(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded;
}

struct DiskExtent {
  ByteRange range;
  bool hole = false;
  bool zero = false;
};

struct SyncReport {
  std::uint64_t epoch = 0;
  bool committed = false;
};

class Disk {
 public:
  static Result<std::unique_ptr<Disk>> open(const DiskOptions& options,
                                            const DiskEnvironment& environment);
  ~Disk();

  std::uint64_t size() const { return image_bytes_; }
  bool writable() const { return options_.mode != SessionMode::kReadOnly; }

  Status read(ByteRange range, std::uint8_t* out);
  Status write(ByteRange range, const std::uint8_t* data, bool fua);
  Status zero(ByteRange range, bool trim, bool fua);
  Status flush();
  // Brings a range into the cache (NBD_CMD_CACHE).
  Status cache(ByteRange range);
  // Ascending, without gaps, starting at range.offset, never beyond range.
  Result<std::vector<DiskExtent>> extents(ByteRange range, bool one);

  // A client came or went. left_by_itself: it closed the connection, not we.
  Status client_connected();
  void client_left(bool left_by_itself);

  // For ldim.
  nlohmann::json status(bool verify);
  // With `wait`: of what was written before the call, so a guest that goes on writing moves no
  // goal.
  Result<SyncReport> sync(bool wait, std::chrono::milliseconds longest);
  // kDeadlineExceeded: the server has not got this epoch within `longest`.
  Status wait_committed(std::uint64_t epoch, std::chrono::milliseconds longest);
  // One attempt of the write-back on the calling thread, for simulations that decide what happens
  // when; true if something was committed.
  Result<bool> write_back_once() {
    return write_back_ == nullptr ? Result<bool>(false) : write_back_->run_once();
  }
  // Holds new requests, makes everything durable; on return the process may be killed. Requests go
  // on by themselves after `hold`.
  Status quiesce(std::chrono::milliseconds hold);
  Status resume();
  // Keys of a later login of the same user to the same image: from the next attempt to send on.
  Status renew(std::shared_ptr<const format::KeyFile> keys);
  // kConflict while a client is connected.
  Status end_session();
  bool all_sent() const;  // what was written is on the server; true where nothing is sent
  struct PrefetchProgress {
    std::uint64_t pages_done = 0;
    std::uint64_t pages_total = 0;
  };
  Status prefetch(const std::vector<ByteRange>& ranges,
                  const std::function<bool(PrefetchProgress)>& progress);
  nlohmann::json check();

  // Seals and syncs; sends what can be sent within `longest`; ends the session if the client left
  // by itself; releases the lease. The disk is of no use afterwards.
  Status close(std::chrono::milliseconds longest);
  // At once, because it must not be any more (a wipe): seals and syncs what was written, sends
  // nothing, stops every thread. On return nothing touches the folder; requests fail with `why`.
  void halt(const Error& why);

 private:
  Disk(const DiskOptions& options, const DiskEnvironment& environment);

  // disk_open.cc
  Status start();
  Status find_out(bool& online);
  Status open_folder();
  Status open_journal();
  void make_write_back();
  // A folder that was restored from an old copy: the server knows more of its journal than it does.
  Result<bool> journal_is_restored();
  bool knows_newer();
  // A restored journal that is being replaced (kRestoredNote).
  struct RestoredNote {
    ImageId began_on;       // zero: none is
    bool all_sent = false;  // what is left of its files is of no use
  };
  Result<RestoredNote> restored_note();
  Status note_restored(const RestoredNote& note);
  Status replace_restored_journal();
  Status branch_what_was_salvaged();
  Status begin_or_resume(bool online, bool anew);
  Status start_new_session(bool online);
  bool resumable() const;
  Status drop_shared_writes();
  Status check_descends(const contract::VersionInfo& head);
  Status take_lease();
  Status meet_other_history(const Error& foreign);
  Status move_base(const contract::ImageInfo& image);
  Status tell_server_of_session();
  // The image's conflict branches, all of them now; needs watch_mutex_.
  void note_branches(std::vector<std::string> names);

  // disk_io.cc
  Status append(WriteKind kind, ByteRange range, ByteView data, bool fua);
  Status make_room(const Error& full, RoomWait& wait, unsigned round);
  bool away_for_long(bool connected);
  Status allowed();  // an error once halted
  bool quitting() const { return environment_.quitting && environment_.quitting(); }
  Status check_range(ByteRange range) const;
  void watch();
  void stop_watch();
  void on_event(const contract::ServerEvent& event);
  void on_handed_over();
  void on_rebuilt();
  void close_session_if_sent();
  void note_client_alive();
  void keep_alive_note();
  void tell_late();

  class Request;  // counts a request in and out; waits while quiesced
  void enter(WriteArrival* arrival, ByteRange range);
  void leave();

  const DiskOptions options_;
  DiskEnvironment environment_;
  format::KeyRing key_;
  contract::ImageInfo image_;
  std::string root_;  // of journal, cache, state; "mem:" when diskless
  FolderIdentity identity_;
  FolderKeys keys_;
  bool online_at_start_ = false;
  LdimState state_at_start_;
  std::uint64_t image_bytes_ = 0;

  std::unique_ptr<FolderLock> lock_;
  std::unique_ptr<StateFile> state_;
  std::unique_ptr<PageCache> cache_;
  std::unique_ptr<Journal> journal_;
  PendingMap pending_;
  std::unique_ptr<JournalTidy> tidy_;
  std::unique_ptr<Fetcher> fetcher_;
  std::unique_ptr<BaseTree> tree_;
  std::unique_ptr<BaseReader> reader_;
  std::unique_ptr<ReadAhead> read_ahead_;
  std::unique_ptr<Fill> fill_;                   // null: not wanted
  std::unique_ptr<VersionFetch> version_fetch_;  // null: diskless, its cache is for now
  std::unique_ptr<LeaseKeeper> lease_;
  std::unique_ptr<WriteBack> write_back_;

  std::atomic<std::uint64_t> reads_{0}, writes_{0}, flushes_{0}, zeroes_{0};
  std::atomic<std::uint64_t> bytes_read_{0}, bytes_written_{0};
  std::atomic<std::uint64_t> throttled_{0}, appends_{0};

  std::mutex gate_mutex_;
  std::condition_variable gate_changed_;
  std::atomic<bool> quiesced_{false};
  std::atomic<int> in_flight_{0};
  std::chrono::nanoseconds hold_until_{0};
  std::atomic<bool> halted_{false};
  Error halted_why_;                                                 // under gate_mutex_
  std::optional<std::chrono::steady_clock::time_point> away_since_;  // under gate_mutex_

  std::mutex session_mutex_;
  unsigned clients_ = 0;
  bool client_left_by_itself_ = false;
  bool session_ended_ = false;
  bool told_ = false;  // the server knows of this session
  std::chrono::nanoseconds last_client_left_{0};
  std::chrono::nanoseconds noted_alive_{0};
  bool closed_ = false;

  std::mutex watch_mutex_;
  std::condition_variable watch_changed_;
  bool watch_stop_ = false;
  bool watch_now_ = false;                   // the pause before the next try is over
  contract::EventStream* events_ = nullptr;  // what watch() reads now
  std::uint64_t known_head_sequence_ = 0;
  VersionId known_head_;
  std::vector<std::string> branches_;  // of the image; see note_branches()
  std::string lease_wanted_by_;        // the machine that asked last; empty: none since we have it
  std::thread watch_thread_;
};

}  // namespace dims::ldim
