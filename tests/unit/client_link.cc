#include "tests/unit/client_link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <vector>

namespace dims::test {
namespace {

using SteadyClock = std::chrono::steady_clock;

int tcp_socket() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) std::abort();
  return fd;
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// One direction of one connection.
class Pipe {
 public:
  Pipe(int from, int to, const LinkShape& shape, std::atomic<std::uint64_t>* counter)
      : from_(from),
        to_(to),
        shape_(shape),
        counter_(counter),
        reader_([this] { read_loop(); }),
        writer_([this] { write_loop(); }) {}
  ~Pipe() {
    reader_.join();
    writer_.join();
  }

 private:
  struct Packet {
    SteadyClock::time_point due;
    std::vector<char> data;
  };

  void read_loop() {
    SteadyClock::time_point line_free = SteadyClock::now();
    std::vector<char> buffer(16 * 1024);
    for (;;) {
      const ssize_t n = ::recv(from_, buffer.data(), buffer.size(), 0);
      std::unique_lock lock(mutex_);
      if (n <= 0) break;
      const auto bytes = static_cast<std::uint64_t>(n);
      changed_.wait(lock, [&] { return held_ < held_max_ || over_; });
      if (over_) break;
      line_free = std::max(line_free, SteadyClock::now());
      if (shape_.bytes_per_second != 0) {
        line_free += std::chrono::nanoseconds(bytes * 1'000'000'000ULL / shape_.bytes_per_second);
      }
      packets_.push_back({line_free + shape_.delay, {buffer.begin(), buffer.begin() + n}});
      held_ += bytes;
      changed_.notify_all();
    }
    std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }

  void write_loop() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !packets_.empty() || over_; });
      if (packets_.empty()) break;
      const Packet packet = std::move(packets_.front());
      packets_.pop_front();
      lock.unlock();
      std::this_thread::sleep_until(packet.due);
      std::size_t sent = 0;
      while (sent < packet.data.size()) {
        const ssize_t n =
            ::send(to_, packet.data.data() + sent, packet.data.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<std::size_t>(n);
      }
      if (counter_ != nullptr) *counter_ += sent;
      lock.lock();
      held_ -= packet.data.size();
      if (sent < packet.data.size()) over_ = true;
      changed_.notify_all();
    }
    ::shutdown(to_, SHUT_WR);
    ::shutdown(from_, SHUT_RD);
  }

  const int from_, to_;
  const LinkShape shape_;
  // What is under way on the line, and what waits before it.
  const std::uint64_t held_max_ =
      shape_.buffer_bytes +
      shape_.bytes_per_second * static_cast<std::uint64_t>(shape_.delay.count()) / 1000;
  std::atomic<std::uint64_t>* const counter_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Packet> packets_;
  std::uint64_t held_ = 0;
  bool over_ = false;
  std::thread reader_, writer_;
};

}  // namespace

struct Link::Connection {
  Connection(int near_end, int far_end, const LinkShape& shape, std::atomic<std::uint64_t>* down)
      : client(near_end), server(far_end) {
    pipe_up = std::make_unique<Pipe>(client, server, shape, nullptr);
    pipe_down = std::make_unique<Pipe>(server, client, shape, down);
  }
  void cut() const {
    ::shutdown(client, SHUT_RDWR);
    ::shutdown(server, SHUT_RDWR);
  }
  ~Connection() {
    cut();
    pipe_up.reset();
    pipe_down.reset();
    ::close(client);
    ::close(server);
  }
  int client, server;
  std::unique_ptr<Pipe> pipe_up, pipe_down;
};

Link::Link(const std::string& target, const LinkShape& shape) : shape_(shape) {
  target_port_ = static_cast<std::uint16_t>(std::stoi(target.substr(target.rfind(':') + 1)));
  listener_ = tcp_socket();
  sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::listen(listener_, 16) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    std::abort();
  }
  address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  acceptor_ = std::thread([this] { accept_loop(); });
}

Link::~Link() {
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  ::close(listener_);
  connections_.clear();
}

void Link::accept_loop() {
  for (;;) {
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    const int server = tcp_socket();
    const sockaddr_in address = loopback(target_port_);
    if (::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      ::close(client);
      ::close(server);
      continue;
    }
    const int one = 1;
    for (const int fd : {client, server})
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    std::lock_guard lock(mutex_);
    connections_.push_back(std::make_unique<Connection>(client, server, shape_, &bytes_down_));
  }
}

void Link::cut() {
  std::lock_guard lock(mutex_);
  for (const auto& connection : connections_) connection->cut();
}

}  // namespace dims::test
