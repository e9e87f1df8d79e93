#include "rdim-server/access/tokens.h"

#include <algorithm>

namespace dims::access {
namespace {

constexpr std::size_t kTokensMax = 65536;

}  // namespace

Tokens::Issued Tokens::issue(Caller caller, std::chrono::seconds lasts, Random& random) {
  Issued out{random.id<trust::SessionToken>(), lasts};
  const auto now = clock_.boottime();
  const std::lock_guard lock(mutex_);
  if (entries_.size() >= kTokensMax) drop_old(now);
  entries_[trust::token_hash(out.token)] = {std::move(caller), now + lasts, next_order_++};
  return out;
}

void Tokens::drop_old(std::chrono::nanoseconds now) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.second.ends <= now; });
  // Still full: the older half logs in again.
  if (entries_.size() < kTokensMax) return;
  std::vector<std::uint64_t> orders;
  for (const auto& [hash, entry] : entries_) orders.push_back(entry.order);
  auto middle = orders.begin() + static_cast<std::ptrdiff_t>(orders.size() / 2);
  std::nth_element(orders.begin(), middle, orders.end());
  std::erase_if(entries_, [&](const auto& entry) { return entry.second.order < *middle; });
}

std::optional<Caller> Tokens::find(const trust::SessionToken& token) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(trust::token_hash(token));
  if (found == entries_.end()) return std::nullopt;
  if (found->second.ends <= clock_.boottime()) {
    entries_.erase(found);
    return std::nullopt;
  }
  return found->second.caller;
}

void Tokens::end(const trust::SessionToken& token) {
  const std::lock_guard lock(mutex_);
  entries_.erase(trust::token_hash(token));
}

}  // namespace dims::access
