// A byte proxy that breaks: TCP on the loopback or a UNIX socket, each connection with a fault of
// its own after so many bytes of one direction. It knows nothing of what the bytes mean.
//
// Threads: one of its own moves all bytes; everything public is thread-safe; the plan and the
// listener to faults are called from that thread. Ownership: the callbacks outlive it. Units:
// bytes, milliseconds. Errors: aborts when it cannot have a socket.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace dims::test {

enum class WireFaultKind {
  kFin,           // both ways end in order, in the middle of whatever they carried
  kReset,         // both ways are reset
  kTail,          // the receiver gets a beginning and the end; the sender learns of it later
  kHalfOpenOne,   // one way swallows for a while, then both are cut
  kHalfOpenBoth,  // the same, both ways
  kStall,         // one way holds its bytes for a while, then goes on
};
inline constexpr std::size_t kWireFaultKinds = 6;
const char* name_of(WireFaultKind kind);

struct WireFault {
  WireFaultKind kind = WireFaultKind::kFin;
  bool up = false;                        // counts and breaks client -> server
  std::uint64_t after = 0;                // bytes of that direction that still pass
  std::chrono::milliseconds patience{0};  // a quiet line has it earlier, at its next byte
  std::uint64_t at_least = 0;             // but not before so many
  std::chrono::milliseconds lasts{0};     // of what ends by itself
  bool then_reset = false;                // the cut at its end
};

class BreakingProxy {
 public:
  static constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
  struct Calls {
    // For each connection, and again after a stall; none: it is left whole.
    std::function<std::optional<WireFault>()> plan;
    std::function<void(const WireFault&)> happened;
  };
  // "127.0.0.1:PORT" or "unix:PATH"; it listens on the same kind, for `listen` a UNIX socket's
  // path.
  BreakingProxy(const std::string& target, const std::string& listen, Calls calls);
  ~BreakingProxy();
  BreakingProxy(const BreakingProxy&) = delete;
  BreakingProxy& operator=(const BreakingProxy&) = delete;

  const std::string& address() const { return address_; }
  // No more faults: what is half-open is cut, what stalls goes on.
  void heal();
  // Of the answers only so many bytes more go on; the rest waits here, and none is lost.
  void let_down(std::uint64_t bytes);
  std::uint64_t bytes_held_down() const { return held_bytes_; }
  // That came in and never went out.
  std::uint64_t bytes_lost() const { return lost_; }
  std::uint64_t bytes_passed() const { return passed_; }

 private:
  using SteadyClock = std::chrono::steady_clock;
  struct Way {
    std::vector<char> held;  // during a stall, or for want of room
    bool ended = false;      // its sender has said so
    bool end_told = false;   // and its receiver has heard
    bool swallows = false;
    bool stalls = false;
  };
  struct Connection {
    std::array<int, 2> fds{-1, -1};  // client, server
    std::array<Way, 2> ways;         // up: from fds[0]; down: from fds[1]
    std::optional<WireFault> fault;
    SteadyClock::time_point due_at;  // a fault that waits for bytes is due then
    SteadyClock::time_point until;   // of one that has begun
    bool begun = false;
    bool over = false;
  };

  void run();
  void accept_one();
  void draw(Connection& connection);
  void take(Connection& connection, std::size_t way);
  void give(Connection& connection, std::size_t way, const char* data, std::size_t count);
  void flush(Connection& connection, std::size_t way);
  void begin(Connection& connection);
  void end(Connection& connection);
  void cut(Connection& connection, bool reset);
  void wake() const;

  const std::string target_;
  const Calls calls_;
  std::string address_;
  int listener_ = -1;
  std::array<int, 2> wake_{-1, -1};
  std::atomic<bool> stop_{false}, healed_{false};
  std::atomic<std::uint64_t> let_down_{kNoLimit};
  std::atomic<std::uint64_t> lost_{0}, passed_{0}, held_bytes_{0};
  std::list<Connection> connections_;  // of the thread
  std::thread thread_;
};

}  // namespace dims::test
