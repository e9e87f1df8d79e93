// A TCP proxy on the loopback that is a long, narrow line: each direction has a delay and a rate;
// connections can be cut. Threads: two a direction and connection, joined at destruction. Units:
// bytes a second, milliseconds one way.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace dims::test {

struct LinkShape {
  std::chrono::milliseconds delay{0};    // one way
  std::uint64_t bytes_per_second = 0;    // 0: no limit
  std::uint64_t buffer_bytes = 1 << 20;  // what the line holds before the sender is slowed
};

class Link {
 public:
  // target: "127.0.0.1:PORT"
  Link(const std::string& target, const LinkShape& shape);
  ~Link();
  const std::string& address() const { return address_; }
  // Ends every connection now; new ones are accepted.
  void cut();
  // From server to client, so far.
  std::uint64_t bytes_down() const { return bytes_down_; }

 private:
  struct Connection;
  void accept_loop();

  const LinkShape shape_;
  std::uint16_t target_port_ = 0;
  int listener_ = -1;
  std::string address_;
  std::atomic<std::uint64_t> bytes_down_{0};
  std::mutex mutex_;
  std::list<std::unique_ptr<Connection>> connections_;
  std::thread acceptor_;
};

}  // namespace dims::test
