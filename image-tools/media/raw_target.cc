// Raw targets: a file that appears when complete, a block device, a stream.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/clock.h"
#include "common/io/errno_map.h"
#include "common/io/file.h"
#include "image-tools/media/target.h"

namespace dims::media {
namespace {

Status write_all(int fd, std::uint64_t offset, ByteView data, const std::string& path) {
  for (std::size_t done = 0; done < data.size();) {
    const ssize_t n =
        ::pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io::errno_error(errno, "cannot write", path);
    done += static_cast<std::size_t>(n);
  }
  return ok_status();
}

class FileTarget : public Target {
 public:
  FileTarget(PendingFile file, int fd) : file_(std::move(file)), fd_(fd) {}
  ~FileTarget() override {
    if (fd_ >= 0) ::close(fd_);
  }
  bool starts_zeroed() const override { return true; }
  Status write_at(std::uint64_t offset, ByteView data) override {
    return write_all(fd_, offset, data, file_.temporary());
  }
  Status zero_at(ByteRange) override { return ok_status(); }  // a new sparse file
  Status finish() override {
    const int rc = ::close(fd_);
    fd_ = -1;
    if (rc != 0) return io::errno_error(errno, "cannot close", file_.temporary());
    return file_.publish();
  }

 private:
  PendingFile file_;
  int fd_;
};

class DeviceTarget : public Target {
 public:
  DeviceTarget(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  ~DeviceTarget() override { ::close(fd_); }
  bool starts_zeroed() const override { return false; }
  Status write_at(std::uint64_t offset, ByteView data) override {
    return write_all(fd_, offset, data, path_);
  }
  Status zero_at(ByteRange range) override {
    if (::fallocate(fd_, FALLOC_FL_ZERO_RANGE, static_cast<off_t>(range.offset),
                    static_cast<off_t>(range.count)) == 0) {
      return ok_status();
    }
    const Bytes zeros(static_cast<std::size_t>(std::min<std::uint64_t>(range.count, 4 * kMiB)), 0);
    for (std::uint64_t done = 0; done < range.count;) {
      const auto part =
          static_cast<std::size_t>(std::min<std::uint64_t>(zeros.size(), range.count - done));
      DIMS_TRY(write_at(range.offset + done, ByteView(zeros).first(part)));
      done += part;
    }
    return ok_status();
  }
  Status finish() override {
    if (::fsync(fd_) != 0) return io::errno_error(errno, "cannot sync", path_);
    return ok_status();
  }

 private:
  std::string path_;
  int fd_;
};

class StreamTarget : public Target {
 public:
  explicit StreamTarget(int fd) : fd_(fd) {}
  bool in_order() const override { return true; }
  bool starts_zeroed() const override { return false; }
  Status write_at(std::uint64_t, ByteView data) override {
    for (std::size_t done = 0; done < data.size();) {
      const ssize_t n = ::write(fd_, data.data() + done, data.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return io::errno_error(errno, "cannot write", "the output stream");
      done += static_cast<std::size_t>(n);
    }
    return ok_status();
  }
  Status zero_at(ByteRange range) override {
    const Bytes zeros(static_cast<std::size_t>(std::min<std::uint64_t>(range.count, kMiB)), 0);
    for (std::uint64_t done = 0; done < range.count;) {
      const auto part =
          static_cast<std::size_t>(std::min<std::uint64_t>(zeros.size(), range.count - done));
      DIMS_TRY(write_at(0, ByteView(zeros).first(part)));
      done += part;
    }
    return ok_status();
  }
  Status finish() override { return ok_status(); }

 private:
  int fd_;
};

Error exists(const std::string& path) {
  return make_error(ErrorCode::kAlreadyExists, path + " exists already",
                    "choose another name, or use --force");
}

}  // namespace

Result<PendingFile> PendingFile::reserve(const std::string& path, bool force, bool keep_name) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0) {
    if (!force) return exists(path);
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) {
      return make_error(ErrorCode::kInvalidArgument, path + " is not a regular file",
                        "choose another target");
    }
  }
  Id<struct SuffixTag, 4> suffix = system_random().id<Id<struct SuffixTag, 4>>();
  const std::string beside = path + ".partial-" + suffix.hex();
  if (!keep_name) return PendingFile(path, beside, {}, force);
  if (::mkdir(beside.c_str(), 0700) != 0) return io::errno_error(errno, "cannot make", beside);
  return PendingFile(path, beside + "/" + path.substr(path.rfind('/') + 1), beside, force);
}

PendingFile::PendingFile(PendingFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      folder_(std::move(other.folder_)),
      force_(other.force_) {
  other.temporary_.clear();
  other.folder_.clear();
}

PendingFile::~PendingFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  if (!folder_.empty()) ::rmdir(folder_.c_str());
}

Status PendingFile::publish() {
  const int fd = ::open(temporary_.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return io::errno_error(errno, "cannot open", temporary_);
  const int rc = ::fsync(fd);
  const int number = errno;
  ::close(fd);
  if (rc != 0) return io::errno_error(number, "cannot sync", temporary_);
  if (force_) {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      return io::errno_error(errno, "cannot name", path_);
  } else {
    // link() refuses a name that somebody took in the meantime; rename() would overwrite it.
    if (::link(temporary_.c_str(), path_.c_str()) != 0) {
      if (errno == EEXIST) return exists(path_);
      if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) !=
          0) {
        return io::errno_error(errno, "cannot name", path_);
      }
    } else {
      ::unlink(temporary_.c_str());
    }
  }
  temporary_.clear();
  return io::posix_file_system().sync_folder(io::parent_folder(path_));
}

Result<std::unique_ptr<Target>> open_file_target(const std::string& path,
                                                 const TargetOptions& options) {
  DIMS_ASSIGN(PendingFile file, PendingFile::reserve(path, options.force));
  const int fd = ::open(file.temporary().c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return io::errno_error(errno, "cannot make", file.temporary());
  auto target = std::make_unique<FileTarget>(std::move(file), fd);
  if (::ftruncate(fd, static_cast<off_t>(options.image_bytes)) != 0) {
    return io::errno_error(errno, "cannot set the size of", path);
  }
  return std::unique_ptr<Target>(std::move(target));
}

Result<std::unique_ptr<Target>> open_device_target(const std::string& path,
                                                   const TargetOptions& options) {
  if (!options.force) {
    return make_error(ErrorCode::kAlreadyExists,
                      path + " is a block device, and what is on it would be lost",
                      "use --force to overwrite it");
  }
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_EXCL);
  if (fd < 0) return io::errno_error(errno, "cannot open", path);
  auto target = std::make_unique<DeviceTarget>(path, fd);
  std::uint64_t bytes = 0;
  if (::ioctl(fd, BLKGETSIZE64, &bytes) != 0) return io::errno_error(errno, "cannot examine", path);
  if (bytes < options.image_bytes) {
    return make_error(ErrorCode::kNoSpace,
                      path + " has " + std::to_string(bytes) + " bytes, the image " +
                          std::to_string(options.image_bytes),
                      "use a larger device");
  }
  return std::unique_ptr<Target>(std::move(target));
}

std::unique_ptr<Target> open_stream_target(int descriptor) {
  return std::make_unique<StreamTarget>(descriptor);
}

}  // namespace dims::media
