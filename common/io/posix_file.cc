#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>

#include "common/io/errno_map.h"
#include "common/io/file.h"

namespace dims::io {
namespace {

class PosixFile : public File {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixFile() override { ::close(fd_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Status read_at(std::uint64_t offset, MutByteView out) override {
    DIMS_ASSIGN(const std::size_t n, read_some(offset, out));
    if (n != out.size()) {
      return make_error(ErrorCode::kCorrupt,
                        "short read of " + path_ + " at " + std::to_string(offset));
    }
    return ok_status();
  }

  Result<std::size_t> read_some(std::uint64_t offset, MutByteView out) override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t n =
          ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0) {
        if (errno == EINTR) continue;
        return errno_error(errno, "cannot read", path_);
      }
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  Status write_at(std::uint64_t offset, ByteView data) override {
    std::size_t done = 0;
    while (done < data.size()) {
      const ssize_t n =
          ::pwrite(fd_, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
      if (n < 0) {
        if (errno == EINTR) continue;
        return errno_error(errno, "cannot write", path_);
      }
      if (n == 0) return errno_error(EIO, "cannot write", path_);
      done += static_cast<std::size_t>(n);
    }
    return ok_status();
  }

  Status write_gather(std::uint64_t offset, std::span<const ByteView> parts) override {
    static constexpr std::size_t kMaxParts = 64;
    std::size_t index = 0;
    std::size_t skip = 0;  // bytes of parts[index] that are written already
    while (index < parts.size()) {
      std::array<iovec, kMaxParts> vec;
      std::size_t count = 0;
      for (std::size_t i = index; i < parts.size() && count < kMaxParts; ++i) {
        const std::size_t from = i == index ? skip : 0;
        if (parts[i].size() == from) continue;
        vec[count].iov_base = const_cast<std::uint8_t*>(parts[i].data() + from);
        vec[count].iov_len = parts[i].size() - from;
        ++count;
      }
      if (count == 0) break;
      const ssize_t n =
          ::pwritev(fd_, vec.data(), static_cast<int>(count), static_cast<off_t>(offset));
      if (n < 0) {
        if (errno == EINTR) continue;
        return errno_error(errno, "cannot write", path_);
      }
      if (n == 0) return errno_error(EIO, "cannot write", path_);
      offset += static_cast<std::uint64_t>(n);
      auto left = static_cast<std::size_t>(n);
      while (index < parts.size() && left >= parts[index].size() - skip) {
        left -= parts[index].size() - skip;
        skip = 0;
        ++index;
      }
      skip += left;
    }
    return ok_status();
  }

  // The kernel tells an error of writing back once, to one of those who sync: whoever syncs at the
  // same time, or later, would be told that all is well.
  Status sync_data() override {
    const std::lock_guard lock(sync_mutex_);
    if (!sync_failed_.ok()) return sync_failed_;
    if (::fdatasync(fd_) != 0) sync_failed_ = errno_error(errno, "cannot sync", path_);
    return sync_failed_;
  }

  Status preallocate(std::uint64_t size) override {
    const int e = ::posix_fallocate(fd_, 0, static_cast<off_t>(size));
    if (e != 0)
      return errno_error(e, "cannot reserve " + std::to_string(size) + " bytes for", path_);
    return ok_status();
  }

  Status truncate(std::uint64_t size) override {
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0)
      return errno_error(errno, "cannot resize", path_);
    return ok_status();
  }

  Result<std::uint64_t> size() override {
    struct stat st {};
    if (::fstat(fd_, &st) != 0) return errno_error(errno, "cannot stat", path_);
    return static_cast<std::uint64_t>(st.st_size);
  }

  const std::string& path() const override { return path_; }

 private:
  int fd_;
  std::string path_;
  std::mutex sync_mutex_;
  Status sync_failed_;  // the first failure, for good
};

class PosixFileSystem : public FileSystem {
 public:
  Result<std::shared_ptr<File>> open(const std::string& path, OpenMode mode) override {
    int flags = O_CLOEXEC;
    switch (mode) {
      case OpenMode::kReadOnly:
        flags |= O_RDONLY;
        break;
      case OpenMode::kReadWrite:
        flags |= O_RDWR;
        break;
      case OpenMode::kCreateExclusive:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
      case OpenMode::kCreate:
        flags |= O_RDWR | O_CREAT;
        break;
    }
    const int fd = ::open(path.c_str(), flags, 0600);
    if (fd < 0) return errno_error(errno, "cannot open", path);
    return std::shared_ptr<File>(std::make_shared<PosixFile>(fd, path));
  }

  Status remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return errno_error(errno, "cannot remove", path);
    return ok_status();
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return errno_error(errno, "cannot rename", from);
    return ok_status();
  }

  Status make_folder(const std::string& path) override {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
      return errno_error(errno, "cannot make folder", path);
    }
    return ok_status();
  }

  Result<std::vector<std::string>> list(const std::string& folder) override {
    DIR* dir = ::opendir(folder.c_str());
    if (dir == nullptr) return errno_error(errno, "cannot list", folder);
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(dir)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    ::closedir(dir);
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<bool> exists(const std::string& path) override {
    struct stat st {};
    if (::stat(path.c_str(), &st) == 0) return true;
    if (errno == ENOENT) return false;
    return errno_error(errno, "cannot look up", path);
  }

  Status sync_folder(const std::string& folder) override {
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno_error(errno, "cannot open folder", folder);
    const int rc = ::fsync(fd);
    const int e = errno;
    ::close(fd);
    if (rc != 0) return errno_error(e, "cannot sync folder", folder);
    return ok_status();
  }

  Result<std::uint64_t> free_bytes(const std::string& path) override {
    struct statvfs st {};
    if (::statvfs(path.c_str(), &st) != 0)
      return errno_error(errno, "cannot stat file system of", path);
    return static_cast<std::uint64_t>(st.f_bavail) * st.f_frsize;
  }
};

}  // namespace

FileSystem& posix_file_system() {
  static PosixFileSystem fs;
  return fs;
}

}  // namespace dims::io
