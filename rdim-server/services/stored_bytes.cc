#include "rdim-server/services/stored_bytes.h"

namespace dims::services {
namespace {

constexpr std::size_t kRowsAtOnce = 1024;
constexpr std::chrono::nanoseconds kMoment = std::chrono::seconds(5);

}  // namespace

Result<std::uint64_t> StoredBytes::count(const DomainId& domain) {
  std::uint64_t bytes = 0;
  std::optional<format::ObjectKey> after = format::ObjectKey{domain, ObjectId{}};
  for (;;) {
    DIMS_ASSIGN(const auto rows, store_.list_rows(after, kRowsAtOnce));
    for (const contract::ObjectRow& row : rows) {
      if (!(row.key.domain == domain)) return bytes;
      bytes += row.object_bytes;
      after = row.key;
    }
    if (rows.size() < kRowsAtOnce) return bytes;
  }
}

Result<std::uint64_t> StoredBytes::of(const DomainId& domain, Look look) {
  const auto known = [&](bool however_old) -> std::optional<std::uint64_t> {
    const std::lock_guard lock(mutex_);
    const auto found = counts_.find(domain);
    if (found == counts_.end()) return std::nullopt;
    const bool fresh = clock_.boottime() - found->second.at < kMoment;
    if (look == Look::kAnew && !fresh && !however_old) return std::nullopt;
    return found->second.bytes;
  };
  if (const auto bytes = known(false)) return *bytes;
  const std::unique_lock one(counting_, std::try_to_lock);
  // Somebody counts: waiting here would take a thread from everybody's reads.
  if (!one.owns_lock()) return known(true).value_or(0);
  if (const auto bytes = known(false)) return *bytes;
  DIMS_ASSIGN(const std::uint64_t bytes, count(domain));
  const std::lock_guard lock(mutex_);
  counts_[domain] = {bytes, clock_.boottime()};
  return bytes;
}

void StoredBytes::added(const DomainId& domain, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find(domain);
  if (found != counts_.end()) found->second.bytes += bytes;
}

}  // namespace dims::services
