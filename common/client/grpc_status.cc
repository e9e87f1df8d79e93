#include "common/client/grpc_status.h"

namespace dims::client {
namespace {

ErrorCode code_of_name(std::string_view name) {
  for (int i = static_cast<int>(ErrorCode::kInvalidArgument);
       i <= static_cast<int>(ErrorCode::kUntrusted); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    if (error_code_name(code) == name) return code;
  }
  return ErrorCode::kInternal;  // a code of a newer server; its message still says what happened
}

ErrorCode code_of(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::OUT_OF_RANGE:
      return ErrorCode::kInvalidArgument;
    case grpc::StatusCode::NOT_FOUND:
      return ErrorCode::kNotFound;
    case grpc::StatusCode::ALREADY_EXISTS:
      return ErrorCode::kAlreadyExists;
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      return ErrorCode::kPermissionDenied;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return ErrorCode::kResourceExhausted;
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::ABORTED:
      return ErrorCode::kConflict;
    case grpc::StatusCode::UNIMPLEMENTED:
      return ErrorCode::kUnsupported;
    case grpc::StatusCode::DATA_LOSS:
      return ErrorCode::kCorrupt;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return ErrorCode::kDeadlineExceeded;
    case grpc::StatusCode::UNAVAILABLE:
    // Never the server's own word: the transport says it of a stream that was cut under it.
    case grpc::StatusCode::UNKNOWN:
    // Whoever cancels on this side knows it did; else the server ended the call because it goes
    // away.
    case grpc::StatusCode::CANCELLED:
      return ErrorCode::kUnavailable;
    case grpc::StatusCode::INTERNAL:
      // The transport's word for a stream that the other side threw away.
      return status.error_message().find("RST_STREAM") != std::string::npos
                 ? ErrorCode::kUnavailable
                 : ErrorCode::kInternal;
    default:
      return ErrorCode::kInternal;
  }
}

grpc::StatusCode status_code_of(ErrorCode code) {
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

std::string hint_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
      return "it is tried again; check that the server runs and can be reached";
    case ErrorCode::kUnsupported:
      return "client and server are of different versions: update the older one";
    default:
      return {};
  }
}

// What gRPC and OpenSSL say of a handshake that failed, in words for people. Such a server counts
// as away: the right one may come back, and a guest waits for it as for any other.
struct HandshakeWords {
  std::string_view theirs;
  std::string_view ours;
};
constexpr std::string_view kNoHandshake =
    "something else listens there or stands between; TLS 1.3 is spoken on TCP, plaintext on UNIX "
    "sockets alone";
constexpr HandshakeWords kHandshakes[] = {
    {"wrong version number", "it answers in plaintext, without TLS"},
    {"alert handshake failure", "it does not speak TLS 1.3"},
    {"unsupported protocol", "it does not speak TLS 1.3"},
    {"alert protocol version", "it does not speak TLS 1.3"},
    {"selected ALPN property", "it speaks TLS but no gRPC"},
};

std::optional<Error> failed_handshake(const std::string& text, const std::string& where) {
  constexpr std::string_view kPin = "Custom verification check failed with error: ";
  constexpr std::string_view kCode = "UNAUTHENTICATED: ";
  if (std::size_t at = text.find(kPin); at != std::string::npos) {
    std::string_view rest = std::string_view(text).substr(at + kPin.size());
    if (rest.starts_with(kCode)) rest.remove_prefix(kCode.size());
    return make_error(ErrorCode::kUnavailable,
                      "server " + where + " is refused: " + std::string(rest));
  }
  for (const HandshakeWords& words : kHandshakes) {
    if (text.find(words.theirs) == std::string::npos) continue;
    return make_error(ErrorCode::kUnavailable,
                      "server " + where + " is refused: " + std::string(words.ours),
                      std::string(kNoHandshake));
  }
  return std::nullopt;
}

}  // namespace

Error from_detail(const v1::ErrorDetail& detail) {
  return Error{code_of_name(detail.code()), detail.message(), detail.hint(), detail.holder()};
}

v1::ErrorDetail to_detail(const Error& error) {
  v1::ErrorDetail detail;
  detail.set_code(std::string(error_code_name(error.code)));
  detail.set_message(error.message);
  detail.set_hint(error.hint);
  detail.set_holder(error.holder);
  return detail;
}

Error endless_list(const std::string& what, const std::string& where) {
  return make_error(ErrorCode::kCorrupt,
                    "server " + where + " sends a list of " + what + " longer than " +
                        std::to_string(kListBytesMax / kMiB) + " MiB",
                    "ask whoever runs the server");
}

Error from_grpc(const grpc::Status& status, const std::string& where) {
  v1::ErrorDetail detail;
  if (!status.error_details().empty() && detail.ParseFromString(status.error_details()) &&
      !detail.code().empty()) {
    return from_detail(detail);
  }
  const ErrorCode code = code_of(status);
  if (code == ErrorCode::kUnavailable) {
    if (const auto refused = failed_handshake(status.error_message(), where)) return *refused;
  }
  return make_error(code, "server " + where + ": " + status.error_message(), hint_of(code));
}

grpc::Status to_grpc(const Error& error) {
  return {status_code_of(error.code), error.message, to_detail(error).SerializeAsString()};
}

}  // namespace dims::client
