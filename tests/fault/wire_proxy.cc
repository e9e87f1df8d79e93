#include "tests/fault/wire_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace dims::test {
namespace {

constexpr std::size_t kHeldMax = 4 << 20;  // a way that holds so much takes no more
constexpr std::size_t kTakenAtOnce = 16 * 1024;
constexpr int kPollMs = 20;
constexpr std::size_t kUp = 0, kDown = 1;

constexpr std::string_view kUnix = "unix:";

union WireAddress {
  sockaddr any;
  sockaddr_in in;
  sockaddr_un un;
};

socklen_t wire_address_of(const std::string& text, WireAddress& out) {
  std::memset(&out, 0, sizeof out);
  if (text.starts_with(kUnix)) {
    out.un.sun_family = AF_UNIX;
    const std::string path = text.substr(kUnix.size());
    if (path.size() >= sizeof out.un.sun_path) std::abort();
    std::memcpy(out.un.sun_path, path.data(), path.size());
    return sizeof out.un;
  }
  out.in.sin_family = AF_INET;
  out.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  out.in.sin_port = htons(static_cast<std::uint16_t>(std::stoi(text.substr(text.rfind(':') + 1))));
  return sizeof out.in;
}

int wire_socket(const WireAddress& address) {
  const int fd = ::socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) std::abort();
  return fd;
}

void make_quick(int fd) {
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // a UNIX socket refuses
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

}  // namespace

const char* name_of(WireFaultKind kind) {
  switch (kind) {
    case WireFaultKind::kFin:
      return "cut in order";
    case WireFaultKind::kReset:
      return "reset";
    case WireFaultKind::kTail:
      return "truncated tail";
    case WireFaultKind::kHalfOpenOne:
      return "half-open one way";
    case WireFaultKind::kHalfOpenBoth:
      return "half-open both ways";
    case WireFaultKind::kStall:
      return "stall";
  }
  return "?";
}

BreakingProxy::BreakingProxy(const std::string& target, const std::string& listen, Calls calls)
    : target_(target), calls_(std::move(calls)) {
  const bool local = target.starts_with(kUnix);
  WireAddress address;
  socklen_t length = wire_address_of(local ? std::string(kUnix) + listen : "127.0.0.1:0", address);
  listener_ = wire_socket(address);
  if (::bind(listener_, &address.any, length) != 0 || ::listen(listener_, 64) != 0 ||
      ::pipe2(wake_.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    std::abort();
  }
  if (local) {
    address_ = std::string(kUnix) + listen;
  } else {
    length = sizeof address;
    if (::getsockname(listener_, &address.any, &length) != 0) std::abort();
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.in.sin_port));
  }
  thread_ = std::thread([this] { run(); });
}

BreakingProxy::~BreakingProxy() {
  stop_ = true;
  wake();
  thread_.join();
  for (const int fd : {listener_, wake_[0], wake_[1]}) ::close(fd);
  if (address_.starts_with(kUnix)) ::unlink(address_.c_str() + kUnix.size());
}

void BreakingProxy::wake() const {
  const char byte = 0;
  (void)!::write(wake_[1], &byte, 1);
}

void BreakingProxy::heal() {
  healed_ = true;
  wake();
}

void BreakingProxy::let_down(std::uint64_t bytes) {
  let_down_ = bytes;
  wake();
}

void BreakingProxy::draw(Connection& connection) {
  connection.begun = false;
  connection.fault = healed_ || !calls_.plan ? std::nullopt : calls_.plan();
  if (connection.fault) connection.due_at = SteadyClock::now() + connection.fault->patience;
}

void BreakingProxy::accept_one() {
  const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (client < 0) return;
  WireAddress address;
  const socklen_t length = wire_address_of(target_, address);
  const int server = wire_socket(address);
  if (::connect(server, &address.any, length) != 0) {
    ::close(client);
    ::close(server);
    return;
  }
  make_quick(client);
  make_quick(server);
  Connection& made = connections_.emplace_back();
  made.fds = {client, server};
  draw(made);
}

// To the receiver, as much as it takes; the rest waits.
void BreakingProxy::flush(Connection& c, std::size_t way) {
  Way& w = c.ways[way];
  if (w.stalls) return;
  std::size_t let = w.held.size();
  if (way == kDown) let = static_cast<std::size_t>(std::min<std::uint64_t>(let, let_down_));
  std::size_t sent = 0;
  while (sent < let) {
    const ssize_t n = ::send(c.fds[1 - way], w.held.data() + sent, let - sent, MSG_NOSIGNAL);
    if (n <= 0) break;
    sent += static_cast<std::size_t>(n);
  }
  if (way == kDown && let_down_ != kNoLimit) let_down_ -= sent;
  passed_ += sent;
  if (way == kDown) held_bytes_ -= sent;
  w.held.erase(w.held.begin(), w.held.begin() + static_cast<std::ptrdiff_t>(sent));
  if (w.held.empty() && w.ended && !w.end_told) {
    w.end_told = true;
    ::shutdown(c.fds[1 - way], SHUT_WR);
  }
}

void BreakingProxy::give(Connection& c, std::size_t way, const char* data, std::size_t count) {
  Way& w = c.ways[way];
  if (w.swallows) {
    lost_ += count;
    return;
  }
  w.held.insert(w.held.end(), data, data + count);
  if (way == kDown) held_bytes_ += count;
  flush(c, way);
}

void BreakingProxy::take(Connection& c, std::size_t way) {
  char buffer[kTakenAtOnce];
  const ssize_t n = ::recv(c.fds[way], buffer, sizeof buffer, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    c.ways[way].ended = true;
    // Behind a fault that has begun nobody hears of it before its end.
    if (!c.begun || c.fault->kind == WireFaultKind::kStall) flush(c, way);
    if (n < 0 && !c.begun) cut(c, true);
    return;
  }
  const auto count = static_cast<std::size_t>(n);
  const bool counts = c.fault && !c.begun && !healed_ && (way == kUp) == c.fault->up;
  if (!counts) return give(c, way, buffer, count);
  const bool overdue = c.fault->at_least == 0 && SteadyClock::now() >= c.due_at;
  if (!overdue && count < c.fault->after) {
    c.fault->after -= count;
    c.fault->at_least -= std::min<std::uint64_t>(c.fault->at_least, count);
    return give(c, way, buffer, count);
  }
  // In the middle of what came: the fault stands between two of its bytes, or before the first.
  const auto passes = static_cast<std::size_t>(std::min<std::uint64_t>(c.fault->after, count));
  give(c, way, buffer, passes);
  begin(c);
  if (c.over) {
    lost_ += count - passes;
  } else {
    give(c, way, buffer + passes, count - passes);
  }
}

void BreakingProxy::begin(Connection& c) {
  const WireFault& fault = *c.fault;
  c.begun = true;
  c.until = SteadyClock::now() + fault.lasts;
  const std::size_t way = fault.up ? kUp : kDown;
  switch (fault.kind) {
    case WireFaultKind::kFin:
    case WireFaultKind::kReset:
      cut(c, fault.kind == WireFaultKind::kReset);
      break;
    case WireFaultKind::kTail:
      c.ways[kUp].swallows = c.ways[kDown].swallows = true;
      ::shutdown(c.fds[1 - way], SHUT_RDWR);
      break;
    case WireFaultKind::kHalfOpenOne:
      c.ways[way].swallows = true;
      break;
    case WireFaultKind::kHalfOpenBoth:
      c.ways[kUp].swallows = c.ways[kDown].swallows = true;
      break;
    case WireFaultKind::kStall:
      c.ways[way].stalls = true;
      break;
  }
  if (calls_.happened) calls_.happened(fault);
}

void BreakingProxy::end(Connection& c) {
  if (c.fault->kind != WireFaultKind::kStall) return cut(c, c.fault->then_reset);
  for (Way& w : c.ways) w.stalls = false;
  draw(c);
  for (const std::size_t way : {kUp, kDown}) flush(c, way);
}

void BreakingProxy::cut(Connection& c, bool reset) {
  if (c.over) return;
  c.over = true;
  for (const std::size_t way : {kUp, kDown}) lost_ += c.ways[way].held.size();
  held_bytes_ -= c.ways[kDown].held.size();
  for (const int fd : c.fds) {
    const linger at_once{1, 0};
    if (reset) {
      ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    } else {
      // What has come already would make a reset of the end.
      ::shutdown(fd, SHUT_WR);
      char unread[kTakenAtOnce];
      for (ssize_t n = 1; n > 0;) {
        n = ::recv(fd, unread, sizeof unread, 0);
        if (n > 0) lost_ += static_cast<std::uint64_t>(n);
      }
    }
    ::close(fd);
  }
}

void BreakingProxy::run() {
  std::vector<pollfd> polled;
  while (!stop_) {
    polled.clear();
    polled.push_back({listener_, POLLIN, 0});
    polled.push_back({wake_[0], POLLIN, 0});
    for (const Connection& c : connections_) {
      for (const std::size_t way : {kUp, kDown}) {
        short events = 0;
        if (!c.ways[way].ended && c.ways[way].held.size() < kHeldMax) events |= POLLIN;
        const Way& to_here = c.ways[1 - way];
        const bool kept = to_here.stalls || (1 - way == kDown && let_down_ == 0);
        if (!to_here.held.empty() && !kept) events |= POLLOUT;
        polled.push_back({events != 0 ? c.fds[way] : -1, events, 0});
      }
    }
    ::poll(polled.data(), polled.size(), kPollMs);
    char bytes[64];
    while (::read(wake_[0], bytes, sizeof bytes) > 0) {
    }
    std::size_t at = 2;
    for (Connection& c : connections_) {
      for (const std::size_t way : {kUp, kDown}) {
        const short events = polled[at++].revents;
        if (!c.over && (events & (POLLIN | POLLHUP | POLLERR)) != 0 && !c.ways[way].ended)
          take(c, way);
        if (!c.over) flush(c, 1 - way);
      }
      if (!c.over && c.begun && (healed_ || SteadyClock::now() >= c.until)) end(c);
      if (!c.over && !c.begun && c.ways[kUp].end_told && c.ways[kDown].end_told) cut(c, false);
    }
    std::erase_if(connections_, [](const Connection& c) { return c.over; });
    if ((polled[0].revents & POLLIN) != 0) accept_one();
  }
  for (Connection& c : connections_) cut(c, true);
}

}  // namespace dims::test
