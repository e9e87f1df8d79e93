#include "rdim-server/services/status.h"

#include "common/base/parse.h"

namespace dims::services {
namespace {

grpc::StatusCode code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case ErrorCode::kNotFound:
      return grpc::StatusCode::NOT_FOUND;
    case ErrorCode::kAlreadyExists:
      return grpc::StatusCode::ALREADY_EXISTS;
    case ErrorCode::kPermissionDenied:
      return grpc::StatusCode::PERMISSION_DENIED;
    case ErrorCode::kCorrupt:
      return grpc::StatusCode::DATA_LOSS;
    case ErrorCode::kUnavailable:
      return grpc::StatusCode::UNAVAILABLE;
    case ErrorCode::kConflict:
      return grpc::StatusCode::ABORTED;
    case ErrorCode::kWrongKey:
    case ErrorCode::kLeaseHeld:
    case ErrorCode::kStaleLease:
    case ErrorCode::kMissingObjects:
    case ErrorCode::kOtherHistory:
    case ErrorCode::kUntrusted:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case ErrorCode::kNoSpace:
    case ErrorCode::kResourceExhausted:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case ErrorCode::kUnsupported:
      return grpc::StatusCode::UNIMPLEMENTED;
    case ErrorCode::kCancelled:
      return grpc::StatusCode::CANCELLED;
    case ErrorCode::kDeadlineExceeded:
      return grpc::StatusCode::DEADLINE_EXCEEDED;
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return grpc::StatusCode::INTERNAL;
  }
  return grpc::StatusCode::INTERNAL;
}

}  // namespace

v1::ErrorDetail to_detail(const Error& error) {
  v1::ErrorDetail detail;
  detail.set_code(std::string(error_code_name(error.code)));
  // A reply with other bytes in a text cannot be read, and its client would wait for ever.
  detail.set_message(printable_utf8(error.message));
  detail.set_holder(printable_utf8(error.holder));
  detail.set_hint(printable_utf8(error.hint));
  return detail;
}

grpc::Status to_grpc(const Error& error) {
  return {code_of(error.code), error.message, to_detail(error).SerializeAsString()};
}

}  // namespace dims::services
