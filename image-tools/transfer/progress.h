// What a running transfer says about itself, and how it is told to stop.
// Threads: every field is atomic; one writer side, any number of readers. Units: bytes.
#pragma once

#include <atomic>
#include <cstdint>

#include "common/base/result.h"

namespace dims::transfer {

struct Progress {
  std::atomic<std::uint64_t> disk_bytes{0};       // the whole disk
  std::atomic<std::uint64_t> disk_bytes_done{0};  // holes and zeros included
  std::atomic<std::uint64_t> data_bytes{0};       // that were not zero
  std::atomic<bool> cancel{false};
};

inline Error cancelled() {
  return make_error(ErrorCode::kCancelled, "interrupted", "run the same command again to go on");
}

}  // namespace dims::transfer
