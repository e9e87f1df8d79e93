#include "common/client/roaming.h"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace dims::client {
namespace {

// A burst that never ends is looked at so often.
constexpr int kBurstMax = 32;
// Addresses for documentation: asked for only to learn where packets to far away would leave.
constexpr const char* kFarAway[] = {"192.0.2.1", "2001:db8::1"};

template <typename T>
bool contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

}  // namespace

std::string address_of_peer(const std::string& peer) {
  const bool v6 = peer.starts_with("ipv6:");
  if (!v6 && !peer.starts_with("ipv4:")) return {};
  std::string address = peer.substr(5, peer.rfind(':') - 5);
  if (!v6) return address;
  replace_all(address, "%5B", "[");
  replace_all(address, "%5D", "]");
  replace_all(address, "%25", "%");
  if (address.size() >= 2 && address.front() == '[' && address.back() == ']')
    address = address.substr(1, address.size() - 2);
  return address;
}

Roaming::Roaming(Parts parts)
    : parts_(std::move(parts)), way_(way_now({})), thread_([this] { run(); }) {}

Roaming::~Roaming() { stop(); }

void Roaming::stop() {
  parts_.network->stop();
  if (thread_.joinable()) thread_.join();
}

// Where packets leave for the server; as long as it has no number, for far away.
std::optional<NetworkWay> Roaming::way_now(const std::string& peer) {
  if (!peer.empty()) return parts_.network->way_to(peer);
  auto way = parts_.network->way_to(parts_.host);
  for (const char* address : kFarAway) {
    if (!way) way = parts_.network->way_to(address);
  }
  return way;
}

void Roaming::reached(const std::string& peer) {
  const std::string address = address_of_peer(peer);
  if (address.empty()) return;
  const auto way = way_now(address);
  const std::lock_guard lock(mutex_);
  peer_ = address;
  way_ = way;
  lost_ = false;
}

RoamingCounts Roaming::counts() {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void Roaming::run() {
  using Woken = NetworkWatch::Woken;
  for (;;) {
    NetworkChange change;
    Woken woken = parts_.network->next(std::nullopt, change);
    for (int more = 0; woken == Woken::kChanged && more < kBurstMax; ++more)
      woken = parts_.network->next(parts_.settle, change);
    if (woken == Woken::kStopped) return;
    settled(change);
  }
}

void Roaming::settled(const NetworkChange& change) {
  std::unique_lock lock(mutex_);
  ++counts_.changes;
  if (way_ && (change.overrun || contains(change.addresses_gone, way_->source) ||
               contains(change.links_down, way_->link))) {
    lost_ = true;
  }
  const std::string peer = peer_;
  lock.unlock();
  const auto now = way_now(peer);
  const bool connected = parts_.connected();
  lock.lock();
  // No way now: a connection may survive that; what comes next decides.
  if (!now || peer != peer_) return;
  const bool first = !way_;
  if (!first && *now == *way_ && !lost_) return;
  std::string why;
  if (first)
    why = "there is a way now: " + to_string(*now);
  else if (*now == *way_)
    why = to_string(*now) + " was gone for a while";
  else
    why = to_string(*now) + " instead of " + to_string(*way_);
  way_ = now;
  lost_ = false;
  if (first && connected) return;
  ++counts_.rebuilt;
  counts_.because = why;
  lock.unlock();
  spdlog::warn("the network has changed ({}): connecting anew", why);
  parts_.rebuild(why);
}

}  // namespace dims::client
