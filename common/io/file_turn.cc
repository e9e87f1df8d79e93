#include "common/io/file_turn.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "common/io/errno_map.h"

namespace dims::io {

Result<FileTurn> FileTurn::wait(const std::string& path) {
  FileTurn turn(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (turn.fd_ < 0) return errno_error(errno, "cannot open", path);
  while (::flock(turn.fd_, LOCK_EX) != 0) {
    if (errno != EINTR) return errno_error(errno, "cannot lock", path);
  }
  return turn;
}

FileTurn::~FileTurn() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace dims::io
