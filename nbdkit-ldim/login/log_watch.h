// LogWatch: a running disk hears what the organisation's log says from now on.
//
// One thread follows the log, as the machine for itself (which a revoked machine still may), checks
// every record against what is pinned in the machine's folder, and keeps it there. A wipe or a
// revocation ends the disk: `halt` first, then the folders are erased as the record says, the
// server is told, then `end` and, if that does not help, `leave`. While the server is away it tries
// again, after 1 s to 30 s.
//
// Threads: its own; the callbacks run on it. The destructor waits for them. Ownership: the
// callbacks' world outlives it. Errors: logged. Durable: the log, and that a wipe was done.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "nbdkit-ldim/login/orders.h"

namespace dims::ldim {

class LogWatch {
 public:
  struct Callbacks {
    std::function<void(const trust::OrgState&)> on_log;  // at the start, and whenever it has grown
    std::function<void(const Error&)> halt;  // nothing may be served or written on return
    std::function<void()> end;               // asks the process to end
    std::function<void()> leave;             // it did not: a client that stays connected holds it
  };
  // `cache_folder` empty: diskless.
  static Result<std::unique_ptr<LogWatch>> start(const std::string& machine_folder,
                                                 const std::string& cache_folder,
                                                 Callbacks callbacks);
  ~LogWatch();
  LogWatch(const LogWatch&) = delete;
  LogWatch& operator=(const LogWatch&) = delete;

 private:
  LogWatch(MachineFolder folder, trust::OrgLog log, std::string cache_folder, Callbacks callbacks);
  void run();
  // True: the disk is over.
  bool look(client::AccessClient* server);
  Status follow();
  Result<bool> take(const std::vector<Bytes>& records, client::AccessClient& server);
  bool pause(std::chrono::milliseconds length);

  MachineFolder folder_;
  trust::OrgLog log_;
  const std::string cache_folder_;
  const Callbacks callbacks_;
  const std::uint64_t obeyed_at_start_;
  std::uint64_t next_seq_ = 0;  // of the stream
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::shared_ptr<client::AccessClient> server_;
  std::thread thread_;
};

}  // namespace dims::ldim
