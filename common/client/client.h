// The client's end of the wire: a Remote over gRPC (docs/wire.md).
//
// connect() returns at once; the connection is made at the first call and again after a loss. Two
// connections are used, so that a bulk transfer (boot, write-back, prefetch) never stands in front
// of a read that a guest waits for.
//
// Threads: the Remote is thread-safe; it has two threads of its own, three with a network to watch,
// which end with it. Nothing of
// gRPC is touched before connect(): a program that forks calls it afterwards. Ownership: destroy it
// when no call is running; an EventStream may outlive it. Errors: connect() gives kInvalidArgument
// for an address it cannot read; the calls as common/contract/remote.h says. Memory: bounded by the
// options. Durable: nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/base/units.h"
#include "common/client/known_servers.h"
#include "common/client/login_token.h"
#include "common/client/network_watch.h"
#include "common/contract/remote.h"

namespace dims::client {

struct ClientOptions {
  // "HOST:PORT", "[V6]:PORT", each with "#FINGERPRINT" or without, or "unix:PATH".
  std::string address;
  KnownServers known_servers;         // for an address without a fingerprint
  std::shared_ptr<LoginToken> token;  // of a member; none: a server without organisation
  std::shared_ptr<ServerPin> pin;  // to be asked about the server; none: the client makes its own
  MachineId machine;
  std::string machine_name;
  SessionId session;
  // Whose changes make the connections anew (roaming.h); none: they stand until they fail. Calls
  // under way fail as kUnavailable then: for callers that try again.
  std::shared_ptr<NetworkWatch> network{};

  // A put() waits while this much is sent and unanswered, over all callers.
  std::uint64_t put_bytes_in_flight_max = 32 * kMiB;
  // The objects of one put request, unless a single one is larger.
  std::uint64_t put_request_bytes = 512 * kKiB;
  // One get() or has() has at most this many keys in one request and this many requests in flight.
  std::uint32_t keys_per_request = 64;
  std::uint32_t requests_in_flight_per_call = 8;
};

Result<std::unique_ptr<contract::Remote>> connect(const ClientOptions& options);

}  // namespace dims::client
