// Child processes: run one to its end, or keep one that serves a private UNIX socket.
//
// Threads: run() is thread-safe; an NbdChild has one owner. A child is its own process group (a
// Ctrl-C at the terminal is ours to handle), has no signal blocked, and dies with us. Errors:
// kUnsupported when the program is not installed, kIo with the child's own words when it fails.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "common/base/result.h"

namespace dims::media {

struct Output {
  int exit_code = 0;  // 128 + signal if killed
  std::string out;
  std::string err;
};
// Runs a program with these arguments and collects what it prints (at most 1 MiB each).
Result<Output> run(const std::vector<std::string>& arguments);

// A path as QEMU's programs take it: "disk-12:30.raw" would be a protocol to them.
inline std::string qemu_path(const std::string& path) {
  return path.starts_with('/') ? path : "./" + path;
}

// A qemu-nbd that serves one file on a socket in a folder that only we can open.
class NbdChild {
 public:
  // `arguments` without the socket's; returns when the socket accepts connections.
  static Result<std::unique_ptr<NbdChild>> start(std::vector<std::string> arguments);
  ~NbdChild();
  NbdChild(const NbdChild&) = delete;
  NbdChild& operator=(const NbdChild&) = delete;
  const std::string& socket_path() const { return socket_; }
  // Why a connection to it failed: its own words if it has ended, else `error`.
  Error explain(const Error& error);
  // Asks it to end and waits; an error if it fails. Without this the destructor ends it.
  Status stop();

 private:
  NbdChild() = default;
  std::string errors() const;
  std::string folder_;
  std::string socket_;
  pid_t pid_ = -1;
};

}  // namespace dims::media
