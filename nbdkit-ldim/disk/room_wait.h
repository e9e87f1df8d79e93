// RoomWait: how long a write waits for the write-back to make room in a full journal. Slow is not
// dead: as long as the link carries something, however little, the guest is slowed and not failed.
//
// Threads: one. Ownership: a value. Units: time since boot; progress is any number that grows.
// Errors: none.
#pragma once

#include <chrono>
#include <cstdint>

namespace dims::ldim {

class RoomWait {
 public:
  explicit RoomWait(std::chrono::nanoseconds longest) : longest_(longest) {}
  // True when nothing has moved for too long, or not at all since the first question.
  bool over(std::chrono::nanoseconds now, std::uint64_t progress) {
    if (!asked_ || progress != progress_) {
      asked_ = true;
      since_ = now;
      progress_ = progress;
    }
    return now - since_ >= longest_;
  }

 private:
  const std::chrono::nanoseconds longest_;
  bool asked_ = false;
  std::chrono::nanoseconds since_{0};
  std::uint64_t progress_ = 0;
};

}  // namespace dims::ldim
