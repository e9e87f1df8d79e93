#include "rdim-server/catalog/events.h"

#include <algorithm>

namespace dims::catalog {

std::optional<contract::ServerEvent> Subscription::take() {
  std::lock_guard lock(mutex_);
  if (waiting_.empty()) return std::nullopt;
  contract::ServerEvent event = std::move(waiting_.front());
  waiting_.pop_front();
  return event;
}

void Subscription::stop() {
  std::lock_guard lock(mutex_);
  wake_ = nullptr;
  waiting_.clear();
}

std::shared_ptr<Subscription> EventHub::subscribe(const std::vector<ImageId>& images,
                                                  const SessionId& session,
                                                  std::function<void()> wake) {
  auto subscription = std::make_shared<Subscription>();
  subscription->images_.insert(images.begin(), images.end());
  subscription->session_ = session;
  subscription->wake_ = std::move(wake);
  std::lock_guard lock(mutex_);
  std::erase_if(subscriptions_, [](const auto& weak) { return weak.expired(); });
  subscriptions_.push_back(subscription);
  return subscription;
}

void EventHub::announce(const contract::ServerEvent& event,
                        const std::optional<SessionId>& only_for) {
  std::vector<std::shared_ptr<Subscription>> all;
  {
    std::lock_guard lock(mutex_);
    for (const auto& weak : subscriptions_) {
      if (auto subscription = weak.lock()) all.push_back(std::move(subscription));
    }
  }
  for (const auto& subscription : all) {
    std::lock_guard lock(subscription->mutex_);
    if (!subscription->wake_) continue;
    if (!subscription->images_.empty() && !subscription->images_.contains(event.image)) continue;
    const bool everybody = !only_for || subscription->session_.is_zero();
    if (!everybody && !(subscription->session_ == *only_for)) continue;
    auto& waiting = subscription->waiting_;
    const auto same = std::find_if(waiting.begin(), waiting.end(), [&](const auto& other) {
      return other.kind == event.kind && other.image == event.image;
    });
    if (same != waiting.end()) waiting.erase(same);
    waiting.push_back(event);
    subscription->wake_();
  }
}

}  // namespace dims::catalog
