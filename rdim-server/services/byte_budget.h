// ByteBudget: the bytes of messages that all streams together have read and still hold. A
// stream reads on only while there is room; one message a stream may pass the limit.
//
// Threads: thread-safe; wake-ups run on the thread that gives bytes back, without locks. Errors:
// none.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace dims::services {

class ByteBudget {
 public:
  explicit ByteBudget(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}
  // True: there is room. Else `wake` is called once when there is room again.
  bool room_or_wake(std::function<void()> wake);
  void take(std::uint64_t bytes);
  void give_back(std::uint64_t bytes);

 private:
  std::mutex mutex_;
  const std::uint64_t max_bytes_;
  std::uint64_t used_ = 0;
  std::vector<std::function<void()>> waiting_;
};

}  // namespace dims::services
