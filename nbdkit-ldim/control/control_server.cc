#include "nbdkit-ldim/control/control_server.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "common/io/errno_map.h"
#include "nbdkit-ldim/control/commands.h"

namespace dims::ldim {
namespace {

constexpr std::size_t kMaxConnections = 8;

bool peer_may(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == 0 || peer.uid == ::geteuid();
}

bool send_line(int fd, std::string text) {
  text += '\n';
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::string& path, Disk& disk,
                                                            Renewal* renewal) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the path of the control socket is too long: " + path,
                      "use a cache folder with a shorter path (at most " +
                          std::to_string(sizeof address.sun_path - 14) + " bytes)");
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return io::errno_error(errno, "cannot make control socket", path);
  ::unlink(path.c_str());  // the folder's lock says that no live process uses it
  const mode_t before = ::umask(0177);
  const int rc = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int e = errno;
  ::umask(before);
  if (rc != 0 || ::listen(fd, 8) != 0) {
    ::close(fd);
    return io::errno_error(rc != 0 ? e : errno, "cannot bind control socket", path);
  }
  return std::unique_ptr<ControlServer>(new ControlServer(fd, path, disk, renewal));
}

ControlServer::ControlServer(int fd, std::string path, Disk& disk, Renewal* renewal)
    : fd_(fd), path_(std::move(path)), disk_(disk), renewal_(renewal), thread_([this] {
        accept_loop();
      }) {}

ControlServer::~ControlServer() {
  stop_ = true;
  ::shutdown(fd_, SHUT_RDWR);
  if (thread_.joinable()) thread_.join();
  for (const auto& connection : connections_) ::shutdown(connection->fd, SHUT_RDWR);
  for (const auto& connection : connections_) {
    connection->thread.join();
    ::close(connection->fd);
  }
  ::close(fd_);
  ::unlink(path_.c_str());
}

void ControlServer::accept_loop() {
  while (!stop_) {
    pollfd ready{fd_, POLLIN, 0};
    if (::poll(&ready, 1, 500) <= 0) continue;
    const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    const std::lock_guard lock(mutex_);
    connections_.remove_if([](const std::unique_ptr<Connection>& connection) {
      if (!connection->done) return false;
      connection->thread.join();
      ::close(connection->fd);
      return true;
    });
    if (!peer_may(fd) || connections_.size() >= kMaxConnections || stop_) {
      ::close(fd);
      continue;
    }
    auto connection = std::make_unique<Connection>();
    connection->fd = fd;
    Connection* const raw = connection.get();
    connection->thread = std::thread([this, raw] {
      serve(raw->fd);
      ::shutdown(raw->fd, SHUT_RDWR);
      raw->done = true;
    });
    connections_.push_back(std::move(connection));
  }
}

void ControlServer::serve(int fd) {
  std::string buffer;
  char chunk[4096];
  while (!stop_) {
    const auto end = buffer.find('\n');
    if (end != std::string::npos) {
      const std::string line = buffer.substr(0, end);
      buffer.erase(0, end + 1);
      const auto say = [&](const nlohmann::json& answer) {
        return !stop_ &&
               send_line(fd, answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      };
      run_command(disk_, line, say, renewal_);
      continue;
    }
    if (buffer.size() > kMaxControlLineBytes) return;
    const ssize_t n = ::recv(fd, chunk, sizeof chunk, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    buffer.append(chunk, static_cast<std::size_t>(n));
  }
}

}  // namespace dims::ldim
