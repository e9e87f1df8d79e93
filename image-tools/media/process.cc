#include "image-tools/media/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "common/io/errno_map.h"
#include "common/io/file.h"

namespace dims::media {
namespace {

constexpr std::size_t kMaxOutputBytes = 1 << 20;
constexpr int kNotFoundExit = 127;

// Between fork and exec only calls that are safe after a fork of a threaded process.
pid_t spawn(const std::vector<std::string>& arguments, int out, int err) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kNotFoundExit);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal_number : {SIGINT, SIGTERM, SIGPIPE}) ::signal(signal_number, SIG_DFL);
  const int in = ::open("/dev/null", O_RDONLY);
  ::dup2(in, 0);
  ::dup2(out, 1);
  ::dup2(err, 2);
  ::execvp(argv[0], argv.data());
  ::_exit(kNotFoundExit);
}

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return exit_code_of(status);
}

Error not_installed(const std::string& program) {
  return make_error(ErrorCode::kUnsupported, program + " cannot be started",
                    "install it (Debian: qemu-utils), or use a raw file");
}

struct Pipe {
  int ends[2] = {-1, -1};
  Pipe() {
    if (::pipe2(ends, O_CLOEXEC) != 0) ends[0] = ends[1] = -1;
  }
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_end(int which) {
    if (ends[which] >= 0) ::close(ends[which]);
    ends[which] = -1;
  }
};

// Returns false at the end.
bool drain(int descriptor, std::string& into) {
  std::array<char, 4096> buffer;
  const ssize_t n = ::read(descriptor, buffer.data(), buffer.size());
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  if (n == 0) return false;
  if (into.size() < kMaxOutputBytes) into.append(buffer.data(), static_cast<std::size_t>(n));
  return true;
}

bool accepts(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool ok = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return ok;
}

}  // namespace

Result<Output> run(const std::vector<std::string>& arguments) {
  Pipe out;
  Pipe err;
  if (out.ends[0] < 0 || err.ends[0] < 0)
    return io::errno_error(errno, "cannot make a pipe for", arguments[0]);
  const pid_t pid = spawn(arguments, out.ends[1], err.ends[1]);
  if (pid < 0) return io::errno_error(errno, "cannot start", arguments[0]);
  out.close_end(1);
  err.close_end(1);
  Output output;
  while (out.ends[0] >= 0 || err.ends[0] >= 0) {
    std::array<pollfd, 2> waits{pollfd{out.ends[0], POLLIN, 0}, pollfd{err.ends[0], POLLIN, 0}};
    if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) break;
    if (waits[0].revents != 0 && !drain(out.ends[0], output.out)) out.close_end(0);
    if (waits[1].revents != 0 && !drain(err.ends[0], output.err)) err.close_end(0);
  }
  output.exit_code = wait_for(pid);
  if (output.exit_code == kNotFoundExit && output.out.empty()) return not_installed(arguments[0]);
  return output;
}

Result<std::unique_ptr<NbdChild>> NbdChild::start(std::vector<std::string> arguments) {
  const char* base = std::getenv("TMPDIR");
  std::string folder =
      std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/rdim-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr)
    return io::errno_error(errno, "cannot make a folder", folder);
  std::unique_ptr<NbdChild> child(new NbdChild);
  child->folder_ = folder;
  child->socket_ = folder + "/nbd";
  arguments.insert(arguments.begin() + 1, {"--persistent", "--socket=" + child->socket_});
  const std::string log = folder + "/errors";
  const int err = ::open(log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (err < 0) return io::errno_error(errno, "cannot make", log);
  child->pid_ = spawn(arguments, err, err);
  ::close(err);
  if (child->pid_ < 0) return io::errno_error(errno, "cannot start", arguments[0]);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!accepts(child->socket_)) {
    int status = 0;
    if (::waitpid(child->pid_, &status, WNOHANG) == child->pid_) {
      child->pid_ = -1;
      if (exit_code_of(status) == kNotFoundExit && child->errors().empty())
        return not_installed(arguments[0]);
      return child->explain({});
    }
    if (std::chrono::steady_clock::now() > until) {
      return make_error(ErrorCode::kIo,
                        arguments[0] + " does not open its socket: " + child->errors());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return child;
}

Error NbdChild::explain(const Error& error) {
  int status = 0;
  // It opens its socket first and the file then: give it a moment to say what is wrong with the
  // file.
  for (int i = 0; i < 100 && pid_ >= 0; ++i) {
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (pid_ >= 0) return error;
  return make_error(ErrorCode::kIo, errors(), "see whether 'qemu-img check' accepts the file");
}

std::string NbdChild::errors() const {
  const auto text = io::read_file(io::posix_file_system(), folder_ + "/errors", kMaxOutputBytes);
  std::string out = text.ok() ? std::string(as_text(*text)) : std::string();
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

Status NbdChild::stop() {
  if (pid_ < 0) return ok_status();
  ::kill(pid_, SIGTERM);
  const int code = wait_for(pid_);
  pid_ = -1;
  if (code != 0 && code != 128 + SIGTERM) {
    return make_error(ErrorCode::kIo,
                      "qemu-nbd ended with code " + std::to_string(code) + ": " + errors());
  }
  return ok_status();
}

NbdChild::~NbdChild() {
  if (pid_ >= 0) {
    ::kill(pid_, SIGTERM);
    wait_for(pid_);
  }
  for (const std::string& name : {socket_, folder_ + "/errors"}) ::unlink(name.c_str());
  ::rmdir(folder_.c_str());
}

}  // namespace dims::media
