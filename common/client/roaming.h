// Roaming: notices that this host now reaches its server in another way than its connections do,
// and has them made anew at once. Without it a connection from an address that is gone stands until
// a ping has had no answer, and the next attempt waits for its turn.
//
// Most changes of a network concern others: a container comes, an address is renewed. Only these
// count: another source address, link or gateway towards the server; or the address or link in use
// was gone in between, for whoever stood in the middle may have forgotten the connection.
//
// Threads: one of its own, which calls `rebuild`; reached() and counts() from any. Ownership: the
// callbacks outlive it. Errors: none.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "common/client/network_watch.h"

namespace dims::client {

struct RoamingCounts {
  std::uint64_t changes = 0;  // of the network, each settled
  std::uint64_t rebuilt = 0;
  std::string because;  // the last time
};

class Roaming {
 public:
  struct Parts {
    std::shared_ptr<NetworkWatch> network;
    std::string host;  // the server's, a name or numbers
    std::function<bool()> connected;
    std::function<void(const std::string& why)> rebuild;
    // News come in bursts; a burst is over when it was quiet for so long.
    std::chrono::milliseconds settle{300};
  };

  explicit Roaming(Parts parts);
  ~Roaming();
  Roaming(const Roaming&) = delete;
  Roaming& operator=(const Roaming&) = delete;

  // The server has answered, from there ("ipv4:192.0.2.1:7000", as gRPC says it).
  void reached(const std::string& peer);
  RoamingCounts counts();
  void stop();

 private:
  void run();
  void settled(const NetworkChange& change);
  std::optional<NetworkWay> way_now(const std::string& peer);

  const Parts parts_;
  std::mutex mutex_;
  std::string peer_;               // in numbers; empty: never reached
  std::optional<NetworkWay> way_;  // of the connections
  bool lost_ = false;              // since then it was gone for a while
  RoamingCounts counts_;
  std::thread thread_;
};

// The address in what gRPC calls a peer; empty if it has none.
std::string address_of_peer(const std::string& peer);

}  // namespace dims::client
