// The administrators' calls over gRPC, on a connection of their own.
//
// Threads: thread-safe. Ownership: destroy it when no call is running. Errors: as Admin's; of
// connect_admin: kInvalidArgument for an address that it cannot read.
#pragma once

#include "common/client/known_servers.h"
#include "common/client/login_token.h"
#include "common/contract/admin.h"

namespace dims::client {

Result<std::unique_ptr<contract::Admin>> connect_admin(const std::string& address,
                                                       const KnownServers& known,
                                                       std::shared_ptr<LoginToken> token = {});

}  // namespace dims::client
