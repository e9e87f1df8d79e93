// gRPC's status codes and ours, mapped in this one place. A typed server puts an ErrorDetail into
// the status details; what comes without one was made by gRPC itself (or by something that is no
// RDIM). Threads: free functions. Errors: none.
#pragma once

#include <grpcpp/grpcpp.h>

#include "common/base/result.h"
#include "common/base/units.h"

#include "dims/v1/dims.pb.h"

namespace dims::client {

Error from_detail(const v1::ErrorDetail& detail);
v1::ErrorDetail to_detail(const Error& error);

// The error of a failed call; `where` names the server for people. Precondition: !status.ok().
Error from_grpc(const grpc::Status& status, const std::string& where);
grpc::Status to_grpc(const Error& error);

// What is gathered of one stream before it is looked at: a list that a server makes longer is
// refused. Far beyond any real one.
inline constexpr std::size_t kListBytesMax = 256 * kMiB;
Error endless_list(const std::string& what, const std::string& where);

// Of a call that our own shutdown ended.
inline Error shut_down_error() {
  return make_error(ErrorCode::kCancelled, "the connection was shut down");
}

}  // namespace dims::client
