// Addresses to listen on: "HOST:PORT", "[V6]:PORT", "unix:PATH". gRPC only says that it could not;
// these say why.
//
// Threads: free functions. Errors: kInvalidArgument, kAlreadyExists (the address is in use),
// kPermissionDenied, kIo.
#pragma once

#include <string>

#include "common/base/result.h"

namespace dims::services {

// As gRPC wants it. Refuses a socket path on which somebody answers (gRPC would take it from him).
Result<std::string> listen_target(const std::string& address);
// Why binding failed, found by trying once more by hand.
Error why_not(const std::string& address);
// Whether only this machine can reach it. A name that cannot be resolved is not.
bool is_local(const std::string& address);
// The address with the port that it really got.
std::string with_port(const std::string& address, int port);

}  // namespace dims::services
