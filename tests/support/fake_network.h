// FakeNetwork: a host's network that a test changes by hand. Threads: thread-safe. A burst is over
// as soon as nothing more was announced: no time passes.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "common/client/network_watch.h"

namespace dims::test {

class FakeNetwork : public client::NetworkWatch {
 public:
  Woken next(std::optional<std::chrono::milliseconds> longest,
             client::NetworkChange& change) override {
    std::unique_lock lock(mutex_);
    if (!longest) changed_.wait(lock, [&] { return stopped_ || !news_.empty(); });
    if (stopped_) return Woken::kStopped;
    if (news_.empty()) return Woken::kQuiet;
    const client::NetworkChange& news = news_.front();
    change.addresses_gone.insert(change.addresses_gone.end(), news.addresses_gone.begin(),
                                 news.addresses_gone.end());
    change.links_down.insert(change.links_down.end(), news.links_down.begin(),
                             news.links_down.end());
    change.overrun = change.overrun || news.overrun;
    news_.pop_front();
    return Woken::kChanged;
  }
  void stop() override {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  std::optional<client::NetworkWay> way_to(const std::string& address) override {
    const std::lock_guard lock(mutex_);
    const auto own = ways_.find(address);
    return own != ways_.end() ? own->second : way_;
  }

  // To everywhere, but where another is set. Nobody is told.
  void set_way(std::optional<client::NetworkWay> way) {
    const std::lock_guard lock(mutex_);
    way_ = std::move(way);
  }
  void set_way_to(const std::string& address, std::optional<client::NetworkWay> way) {
    const std::lock_guard lock(mutex_);
    ways_[address] = std::move(way);
  }
  // One burst.
  void announce(const std::vector<client::NetworkChange>& burst) {
    const std::lock_guard lock(mutex_);
    news_.insert(news_.end(), burst.begin(), burst.end());
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<client::NetworkChange> news_;
  std::optional<client::NetworkWay> way_;
  std::map<std::string, std::optional<client::NetworkWay>> ways_;
  bool stopped_ = false;
};

}  // namespace dims::test
