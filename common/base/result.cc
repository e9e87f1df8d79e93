#include "common/base/result.h"

namespace dims {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid-argument";
    case ErrorCode::kNotFound:
      return "not-found";
    case ErrorCode::kAlreadyExists:
      return "already-exists";
    case ErrorCode::kPermissionDenied:
      return "permission-denied";
    case ErrorCode::kWrongKey:
      return "wrong-key";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kConflict:
      return "conflict";
    case ErrorCode::kLeaseHeld:
      return "lease-held";
    case ErrorCode::kStaleLease:
      return "stale-lease";
    case ErrorCode::kMissingObjects:
      return "missing-objects";
    case ErrorCode::kNoSpace:
      return "no-space";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kDeadlineExceeded:
      return "deadline-exceeded";
    case ErrorCode::kOtherHistory:
      return "other-history";
    case ErrorCode::kResourceExhausted:
      return "resource-exhausted";
    case ErrorCode::kInternal:
      return "internal";
    case ErrorCode::kUntrusted:
      return "untrusted";
  }
  return "internal";
}

std::string Error::to_string() const {
  std::string text = message;
  if (!holder.empty()) text += ", held by " + holder;
  if (!hint.empty()) text += " (" + hint + ")";
  return text;
}

Error Error::with_context(std::string_view context) const {
  Error copy = *this;
  copy.message = std::string(context) + ": " + message;
  return copy;
}

Error make_error(ErrorCode code, std::string message, std::string hint) {
  return Error{code, std::move(message), std::move(hint), {}};
}

}  // namespace dims
