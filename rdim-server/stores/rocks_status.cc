#include "rdim-server/stores/rocks_status.h"

#include <cerrno>
#include <system_error>

namespace dims::stores {
namespace {

ErrorCode code_of(const rocksdb::Status& status) {
  if (is_no_space(status)) return ErrorCode::kNoSpace;
  switch (status.code()) {
    case rocksdb::Status::kNotFound:
      return ErrorCode::kNotFound;
    case rocksdb::Status::kCorruption:
      return ErrorCode::kCorrupt;
    case rocksdb::Status::kNotSupported:
      return ErrorCode::kUnsupported;
    case rocksdb::Status::kBusy:
    case rocksdb::Status::kTryAgain:
    case rocksdb::Status::kShutdownInProgress:
      return ErrorCode::kUnavailable;
    case rocksdb::Status::kIOError:
      return ErrorCode::kIo;
    default:
      return ErrorCode::kInternal;
  }
}

std::string hint_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNoSpace:
      return "free space on the server's disk; it goes on by itself";
    case ErrorCode::kCorrupt:
      return "look at the server's disk and log; restore the store from its backup if it is "
             "damaged";
    case ErrorCode::kIo:
      return "look at the server's disk and at its log";
    default:
      return {};
  }
}

}  // namespace

bool is_no_space(const rocksdb::Status& status) {
  return status.IsNoSpace() ||
         (status.IsIOError() && status.subcode() == rocksdb::Status::kNoSpace);
}

bool is_bad_sector(const rocksdb::Status& status) {
  // RocksDB keeps errno as words only.
  const char* const words = status.getState();
  static const std::string kWords = std::generic_category().message(EIO);
  return status.IsIOError() && words != nullptr &&
         std::string_view(words).find(kWords) != std::string_view::npos;
}

Error from_rocks(const rocksdb::Status& status, const std::string& what) {
  const ErrorCode code = code_of(status);
  return make_error(code, what + ": " + status.ToString(), hint_of(code));
}

}  // namespace dims::stores
