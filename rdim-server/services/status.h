// Our errors as gRPC's statuses and as messages, mapped in this one place. Threads: free functions.
#pragma once

#include <grpcpp/grpcpp.h>

#include "common/base/result.h"

#include "dims/v1/dims.pb.h"

namespace dims::services {

v1::ErrorDetail to_detail(const Error& error);
// With the serialized ErrorDetail in the status details.
grpc::Status to_grpc(const Error& error);
inline grpc::Status to_grpc(const Status& status) {
  return status.ok() ? grpc::Status::OK : to_grpc(status.error());
}

}  // namespace dims::services
