#include "common/io/errno_map.h"

#include <cerrno>
#include <cstring>
#include <string>

namespace dims::io {

Error errno_error(int errno_value, std::string_view what, std::string_view path) {
  ErrorCode code = ErrorCode::kIo;
  std::string hint;
  switch (errno_value) {
    case ENOENT:
      code = ErrorCode::kNotFound;
      break;
    case EEXIST:
      code = ErrorCode::kAlreadyExists;
      break;
    case EACCES:
    case EPERM:
      code = ErrorCode::kPermissionDenied;
      hint = "check the owner and the permissions";
      break;
    case ENOSPC:
    case EDQUOT:
      code = ErrorCode::kNoSpace;
      hint = "free space on that file system";
      break;
    case EINVAL:
      code = ErrorCode::kInvalidArgument;
      break;
    default:
      break;
  }
  std::string message(what);
  message += " ";
  message += path;
  message += ": ";
  message += std::strerror(errno_value);
  return make_error(code, std::move(message), std::move(hint));
}

int errno_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kNoSpace:
      return ENOSPC;
    case ErrorCode::kInvalidArgument:
      return EINVAL;
    case ErrorCode::kPermissionDenied:
      return EPERM;
    case ErrorCode::kUnsupported:
      return EOPNOTSUPP;
    case ErrorCode::kCancelled:
      return ESHUTDOWN;
    default:
      return EIO;
  }
}

}  // namespace dims::io
