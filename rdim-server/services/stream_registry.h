// StreamRegistry: the streams that are open, so that a shutdown can end them politely.
//
// Threads: thread-safe. Ownership: holds them weakly. Errors: none.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

namespace dims::services {

class OpenStream {
 public:
  virtual ~OpenStream() = default;
  // Ends the call with UNAVAILABLE as soon as what is under way is done.
  virtual void end() = 0;
};

class StreamRegistry {
 public:
  // A stream that comes after end_all() is ended at once.
  void add(const std::shared_ptr<OpenStream>& stream);
  void end_all();

 private:
  std::mutex mutex_;
  bool ended_ = false;
  std::vector<std::weak_ptr<OpenStream>> streams_;
  std::size_t sweep_at_ = 64;
};

}  // namespace dims::services
