// The control socket: one JSON request a line, JSON answers a line each; the last one has "done":
// true.
//
// Only the owner of the cache folder and root may connect (folder 0700, socket 0600, SO_PEERCRED).
// Threads: one accepting thread, one for each connection (at most 8). Ownership: disk and renewal
// outlive it. Errors: bind() problems on start(); everything else is answered to the client.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "common/base/result.h"
#include "nbdkit-ldim/control/renewal.h"
#include "nbdkit-ldim/disk/disk.h"

namespace dims::ldim {

inline constexpr std::size_t kMaxControlLineBytes = 4 * 1024 * 1024;

class ControlServer {
 public:
  // Binds PATH (an old socket of a dead process is replaced).
  static Result<std::unique_ptr<ControlServer>> start(const std::string& path, Disk& disk,
                                                      Renewal* renewal = nullptr);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

 private:
  ControlServer(int fd, std::string path, Disk& disk, Renewal* renewal);
  void accept_loop();
  void serve(int fd);

  struct Connection {
    int fd;
    std::thread thread;
    std::atomic<bool> done{false};
  };
  int fd_;
  std::string path_;
  Disk& disk_;
  Renewal* const renewal_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::list<std::unique_ptr<Connection>> connections_;
  std::thread thread_;
};

}  // namespace dims::ldim
