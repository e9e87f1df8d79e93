// NetworkWatch: what the host's network looks like, and when it changes. The machine that roams
// learns from it that its connections are dead, instead of waiting for a ping without an answer.
//
// Threads: next() from one thread at a time; the rest from any. Ownership: shared by those who
// watch; nothing else. Errors: none; a host that cannot be watched is one where nothing changes.
// Nothing is sent over the network by it. Source: rtnetlink(7).
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace dims::client {

// What stopped to be there. Empty: something else changed.
struct NetworkChange {
  std::vector<std::string> addresses_gone;  // of this host, as numbers
  std::vector<unsigned> links_down;         // indexes
  bool overrun = false;                     // there was more than could be told
};

// How packets leave for an address.
struct NetworkWay {
  std::string source;  // our address
  unsigned link = 0;
  std::string gateway;  // empty: a neighbour

  bool operator==(const NetworkWay&) const = default;
};
std::string to_string(const NetworkWay& way);

class NetworkWatch {
 public:
  enum class Woken { kChanged, kQuiet, kStopped };

  virtual ~NetworkWatch() = default;
  // Waits for the next change, or until it has been quiet for `longest` (none: for ever).
  virtual Woken next(std::optional<std::chrono::milliseconds> longest, NetworkChange& change) = 0;
  // next() ends, now and later.
  virtual void stop() = 0;
  // To an address in numbers; none: there is no way now.
  virtual std::optional<NetworkWay> way_to(const std::string& address) = 0;
};

// This host's; it sleeps in the kernel until there is news. Null if the kernel does not tell.
std::shared_ptr<NetworkWatch> system_network_watch();

}  // namespace dims::client
