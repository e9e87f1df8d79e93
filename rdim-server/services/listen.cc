#include "rdim-server/services/listen.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "common/base/parse.h"

namespace dims::services {
namespace {

constexpr std::string_view kUnix = "unix:";

bool is_unix(const std::string& address) { return address.starts_with(kUnix); }

class Socket {
 public:
  Socket(int family, int protocol) : fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

Error in_use(const std::string& address) {
  return make_error(ErrorCode::kAlreadyExists, "the address " + address + " is in use",
                    "stop the program that listens there, or give another --listen");
}

Error from_errno(const std::string& address, int error) {
  if (error == EADDRINUSE) return in_use(address);
  const ErrorCode code = error == EACCES || error == EPERM ? ErrorCode::kPermissionDenied
                         : error == EADDRNOTAVAIL          ? ErrorCode::kInvalidArgument
                                                           : ErrorCode::kIo;
  return make_error(code, "cannot listen on " + address + ": " + std::strerror(error),
                    "give an address of this machine and a port that is free to you");
}

Result<sockaddr_un> unix_address(const std::string& address) {
  const std::string path = address.substr(kUnix.size());
  sockaddr_un out{};
  out.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof out.sun_path) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the socket path '" + path + "' is empty or too long",
                      "give unix:PATH with at most 107 characters");
  }
  std::memcpy(out.sun_path, path.data(), path.size());
  return out;
}

}  // namespace

Result<std::string> listen_target(const std::string& address) {
  if (!is_unix(address)) {
    DIMS_ASSIGN(const HostPort parsed, parse_host_port(address));
    const bool v6 = parsed.host.find(':') != std::string::npos;
    return (v6 ? "[" + parsed.host + "]" : parsed.host) + ":" + std::to_string(parsed.port);
  }
  DIMS_ASSIGN(const sockaddr_un peer, unix_address(address));
  const Socket probe(AF_UNIX, 0);
  if (connect(probe.fd(), reinterpret_cast<const sockaddr*>(&peer), sizeof peer) == 0) {
    return in_use(address);
  }
  return address;
}

Error why_not(const std::string& address) {
  if (is_unix(address)) {
    const auto peer = unix_address(address);
    if (!peer.ok()) return peer.error();
    const Socket probe(AF_UNIX, 0);
    const bool bound =
        bind(probe.fd(), reinterpret_cast<const sockaddr*>(&*peer), sizeof *peer) == 0;
    const int error = errno;
    if (bound) unlink(peer->sun_path);
    return from_errno(address, bound ? EIO : error);
  }
  const auto parsed = parse_host_port(address);
  if (!parsed.ok()) return parsed.error();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int resolved =
      getaddrinfo(parsed->host.c_str(), std::to_string(parsed->port).c_str(), &hints, &found);
  if (resolved != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "cannot listen on " + address + ": " + gai_strerror(resolved),
                      "give an address of this machine");
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> guard(found, freeaddrinfo);
  const Socket probe(found->ai_family, found->ai_protocol);
  const int on = 1;
  (void)setsockopt(probe.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const bool bound =
      bind(probe.fd(), found->ai_addr, found->ai_addrlen) == 0 && listen(probe.fd(), 1) == 0;
  return from_errno(address, bound ? EIO : errno);
}

bool is_local(const std::string& address) {
  if (is_unix(address)) return true;
  const auto parsed = parse_host_port(address);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (!parsed.ok() || getaddrinfo(parsed->host.c_str(), nullptr, &hints, &found) != 0) return false;
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> guard(found, freeaddrinfo);
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    if (one->ai_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(one->ai_addr);
      if ((ntohl(v4->sin_addr.s_addr) >> 24) != 127) return false;
    } else if (one->ai_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(one->ai_addr);
      if (!IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr)) return false;
    } else {
      return false;
    }
  }
  return true;
}

std::string with_port(const std::string& address, int port) {
  if (is_unix(address)) return address;
  return address.substr(0, address.rfind(':') + 1) + std::to_string(port);
}

}  // namespace dims::services
