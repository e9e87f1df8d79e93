#include "image-tools/media/nbd_pool.h"

#include <libnbd.h>

#include <algorithm>
#include <cerrno>

namespace dims::media {
namespace {

constexpr std::uint64_t kRequestBytes = 512 * kKiB;
// One question about allocation: far below 4 GiB, at which some servers stumble.
constexpr std::uint64_t kStatusBytes = kGiB;
constexpr std::uint64_t kZeroBytes = kGiB;

Error nbd_error(ErrorCode code, const std::string& what, const std::string& where,
                std::string hint = {}) {
  const char* text = nbd_get_error();
  if (hint.empty() && code == ErrorCode::kNoSpace) hint = "free space where it is";
  return make_error(code, what + " " + where + ": " + (text != nullptr ? text : "unknown error"),
                    std::move(hint));
}

ErrorCode code_of_request() {
  switch (nbd_get_errno()) {
    case ENOSPC:
      return ErrorCode::kNoSpace;
    case EPERM:
    case EACCES:
      return ErrorCode::kPermissionDenied;
    case ENOTCONN:
    case ESHUTDOWN:
    case ECONNRESET:
      return ErrorCode::kUnavailable;
    default:
      return ErrorCode::kIo;
  }
}

}  // namespace

// A connection while one caller has it.
class NbdPool::Lent {
 public:
  explicit Lent(NbdPool& pool) : pool_(pool) {
    std::unique_lock lock(pool_.mutex_);
    pool_.returned_.wait(lock, [&] { return !pool_.free_.empty(); });
    handle_ = pool_.free_.back();
    pool_.free_.pop_back();
  }
  ~Lent() {
    {
      const std::lock_guard lock(pool_.mutex_);
      pool_.free_.push_back(handle_);
    }
    pool_.returned_.notify_one();
  }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;
  nbd_handle* get() const { return handle_; }

 private:
  NbdPool& pool_;
  nbd_handle* handle_;
};

Result<std::unique_ptr<NbdPool>> NbdPool::connect_uri(const std::string& uri,
                                                      const NbdPoolOptions& options) {
  return connect(uri, true, options);
}

Result<std::unique_ptr<NbdPool>> NbdPool::connect_socket(const std::string& path,
                                                         const NbdPoolOptions& options,
                                                         const std::string& name) {
  DIMS_ASSIGN(auto pool, connect(path, false, options));
  pool->where_ = name;
  return pool;
}

Result<std::unique_ptr<NbdPool>> NbdPool::connect(const std::string& where, bool uri,
                                                  const NbdPoolOptions& options) {
  std::unique_ptr<NbdPool> pool(new NbdPool);
  pool->where_ = where;
  unsigned wanted = std::max(1U, options.connections);
  for (unsigned i = 0; i < wanted; ++i) {
    nbd_handle* const handle = nbd_create();
    if (handle == nullptr) return nbd_error(ErrorCode::kInternal, "libnbd cannot serve", where);
    pool->all_.push_back(handle);
    nbd_set_uri_allow_local_file(handle, true);
    nbd_add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION);
    const int rc =
        uri ? nbd_connect_uri(handle, where.c_str()) : nbd_connect_unix(handle, where.c_str());
    if (rc != 0) {
      const int number = nbd_get_errno();
      const ErrorCode code =
          number == EINVAL ? ErrorCode::kInvalidArgument : ErrorCode::kUnavailable;
      return nbd_error(code, "cannot connect to", where,
                       "see whether the NBD server runs: nbdinfo " + where);
    }
    if (i == 0) {
      DIMS_TRY(pool->look(options));
      if (nbd_can_multi_conn(handle) != 1) wanted = 1;
    }
  }
  pool->free_ = pool->all_;
  return pool;
}

Status NbdPool::look(const NbdPoolOptions& options) {
  nbd_handle* const handle = all_.front();
  const std::int64_t size = nbd_get_size(handle);
  if (size < 0) return nbd_error(ErrorCode::kIo, "no size of", where_);
  bytes_ = static_cast<std::uint64_t>(size);
  if (options.write && nbd_is_read_only(handle) != 0) {
    return make_error(ErrorCode::kPermissionDenied, "the export " + where_ + " is read-only");
  }
  has_status_ = nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
  can_zero_ = nbd_can_zero(handle) == 1;
  can_flush_ = nbd_can_flush(handle) == 1;
  const std::int64_t smallest = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
  const std::int64_t largest = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  if (smallest > 1) alignment_ = static_cast<std::uint64_t>(smallest);
  if (alignment_ > (options.write ? kPageBytes : kMiB)) {
    return make_error(ErrorCode::kUnsupported, "the export " + where_ + " has blocks of " +
                                                   std::to_string(alignment_) + " bytes");
  }
  request_bytes_ = std::max(kRequestBytes, alignment_);
  if (largest > 0) request_bytes_ = std::min(request_bytes_, static_cast<std::uint64_t>(largest));
  return ok_status();
}

NbdPool::~NbdPool() {
  for (nbd_handle* handle : all_) {
    nbd_shutdown(handle, 0);
    nbd_close(handle);
  }
}

template <typename Start>
Status NbdPool::transfer(std::uint64_t offset, std::size_t bytes, const char* what,
                         const Start& start) {
  const Lent lent(*this);
  nbd_handle* const handle = lent.get();
  std::vector<std::int64_t> cookies;
  Status status;
  const auto failed = [&] { return Status(nbd_error(code_of_request(), what, where_)); };
  for (std::size_t done = 0; done < bytes && status.ok();) {
    const std::size_t part = std::min<std::size_t>(bytes - done, request_bytes_);
    const std::int64_t cookie = start(handle, done, part, offset + done);
    if (cookie < 0) {
      status = failed();
      break;
    }
    cookies.push_back(cookie);
    done += part;
  }
  // Every request started must end before its buffer goes away, whatever happened to the others.
  while (!cookies.empty()) {
    for (std::size_t i = 0; i < cookies.size();) {
      const int finished =
          nbd_aio_command_completed(handle, static_cast<std::uint64_t>(cookies[i]));
      if (finished == 0) {
        ++i;
        continue;
      }
      if (finished < 0 && status.ok()) status = failed();
      cookies[i] = cookies.back();
      cookies.pop_back();
    }
    if (cookies.empty()) break;
    if (nbd_aio_is_dead(handle) == 1 || nbd_aio_is_closed(handle) == 1 ||
        nbd_poll(handle, -1) < 0) {
      if (status.ok()) status = failed();
      break;
    }
  }
  return status;
}

Status NbdPool::read_at(std::uint64_t offset, MutByteView out) {
  if (offset % alignment_ != 0 || out.size() % alignment_ != 0) {
    const std::uint64_t first = offset / alignment_ * alignment_;
    Bytes wider(static_cast<std::size_t>(round_up(offset + out.size(), alignment_) - first));
    DIMS_TRY(read_at(first, wider));
    std::copy_n(wider.begin() + static_cast<std::ptrdiff_t>(offset - first), out.size(),
                out.begin());
    return ok_status();
  }
  return transfer(offset, out.size(), "reading from",
                  [&](nbd_handle* handle, std::size_t at, std::size_t count, std::uint64_t where) {
                    return nbd_aio_pread(handle, out.data() + at, count, where, NBD_NULL_COMPLETION,
                                         0);
                  });
}

Status NbdPool::write_at(std::uint64_t offset, ByteView data) {
  return transfer(offset, data.size(), "writing to",
                  [&](nbd_handle* handle, std::size_t at, std::size_t count, std::uint64_t where) {
                    return nbd_aio_pwrite(handle, data.data() + at, count, where,
                                          NBD_NULL_COMPLETION, 0);
                  });
}

Status NbdPool::zero_at(ByteRange range) {
  if (!can_zero_) {
    const Bytes zeros(static_cast<std::size_t>(std::min<std::uint64_t>(range.count, 4 * kMiB)), 0);
    for (std::uint64_t done = 0; done < range.count;) {
      const auto part =
          static_cast<std::size_t>(std::min<std::uint64_t>(range.count - done, zeros.size()));
      DIMS_TRY(write_at(range.offset + done, ByteView(zeros).first(part)));
      done += part;
    }
    return ok_status();
  }
  const Lent lent(*this);
  for (std::uint64_t done = 0; done < range.count;) {
    const std::uint64_t part = std::min(range.count - done, kZeroBytes);
    if (nbd_zero(lent.get(), part, range.offset + done, 0) != 0) {
      return nbd_error(code_of_request(), "zeroing in", where_);
    }
    done += part;
  }
  return ok_status();
}

Status NbdPool::flush() {
  if (!can_flush_) return ok_status();
  const Lent lent(*this);
  if (nbd_flush(lent.get(), 0) != 0) return nbd_error(code_of_request(), "flushing", where_);
  return ok_status();
}

Status NbdPool::ask_status(ByteRange range) {
  struct Answer {
    std::uint64_t offset;
    std::uint64_t limit;
    std::vector<ByteRange> data;
  } answer{range.offset, range.end(), {}};
  const auto on_extents = [](void* user, const char* context, std::uint64_t offset,
                             std::uint32_t* entries, std::size_t count, int*) {
    Answer& a = *static_cast<Answer*>(user);
    if (std::string_view(context) != LIBNBD_CONTEXT_BASE_ALLOCATION || offset != a.offset) return 0;
    for (std::size_t i = 0; i + 1 < count && a.offset < a.limit; i += 2) {
      const std::uint64_t bytes = std::min<std::uint64_t>(entries[i], a.limit - a.offset);
      if ((entries[i + 1] & LIBNBD_STATE_ZERO) == 0) {
        if (!a.data.empty() && a.data.back().end() == a.offset) {
          a.data.back().count += bytes;
        } else {
          a.data.push_back({a.offset, bytes});
        }
      }
      a.offset += bytes;
    }
    return 0;
  };
  const Lent lent(*this);
  if (nbd_block_status(lent.get(), range.count, range.offset,
                       {.callback = on_extents, .user_data = &answer, .free = nullptr}, 0) != 0) {
    return nbd_error(code_of_request(), "asking for the allocation of", where_);
  }
  if (answer.offset == range.offset) {  // no useful answer: take it all for data
    answer.data = {range};
    answer.offset = range.end();
  }
  known_ = {range.offset, answer.offset - range.offset};
  known_data_ = std::move(answer.data);
  return ok_status();
}

Result<std::optional<ByteRange>> NbdPool::next_data(std::uint64_t from) {
  if (!has_status_) {
    if (from >= bytes_) return std::optional<ByteRange>();
    return std::optional(ByteRange{from, bytes_ - from});
  }
  for (std::uint64_t at = from / alignment_ * alignment_; at < bytes_; at = known_.end()) {
    if (at < known_.offset || at >= known_.end()) {
      const Status status = ask_status({at, std::min(kStatusBytes, bytes_ - at)});
      if (!status.ok()) return status.error();
    }
    for (const ByteRange& data : known_data_) {
      if (data.end() <= from) continue;
      const std::uint64_t first = std::max(from, data.offset);
      return std::optional(ByteRange{first, data.end() - first});
    }
  }
  return std::optional<ByteRange>();
}

}  // namespace dims::media
