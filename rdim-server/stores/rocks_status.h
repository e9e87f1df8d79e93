// RocksDB's statuses and ours, mapped in this one place. Threads: free functions. Errors: none.
#pragma once

#include <rocksdb/status.h>

#include <string>

#include "common/base/result.h"

namespace dims::stores {

bool is_no_space(const rocksdb::Status& status);
// The disk says that it cannot read or write there (EIO); other errors of files may be the
// process's own, and pass.
bool is_bad_sector(const rocksdb::Status& status);
// Precondition: !status.ok(). `what` says what was tried and where.
Error from_rocks(const rocksdb::Status& status, const std::string& what);
inline Status check_rocks(const rocksdb::Status& status, const std::string& what) {
  return status.ok() ? ok_status() : Status(from_rocks(status, what));
}

}  // namespace dims::stores
