// EventHub: hands announcements to whoever watches.
//
// Threads: thread-safe; wake callbacks run on the announcing thread and must not block or call
// back. Ownership: a Subscription may outlive the hub. Memory: bounded, for an event replaces an
// older one of its kind and image that was not taken yet; a slow watcher sees the newest. Errors:
// none.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "common/contract/remote.h"

namespace dims::catalog {

class Subscription {
 public:
  std::optional<contract::ServerEvent> take();
  // No wake-up begins after this returns.
  void stop();

 private:
  friend class EventHub;
  std::mutex mutex_;
  std::set<ImageId> images_;  // empty: all
  SessionId session_;
  std::function<void()> wake_;  // empty: stopped
  std::deque<contract::ServerEvent> waiting_;
};

class EventHub {
 public:
  // images empty: of all images. session: whose lease events are wanted; zero: everybody's.
  std::shared_ptr<Subscription> subscribe(const std::vector<ImageId>& images,
                                          const SessionId& session, std::function<void()> wake);
  // only_for: the session that a lease event concerns; nullopt: everybody.
  void announce(const contract::ServerEvent& event,
                const std::optional<SessionId>& only_for = std::nullopt);

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<Subscription>> subscriptions_;
};

}  // namespace dims::catalog
