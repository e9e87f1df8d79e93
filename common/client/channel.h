// How a connection to RDIM is made: addresses, windows, keepalive, reconnecting. Threads: free
// functions. Errors: kInvalidArgument naming the address and the accepted forms.
#pragma once

#include <grpcpp/grpcpp.h>

#include "common/base/result.h"

namespace dims::client {

// gRPC's form of "HOST:PORT" or "unix:PATH".
Result<std::string> grpc_target(const std::string& address);
// A channel with a connection of its own. Does not connect yet.
std::shared_ptr<grpc::Channel> make_channel(const std::string& target);

}  // namespace dims::client
