// FileTurn: one process, or one holder within it, at a time does something to a folder that
// programs share (a person's configuration, a machine's records).
//
// Threads: an instance has one owner. Ownership: holds a descriptor; the lock file stays. The turn
// ends with the object, and with the process however it ends. Errors: those of open() and flock().
#pragma once

#include <string>
#include <utility>

#include "common/base/result.h"

namespace dims::io {

class FileTurn {
 public:
  // Waits until nobody else has it. `path`: of the lock file, made (0600) when missing.
  static Result<FileTurn> wait(const std::string& path);
  FileTurn(FileTurn&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileTurn& operator=(FileTurn&&) = delete;
  ~FileTurn();

 private:
  explicit FileTurn(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace dims::io
