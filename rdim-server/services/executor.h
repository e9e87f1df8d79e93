// Executor: a fixed number of threads for work that reads or writes the store, so that gRPC's own
// threads never wait. Among waiting tasks the one of the highest priority goes first.
//
// Threads: thread-safe. Ownership: tasks own what they need. The queue is bounded by its callers:
// every stream has a limit of requests in flight. stop() runs what was queued, then joins; what
// comes after it is dropped (the server has ended all calls by then). Errors: tasks handle theirs.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "common/contract/remote.h"

namespace dims::services {

class Executor {
 public:
  explicit Executor(std::size_t threads);
  ~Executor();
  void run(contract::Priority priority, std::function<void()> task);
  void stop();

 private:
  void work();
  bool take(std::unique_lock<std::mutex>& lock, std::function<void()>& task);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<std::deque<std::function<void()>>, 4> queues_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace dims::services
