// A channel to a ServerProcess, as a client makes it.
#pragma once

#include "common/client/channel.h"
#include "tests/contract/server_process.h"

namespace dims::test {

inline std::shared_ptr<grpc::Channel> channel_to(const ServerProcess& server) {
  return client::make_channel(client::parse_endpoint(server.address(), {}).value());
}

}  // namespace dims::test
