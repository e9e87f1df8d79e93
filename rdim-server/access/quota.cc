#include "rdim-server/access/quota.h"

namespace dims::access {
namespace {

constexpr std::chrono::nanoseconds kMinute = std::chrono::minutes(1);

}  // namespace

std::uint64_t QuotaMeter::count(Window& window, std::chrono::nanoseconds length) const {
  const auto now = clock_.boottime();
  const auto span = static_cast<std::uint64_t>(now / length);
  if (span != window.span) {
    window.before = span == window.span + 1 ? window.now : 0;
    window.now = 0;
    window.span = span;
  }
  // In thousandths of the span, so that nothing overflows.
  const auto left = static_cast<std::uint64_t>((length - now % length) / (length / 1000));
  return window.now + window.before / 1000 * left + window.before % 1000 * left / 1000;
}

Status QuotaMeter::request(const trust::UserId& user, std::uint32_t limit_per_minute) {
  const std::lock_guard lock(mutex_);
  Window& window = meters_[user];
  if (limit_per_minute != 0 && count(window, kMinute) >= limit_per_minute) {
    return make_error(ErrorCode::kResourceExhausted,
                      "more than " + std::to_string(limit_per_minute) + " requests in a minute",
                      "wait a minute, or ask your administrator for more");
  }
  (void)count(window, kMinute);
  ++window.now;
  return ok_status();
}

std::uint32_t QuotaMeter::requests_last_minute(const trust::UserId& user) {
  const std::lock_guard lock(mutex_);
  return static_cast<std::uint32_t>(count(meters_[user], kMinute));
}

}  // namespace dims::access
