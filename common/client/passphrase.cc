#include "common/client/passphrase.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <charconv>

#include "common/crypto/passphrase.h"
#include "common/io/errno_map.h"
#include "common/io/private_file.h"

namespace dims::client {
namespace {

constexpr std::size_t kLineMax = 4096;

struct Descriptor {
  explicit Descriptor(int number, bool own) : fd(number), owned(own) {}
  ~Descriptor() {
    if (owned && fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
  bool owned;
};

// Byte by byte: what follows the line is somebody else's.
Result<crypto::SecretBytes> line_from(int fd, const std::string& what) {
  crypto::SecretBytes line(kLineMax);
  std::size_t length = 0;
  for (;;) {
    if (length == line.size())
      return make_error(ErrorCode::kInvalidArgument, what + " is too long");
    const ssize_t n = ::read(fd, line.mut().data() + length, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io::errno_error(errno, "cannot read", what);
    if (n == 0 || line.view()[length] == '\n') break;
    ++length;
  }
  if (length > 0 && line.view()[length - 1] == '\r') --length;
  line.shorten(length);
  return line;
}

// Nothing that is typed is shown.
class Quiet {
 public:
  explicit Quiet(int fd) : fd_(fd), known_(::tcgetattr(fd, &before_) == 0) {
    termios quiet = before_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    quiet.c_lflag |= ECHONL;
    if (known_) ::tcsetattr(fd_, TCSAFLUSH, &quiet);
  }
  ~Quiet() {
    if (known_) ::tcsetattr(fd_, TCSAFLUSH, &before_);
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  int fd_;
  termios before_{};
  bool known_;
};

Result<crypto::SecretBytes> ask(const std::string& what) {
  const Descriptor terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY), true);
  if (terminal.fd < 0) {
    return make_error(ErrorCode::kInvalidArgument, what + " is needed and there is no terminal",
                      "use --passphrase +FILE, or -FD for an open descriptor");
  }
  const std::string prompt = what + ": ";
  if (::write(terminal.fd, prompt.data(), prompt.size()) < 0)
    return io::errno_error(errno, "cannot write to", "the terminal");
  const Quiet quiet(terminal.fd);
  return line_from(terminal.fd, what);
}

}  // namespace

Result<crypto::SecretBytes> read_line_of(const std::string& source, const std::string& what) {
  if (source.empty() || source == "-") return ask(what);
  if (source.front() == '+') {
    const std::string path = source.substr(1);
    DIMS_TRY(io::check_private(path, "the file"));
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC), true);
    if (file.fd < 0) return io::errno_error(errno, "cannot open", path);
    return line_from(file.fd, path);
  }
  int number = -1;
  const char* const end = source.data() + source.size();
  const auto parsed = source.front() == '-' ? std::from_chars(source.data() + 1, end, number)
                                            : std::from_chars_result{nullptr, std::errc{}};
  if (parsed.ptr != end || number < 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a passphrase is not taken from the command line, where others can read it",
                      "use - to be asked, +FILE for a file, or -FD for an open descriptor");
  }
  const Descriptor given(number, false);
  return line_from(given.fd, "descriptor " + std::to_string(number));
}

Result<crypto::SecretBytes> read_passphrase(const std::string& source, const std::string& what,
                                            bool twice) {
  DIMS_ASSIGN(crypto::SecretBytes passphrase, read_line_of(source, what));
  if (passphrase.empty() || passphrase.size() > crypto::kPassphraseBytesMax) {
    return make_error(ErrorCode::kInvalidArgument,
                      what + " is " + (passphrase.empty() ? "empty" : "too long"));
  }
  if (twice && (source.empty() || source == "-")) {
    DIMS_ASSIGN(const crypto::SecretBytes again, read_line_of(source, "The same again"));
    if (again.text() != passphrase.text())
      return make_error(ErrorCode::kInvalidArgument, "the two are not the same", "try again");
  }
  return passphrase;
}

}  // namespace dims::client
