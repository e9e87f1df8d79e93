#include "rdim-server/access/quota.h"

#include "common/base/parse.h"

namespace dims::access {
namespace {

constexpr std::chrono::nanoseconds kMinute = std::chrono::minutes(1);
constexpr std::chrono::nanoseconds kDay = std::chrono::hours(24);

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
  Window& window = meters_[user].requests;
  if (limit_per_minute != 0 && count(window, kMinute) >= limit_per_minute) {
    return make_error(ErrorCode::kResourceExhausted,
                      "more than " + std::to_string(limit_per_minute) + " requests in a minute",
                      "wait a minute, or ask your administrator for more");
  }
  (void)count(window, kMinute);
  ++window.now;
  return ok_status();
}

Status QuotaMeter::may_send(const trust::UserId& user, std::uint64_t limit_per_day) {
  const std::lock_guard lock(mutex_);
  if (limit_per_day == 0 || count(meters_[user].bytes, kDay) < limit_per_day) return ok_status();
  return make_error(ErrorCode::kResourceExhausted,
                    "more than " + format_size(limit_per_day) + " were sent in a day",
                    "go on tomorrow, or ask your administrator for more");
}

void QuotaMeter::sent(const trust::UserId& user, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  Window& window = meters_[user].bytes;
  (void)count(window, kDay);
  window.now += bytes;
}

std::uint32_t QuotaMeter::requests_last_minute(const trust::UserId& user) {
  const std::lock_guard lock(mutex_);
  return static_cast<std::uint32_t>(count(meters_[user].requests, kMinute));
}

std::uint64_t QuotaMeter::bytes_today(const trust::UserId& user) {
  const std::lock_guard lock(mutex_);
  return count(meters_[user].bytes, kDay);
}

}  // namespace dims::access
