// How a connection to RDIM is made: addresses, TLS, windows, keepalive, reconnecting.
//
// TCP is TLS 1.3 and nothing else, and the server is known by the fingerprint of its certificate
// (known_servers.h); a UNIX socket is plaintext and known by its place. Threads: free functions.
// Ownership: a channel shares the endpoint's pin and token. Errors: of parse_endpoint:
// kInvalidArgument naming the address and the accepted forms. A server that is refused is
// kUnavailable to the calls, for the right one may come back; the message says why (grpc_status.h).
#pragma once

#include <grpcpp/grpcpp.h>

#include "common/base/result.h"
#include "common/client/known_servers.h"
#include "common/client/login_token.h"

namespace dims::client {

struct Endpoint {
  std::string address;                  // for people
  std::string target;                   // for gRPC
  std::shared_ptr<ServerPin> pin;       // none: a UNIX socket
  std::shared_ptr<LoginToken> token{};  // goes with every call; none: no login
};

// Of "HOST:PORT", "HOST:PORT#FINGERPRINT" or "unix:PATH".
Result<Endpoint> parse_endpoint(const std::string& address, const KnownServers& known);
// A channel with a connection of its own. Does not connect yet.
std::shared_ptr<grpc::Channel> make_channel(const Endpoint& endpoint);

}  // namespace dims::client
