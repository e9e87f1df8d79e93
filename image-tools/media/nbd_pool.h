// NbdPool: several libnbd connections to one NBD export, lent to one caller at a time each; a long
// read or write is split into requests that are in flight together.
//
// Threads: thread-safe; callers wait for a free connection. Units: bytes. Errors: kUnavailable when
// the server cannot be reached, kIo for a failed request, kUnsupported for an export that cannot do
// what is asked.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/base/units.h"

struct nbd_handle;

namespace dims::media {

struct NbdPoolOptions {
  unsigned connections = 4;  // fewer if the server does not allow several
  bool write = false;
};

class NbdPool {
 public:
  // Either an NBD URI or the path of a UNIX socket.
  static Result<std::unique_ptr<NbdPool>> connect_uri(const std::string& uri,
                                                      const NbdPoolOptions& options);
  // `name`: what people are told of.
  static Result<std::unique_ptr<NbdPool>> connect_socket(const std::string& path,
                                                         const NbdPoolOptions& options,
                                                         const std::string& name);
  ~NbdPool();
  NbdPool(const NbdPool&) = delete;
  NbdPool& operator=(const NbdPool&) = delete;

  std::uint64_t bytes() const { return bytes_; }
  // Writes and zeroes start and end at multiples of this (at most a page); reads need not.
  std::uint64_t alignment() const { return alignment_; }
  Status read_at(std::uint64_t offset, MutByteView out);
  Status write_at(std::uint64_t offset, ByteView data);
  Status zero_at(ByteRange range);
  Status flush();
  // The first stretch at or after `from` that is not known to read as zeros. One caller at a time.
  Result<std::optional<ByteRange>> next_data(std::uint64_t from);

 private:
  class Lent;
  NbdPool() = default;
  static Result<std::unique_ptr<NbdPool>> connect(const std::string& where, bool uri,
                                                  const NbdPoolOptions& options);
  Status look(const NbdPoolOptions& options);
  Status ask_status(ByteRange range);
  template <typename Start>
  Status transfer(std::uint64_t offset, std::size_t bytes, const char* what, const Start& start);

  std::string where_;
  std::uint64_t bytes_ = 0;
  std::uint64_t request_bytes_ = 0;
  std::uint64_t alignment_ = 1;
  bool has_status_ = false;
  bool can_zero_ = false;
  bool can_flush_ = false;

  std::vector<nbd_handle*> all_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<nbd_handle*> free_;

  ByteRange known_;  // what known_data_ speaks of
  std::vector<ByteRange> known_data_;
};

}  // namespace dims::media
