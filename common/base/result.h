// Result<T> and Status: how every function of DIMS reports failure.
//
// An Error says what went wrong and where, and `hint` says what to do about it. Nothing below the
// edges of a program (nbdkit callbacks, gRPC handlers, main) throws; errno is mapped in
// common/io/errno_map.h and gRPC codes in common/client/grpc_status.h, each in that one place.
// Threads: values, no shared state.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace dims {

enum class ErrorCode : int {
  kInvalidArgument = 1,  // the caller's input is wrong (argument, config, request)
  kNotFound = 2,
  kAlreadyExists = 3,
  kPermissionDenied = 4,
  kWrongKey = 5,         // a key check failed; nothing was written
  kCorrupt = 6,          // stored or received bytes fail their check
  kUnavailable = 7,      // the other side cannot be reached now; retrying may help
  kConflict = 8,         // compare-and-swap lost, or the parent is not the head
  kLeaseHeld = 9,        // somebody else holds the lease (see `holder`)
  kStaleLease = 10,      // our lease id or fencing token is no longer current
  kMissingObjects = 11,  // a commit names objects that the store lacks
  kNoSpace = 12,
  kIo = 13,           // a local read, write or sync failed
  kUnsupported = 14,  // unknown format version or feature
  kCancelled = 15,
  kDeadlineExceeded = 16,
  kOtherHistory = 17,       // an unknown or non-ancestor version: never merge, only branch
  kResourceExhausted = 18,  // a limit of the other side
  kInternal = 19,
  kUntrusted =
      20,  // a signature, certificate, grant or log record that nothing we trust vouches for
};

// Stable lower-case name, e.g. "not-found". Used in JSON output, on the wire and in logs.
std::string_view error_code_name(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // what and where
  std::string hint;     // what to do; may be empty
  std::string holder;   // who holds what was asked for; may be empty

  // "message (hint)" for people.
  std::string to_string() const;
  // The same error with "context: " before the message.
  Error with_context(std::string_view context) const;
};

Error make_error(ErrorCode code, std::string message, std::string hint = {});

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

inline Status ok_status() { return {}; }

// Evaluates a Status or Result expression and returns its error from the enclosing function.
#define DIMS_TRY(expr)                                         \
  do {                                                         \
    auto dims_try_status = (expr);                             \
    if (!dims_try_status.ok()) return dims_try_status.error(); \
  } while (0)

#define DIMS_CONCAT_INNER(a, b) a##b
#define DIMS_CONCAT(a, b) DIMS_CONCAT_INNER(a, b)
// DIMS_ASSIGN(auto x, f()): declares x from a Result, or returns its error.
#define DIMS_ASSIGN(decl, expr) DIMS_ASSIGN_IMPL(DIMS_CONCAT(dims_result_, __LINE__), decl, expr)
#define DIMS_ASSIGN_IMPL(tmp, decl, expr) \
  auto tmp = (expr);                      \
  if (!tmp.ok()) return tmp.error();      \
  decl = std::move(tmp).value()

}  // namespace dims
