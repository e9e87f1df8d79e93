// Raw files and block devices: pread, with SEEK_DATA and SEEK_HOLE to skip what was never written.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/io/errno_map.h"
#include "image-tools/media/source.h"

namespace dims::media {
namespace {

class RawSource : public Source {
 public:
  RawSource(std::string path, int fd, std::uint64_t bytes, bool device)
      : path_(std::move(path)),
        fd_(fd),
        bytes_(bytes),
        description_(device ? "block device" : "raw file") {}
  ~RawSource() override { ::close(fd_); }

  std::uint64_t bytes() const override { return bytes_; }
  const std::string& description() const override { return description_; }

  Status read_at(std::uint64_t offset, MutByteView out) override {
    for (std::size_t done = 0; done < out.size();) {
      const ssize_t n =
          ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return io::errno_error(errno, "cannot read", path_);
      if (n == 0) return became_shorter();
      done += static_cast<std::size_t>(n);
    }
    return ok_status();
  }

  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override {
    if (from >= bytes_) return std::optional<ByteRange>();
    const off_t data = ::lseek(fd_, static_cast<off_t>(from), SEEK_DATA);
    if (data < 0) {
      if (errno != ENXIO) return std::optional(ByteRange{from, bytes_ - from});  // knows no holes
      DIMS_TRY(still_whole());
      return std::optional<ByteRange>();
    }
    const off_t hole = ::lseek(fd_, data, SEEK_HOLE);
    const std::uint64_t first = static_cast<std::uint64_t>(data);
    const std::uint64_t end =
        hole < 0 ? bytes_ : std::min(static_cast<std::uint64_t>(hole), bytes_);
    if (first >= end) return std::optional<ByteRange>();
    return std::optional(ByteRange{first, end - first});
  }

  Status still_whole() const override {
    struct stat st {};
    if (::fstat(fd_, &st) != 0) return io::errno_error(errno, "cannot examine", path_);
    if (S_ISREG(st.st_mode) && static_cast<std::uint64_t>(st.st_size) < bytes_)
      return became_shorter();
    return ok_status();
  }

 private:
  Error became_shorter() const {
    return make_error(ErrorCode::kIo, path_ + " became shorter while it was read",
                      "stop whoever writes to it and try again");
  }

  std::string path_;
  int fd_;
  std::uint64_t bytes_;
  std::string description_;
};

}  // namespace

Result<std::unique_ptr<Source>> open_raw_source(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return io::errno_error(errno, "cannot open", path);
  struct stat st {};
  std::uint64_t bytes = 0;
  int rc = ::fstat(fd, &st);
  if (rc == 0 && S_ISBLK(st.st_mode)) rc = ::ioctl(fd, BLKGETSIZE64, &bytes);
  if (rc != 0) {
    const Error error = io::errno_error(errno, "cannot examine", path);
    ::close(fd);
    return error;
  }
  if (S_ISREG(st.st_mode)) bytes = static_cast<std::uint64_t>(st.st_size);
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
    ::close(fd);
    return make_error(ErrorCode::kInvalidArgument, path + " is neither a file nor a block device",
                      "give a disk image, a device or an NBD URI");
  }
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  return std::unique_ptr<Source>(std::make_unique<RawSource>(path, fd, bytes, S_ISBLK(st.st_mode)));
}

}  // namespace dims::media
