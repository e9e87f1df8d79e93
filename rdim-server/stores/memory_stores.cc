#include "rdim-server/stores/memory_stores.h"

namespace dims::stores {

using contract::PutOutcome;
using contract::RefValue;

std::uint64_t MemoryObjectStore::now_s() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
}

Result<std::vector<PutOutcome>> MemoryObjectStore::put(std::span<const PutItem> items) {
  DIMS_TRY(check_objects(items, now_s()));
  std::lock_guard lock(mutex_);
  std::vector<PutOutcome> outcomes;
  for (const PutItem& item : items) {
    const auto found = entries_.find(item.key);
    if (found != entries_.end() && !found->second.damaged) {
      found->second.touched_s = now_s();
      outcomes.push_back(PutOutcome::kPresent);
      continue;
    }
    entries_[item.key] = {Bytes(item.object.begin(), item.object.end()), now_s(), false};
    outcomes.push_back(PutOutcome::kStored);
  }
  return outcomes;
}

Result<Bytes> MemoryObjectStore::get_one(const ObjectKey& key) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return absent_error(key);
  if (!(format::object_id(found->second.object) == key.id)) {
    found->second.damaged = true;
    return make_error(ErrorCode::kCorrupt, "object " + key.id.short_hex() + " is damaged");
  }
  return found->second.object;
}

void MemoryObjectStore::get(std::span<const ObjectKey> keys, const GetSink& sink) {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (!sink(i, get_one(keys[i]))) return;
  }
}

Result<std::vector<bool>> MemoryObjectStore::has(std::span<const ObjectKey> keys) {
  std::lock_guard lock(mutex_);
  std::vector<bool> out;
  for (const ObjectKey& key : keys) {
    const auto found = entries_.find(key);
    out.push_back(found != entries_.end() && !found->second.damaged);
  }
  return out;
}

Status MemoryObjectStore::touch(std::span<const ObjectKey> keys) {
  std::lock_guard lock(mutex_);
  for (const ObjectKey& key : keys) {
    const auto found = entries_.find(key);
    if (found != entries_.end()) found->second.touched_s = now_s();
  }
  return ok_status();
}

Status MemoryObjectStore::remove(const ObjectKey& key) {
  std::lock_guard lock(mutex_);
  return entries_.erase(key) != 0 ? ok_status() : Status(absent_error(key));
}

Result<std::vector<ObjectKey>> MemoryObjectStore::list(const std::optional<ObjectKey>& after,
                                                       std::size_t limit) {
  std::lock_guard lock(mutex_);
  std::vector<ObjectKey> out;
  auto it = after ? entries_.upper_bound(*after) : entries_.begin();
  for (; it != entries_.end() && out.size() < limit; ++it) {
    if (!it->second.damaged) out.push_back(it->first);
  }
  return out;
}

Result<contract::StoreInfo> MemoryObjectStore::info() {
  std::lock_guard lock(mutex_);
  contract::StoreInfo out;
  for (const auto& [key, entry] : entries_) {
    if (entry.damaged) continue;
    ++out.objects;
    out.object_bytes += entry.object.size();
  }
  out.disk_bytes = out.object_bytes;
  return out;
}

void MemoryObjectStore::damage(const ObjectKey& key) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found != entries_.end()) found->second.object.back() ^= 1;
}

Result<std::optional<RefValue>> MemoryRefStore::get(const std::string& key) {
  std::lock_guard lock(mutex_);
  const auto found = rows_.find(key);
  if (found == rows_.end()) return std::optional<RefValue>{};
  return std::optional<RefValue>(found->second);
}

Result<std::uint64_t> MemoryRefStore::put(const std::string& key, ByteView value,
                                          std::uint64_t expected_revision) {
  std::lock_guard lock(mutex_);
  const auto found = rows_.find(key);
  if ((found == rows_.end() ? 0 : found->second.revision) != expected_revision) {
    return make_error(ErrorCode::kConflict,
                      "the record '" + key + "' was changed by somebody else");
  }
  rows_[key] = {Bytes(value.begin(), value.end()), next_revision_};
  return next_revision_++;
}

Status MemoryRefStore::remove(const std::string& key, std::uint64_t expected_revision) {
  std::lock_guard lock(mutex_);
  const auto found = rows_.find(key);
  if ((found == rows_.end() ? 0 : found->second.revision) != expected_revision) {
    return make_error(ErrorCode::kConflict,
                      "the record '" + key + "' was changed by somebody else");
  }
  if (found != rows_.end()) rows_.erase(found);
  return ok_status();
}

Result<std::vector<std::pair<std::string, RefValue>>> MemoryRefStore::list(
    const std::string& prefix, const std::string& after, std::size_t limit) {
  std::lock_guard lock(mutex_);
  std::vector<std::pair<std::string, RefValue>> out;
  for (auto it = rows_.lower_bound(std::max(prefix, after));
       it != rows_.end() && out.size() < limit && it->first.starts_with(prefix); ++it) {
    if (it->first > after) out.emplace_back(it->first, it->second);
  }
  return out;
}

}  // namespace dims::stores
