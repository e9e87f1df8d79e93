#include "common/client/network_watch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <spdlog/spdlog.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "common/base/bytes.h"
#include "common/base/units.h"

namespace dims::client {
namespace {

constexpr std::uint32_t kGroups =
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
constexpr std::size_t kMessagesBytes = 64 * 1024;
constexpr int kAnswerWithinMs = 1000;  // of the kernel, to a question about a route

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

int open_netlink(std::uint32_t groups) {
  const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return -1;
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

template <typename Header>
bool take_header(ByteView data, Header& header) {
  if (data.size() < sizeof header) return false;
  std::memcpy(&header, data.data(), sizeof header);
  return true;
}

ByteView after(ByteView data, std::size_t bytes) {
  return data.subspan(std::min<std::size_t>(data.size(), (bytes + 3) & ~std::size_t{3}));
}

// Calls each(header, payload) for every whole message.
template <typename Each>
void each_message(ByteView data, Each&& each) {
  nlmsghdr header{};
  while (take_header(data, header) && header.nlmsg_len >= sizeof header &&
         header.nlmsg_len <= data.size()) {
    each(header, data.subspan(sizeof header, header.nlmsg_len - sizeof header));
    data = after(data, header.nlmsg_len);
  }
}

// Calls each(type, value) for every attribute.
template <typename Each>
void each_attribute(ByteView data, Each&& each) {
  rtattr header{};
  while (take_header(data, header) && header.rta_len >= sizeof header &&
         header.rta_len <= data.size()) {
    each(header.rta_type, data.subspan(sizeof header, header.rta_len - sizeof header));
    data = after(data, header.rta_len);
  }
}

std::string address_text(int family, ByteView value) {
  if (value.size() != (family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr))) return {};
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (::inet_ntop(family, value.data(), text.data(), text.size()) == nullptr) return {};
  return text.data();
}

void note_link(ByteView payload, bool removed, NetworkChange& change) {
  ifinfomsg link{};
  if (!take_header(payload, link)) return;
  const bool runs = (link.ifi_flags & IFF_UP) != 0 && (link.ifi_flags & IFF_RUNNING) != 0;
  if (removed || !runs) change.links_down.push_back(static_cast<unsigned>(link.ifi_index));
}

void note_address_gone(ByteView payload, NetworkChange& change) {
  ifaddrmsg message{};
  if (!take_header(payload, message)) return;
  std::string local, address;
  each_attribute(after(payload, sizeof message), [&](unsigned short type, ByteView value) {
    if (type == IFA_LOCAL) local = address_text(message.ifa_family, value);
    if (type == IFA_ADDRESS) address = address_text(message.ifa_family, value);
  });
  change.addresses_gone.push_back(local.empty() ? address : local);
}

void note(const nlmsghdr& header, ByteView payload, NetworkChange& change) {
  if (header.nlmsg_type == RTM_NEWLINK || header.nlmsg_type == RTM_DELLINK)
    note_link(payload, header.nlmsg_type == RTM_DELLINK, change);
  if (header.nlmsg_type == RTM_DELADDR) note_address_gone(payload, change);
}

// The question for the route to an address; empty if it is none.
Bytes route_question(const std::string& address) {
  std::array<std::uint8_t, sizeof(in6_addr)> number{};
  int family = AF_INET;
  std::size_t bytes = sizeof(in_addr);
  if (::inet_pton(AF_INET, address.c_str(), number.data()) != 1) {
    family = AF_INET6;
    bytes = sizeof(in6_addr);
    // Without the name of a link behind a '%'.
    if (::inet_pton(AF_INET6, address.substr(0, address.find('%')).c_str(), number.data()) != 1)
      return {};
  }
  struct Question {
    nlmsghdr header;
    rtmsg route;
    rtattr destination;
  } question{};
  static_assert(sizeof(Question) == sizeof(nlmsghdr) + sizeof(rtmsg) + sizeof(rtattr));
  question.header.nlmsg_len = static_cast<std::uint32_t>(sizeof question + bytes);
  question.header.nlmsg_type = RTM_GETROUTE;
  question.header.nlmsg_flags = NLM_F_REQUEST;
  question.route.rtm_family = static_cast<unsigned char>(family);
  question.route.rtm_dst_len = static_cast<unsigned char>(bytes * 8);
  question.destination.rta_type = RTA_DST;
  question.destination.rta_len = static_cast<unsigned short>(sizeof(rtattr) + bytes);
  Bytes out(sizeof question + bytes);
  std::memcpy(out.data(), &question, sizeof question);
  std::memcpy(out.data() + sizeof question, number.data(), bytes);
  return out;
}

std::optional<NetworkWay> way_of(ByteView answer) {
  std::optional<NetworkWay> way;
  each_message(answer, [&](const nlmsghdr& header, ByteView payload) {
    rtmsg route{};
    if (header.nlmsg_type != RTM_NEWROUTE || !take_header(payload, route)) return;
    if (route.rtm_type != RTN_UNICAST && route.rtm_type != RTN_LOCAL) return;
    way.emplace();
    each_attribute(after(payload, sizeof route), [&](unsigned short type, ByteView value) {
      if (type == RTA_PREFSRC) way->source = address_text(route.rtm_family, value);
      if (type == RTA_GATEWAY) way->gateway = address_text(route.rtm_family, value);
      if (type == RTA_OIF && value.size() == sizeof way->link)
        std::memcpy(&way->link, value.data(), sizeof way->link);
    });
  });
  return way;
}

class RtnetlinkWatch final : public NetworkWatch {
 public:
  RtnetlinkWatch() : news_(open_netlink(kGroups)), stop_(::eventfd(0, EFD_CLOEXEC)) {}
  bool works() const { return news_.get() >= 0 && stop_.get() >= 0; }

  Woken next(std::optional<std::chrono::milliseconds> longest, NetworkChange& change) override {
    std::array<pollfd, 2> ready{
        {{.fd = news_.get(), .events = POLLIN, .revents = 0}, {stop_.get(), POLLIN, 0}}};
    const int limit = longest ? static_cast<int>(longest->count()) : -1;
    for (;;) {
      const int found = ::poll(ready.data(), ready.size(), limit);
      if (found < 0 && errno == EINTR) continue;
      if (found < 0 || ready[1].revents != 0) return Woken::kStopped;
      if (found == 0) return Woken::kQuiet;
      const ssize_t got = ::recv(news_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got < 0 && errno != ENOBUFS) return Woken::kStopped;
      if (got < 0) {
        change.overrun = true;
      } else {
        each_message(
            ByteView(buffer_).first(static_cast<std::size_t>(got)),
            [&](const nlmsghdr& header, ByteView payload) { note(header, payload, change); });
      }
      return Woken::kChanged;
    }
  }

  void stop() override {
    const std::uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
  }

  std::optional<NetworkWay> way_to(const std::string& address) override {
    const Bytes question = route_question(address);
    if (question.empty()) return std::nullopt;
    const Fd fd(open_netlink(0));
    if (fd.get() < 0 || ::send(fd.get(), question.data(), question.size(), 0) < 0)
      return std::nullopt;
    pollfd ready{fd.get(), POLLIN, 0};
    if (::poll(&ready, 1, kAnswerWithinMs) != 1) return std::nullopt;
    std::array<std::uint8_t, 4096> answer{};
    const ssize_t got = ::recv(fd.get(), answer.data(), answer.size(), 0);
    if (got <= 0) return std::nullopt;
    return way_of(ByteView(answer).first(static_cast<std::size_t>(got)));
  }

 private:
  const Fd news_, stop_;
  Bytes buffer_ = Bytes(kMessagesBytes);
};

}  // namespace

std::string to_string(const NetworkWay& way) {
  std::array<char, IF_NAMESIZE> name{};
  const bool named = ::if_indextoname(way.link, name.data()) != nullptr;
  std::string text =
      way.source + " on " + (named ? name.data() : "link " + std::to_string(way.link));
  if (!way.gateway.empty()) text += " by " + way.gateway;
  return text;
}

std::shared_ptr<NetworkWatch> system_network_watch() {
  auto watch = std::make_shared<RtnetlinkWatch>();
  if (watch->works()) return watch;
  spdlog::warn("changes of this host's network are not seen: {}", std::strerror(errno));
  return nullptr;
}

}  // namespace dims::client
