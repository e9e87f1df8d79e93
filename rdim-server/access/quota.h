// Quota: how much somebody asks: requests a minute. (How many images he has and how many bytes are
// stored for him is counted in services.)
//
// Threads: thread-safe. Ownership: the clock outlives it. Errors: kResourceExhausted, saying when
// to try again. Durable: nothing; a restart forgives.
#pragma once

#include <map>
#include <mutex>

#include "common/base/clock.h"
#include "common/trust/org_state.h"

namespace dims::access {

class QuotaMeter {
 public:
  explicit QuotaMeter(Clock& clock) : clock_(clock) {}

  // One request more; limit 0: counted only.
  Status request(const trust::UserId& user, std::uint32_t limit_per_minute);
  std::uint32_t requests_last_minute(const trust::UserId& user);

 private:
  // Two neighbouring spans, weighed: what was there a moment ago fades instead of vanishing.
  struct Window {
    std::uint64_t span = 0;  // its number since boot
    std::uint64_t now = 0, before = 0;
  };
  std::uint64_t count(Window& window, std::chrono::nanoseconds length) const;

  Clock& clock_;
  std::mutex mutex_;
  std::map<trust::UserId, Window> meters_;
};

}  // namespace dims::access
