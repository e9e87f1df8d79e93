#include "rdim-server/stores/memory_stores.h"

#include <set>

namespace dims::stores {

using contract::PutOutcome;
using contract::RefValue;

std::uint64_t MemoryObjectStore::now_s() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
}

void MemoryObjectStore::renew(MetaRow& row) {
  if (must_touch(row, now_s(), touch_floor_s_)) row.touched_s = std::max(now_s(), touch_floor_s_);
}

Result<std::vector<PutOutcome>> MemoryObjectStore::put(std::span<const PutItem> items) {
  DIMS_ASSIGN(const std::vector<MetaRow> rows, check_objects(items, now_s()));
  std::lock_guard lock(mutex_);
  std::vector<PutOutcome> outcomes;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const PutItem& item = items[i];
    const auto found = entries_.find(item.key);
    if (found != entries_.end() && !found->second.damaged) {
      renew(found->second.row);
      outcomes.push_back(PutOutcome::kPresent);
      continue;
    }
    Entry& entry = entries_[item.key];
    entry = {Bytes(item.object.begin(), item.object.end()), rows[i], false};
    entry.row.touched_s = std::max(now_s(), touch_floor_s_);
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
    if (found != entries_.end()) renew(found->second.row);
  }
  return ok_status();
}

Result<std::vector<bool>> MemoryObjectStore::touch_present(std::span<const ObjectKey> keys) {
  std::lock_guard lock(mutex_);
  std::vector<bool> out;
  for (const ObjectKey& key : keys) {
    const auto found = entries_.find(key);
    out.push_back(found != entries_.end() && !found->second.damaged);
    if (out.back()) renew(found->second.row);
  }
  return out;
}

std::uint64_t MemoryObjectStore::touch_floor() {
  std::lock_guard lock(mutex_);
  return touch_floor_s_;
}

Status MemoryObjectStore::set_touch_floor(std::uint64_t seconds) {
  std::lock_guard lock(mutex_);
  touch_floor_s_ = std::max(touch_floor_s_, seconds);
  return ok_status();
}

Result<std::vector<contract::ObjectRow>> MemoryObjectStore::list_rows(
    const std::optional<ObjectKey>& after, std::size_t limit) {
  std::lock_guard lock(mutex_);
  std::vector<contract::ObjectRow> out;
  auto it = after ? entries_.upper_bound(*after) : entries_.begin();
  for (; it != entries_.end() && out.size() < limit; ++it) {
    if (!it->second.damaged) out.push_back(object_row(it->first, it->second.row));
  }
  return out;
}

Result<std::vector<contract::RemoveOutcome>> MemoryObjectStore::remove_untouched(
    std::span<const ObjectKey> keys, std::uint64_t touched_before_s) {
  std::lock_guard lock(mutex_);
  std::vector<contract::RemoveOutcome> out;
  for (const ObjectKey& key : keys) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) {
      out.push_back(contract::RemoveOutcome::kAbsent);
    } else if (found->second.row.touched_s >= touched_before_s) {
      out.push_back(contract::RemoveOutcome::kTouched);
    } else {
      entries_.erase(found);
      out.push_back(contract::RemoveOutcome::kRemoved);
    }
  }
  return out;
}

Result<contract::AuditPage> MemoryObjectStore::audit(const std::optional<ObjectKey>& after,
                                                     std::size_t limit, std::uint64_t bytes_max,
                                                     bool mend) {
  std::lock_guard lock(mutex_);
  contract::AuditPage page;
  auto it = after ? entries_.upper_bound(*after) : entries_.begin();
  while (it != entries_.end() && page.objects < limit && page.bytes < bytes_max) {
    page.last = it->first;
    ++page.objects;
    page.bytes += it->second.object.size();
    auto finding = audit_object(it->first, it->second.row, it->second.object);
    const bool stray = it->second.damaged;
    if (stray) {
      finding = contract::StoreFinding{contract::StoreFinding::Kind::kStrayBytes, it->first,
                                       "bytes of a damaged object", false};
    }
    if (finding) finding->mended = mend;
    if (finding) page.findings.push_back(*finding);
    it = finding && mend ? entries_.erase(it) : std::next(it);
  }
  if (it == entries_.end()) page.last.reset();
  return page;
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

void MemoryObjectStore::misdirect(const ObjectKey& key, ByteView bytes) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found != entries_.end()) found->second.object.assign(bytes.begin(), bytes.end());
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

Status MemoryRefStore::put_all(const std::vector<contract::RefPut>& rows) {
  std::lock_guard lock(mutex_);
  std::set<std::string> keys;
  for (const contract::RefPut& row : rows) {
    if (!keys.insert(row.key).second) {
      return make_error(ErrorCode::kInvalidArgument,
                        "the record '" + row.key + "' twice in one step");
    }
    const auto found = rows_.find(row.key);
    if ((found == rows_.end() ? 0 : found->second.revision) != row.expected_revision) {
      return make_error(ErrorCode::kConflict,
                        "the record '" + row.key + "' was changed by somebody else");
    }
  }
  for (const contract::RefPut& row : rows) rows_[row.key] = {row.value, next_revision_++};
  return ok_status();
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
