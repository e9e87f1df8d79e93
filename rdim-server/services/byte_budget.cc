#include "rdim-server/services/byte_budget.h"

namespace dims::services {

bool ByteBudget::room_or_wake(std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  if (used_ < max_bytes_) return true;
  waiting_.push_back(std::move(wake));
  return false;
}

void ByteBudget::take(std::uint64_t bytes) {
  std::lock_guard lock(mutex_);
  used_ += bytes;
}

void ByteBudget::give_back(std::uint64_t bytes) {
  std::vector<std::function<void()>> wake;
  {
    std::lock_guard lock(mutex_);
    used_ -= bytes;
    if (used_ < max_bytes_) wake.swap(waiting_);
  }
  for (const auto& call : wake) call();
}

}  // namespace dims::services
