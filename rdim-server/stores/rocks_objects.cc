#include "rdim-server/stores/rocks_objects.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <unordered_set>

#include "common/base/wire.h"
#include "rdim-server/stores/rocks_status.h"

namespace dims::stores {
namespace {

using contract::PutOutcome;

constexpr const char* kCountersKey = "counters";
constexpr std::size_t kBatchOverheadBytes =
    256;  // of one object in a batch: two rows and their heads

rocksdb::Slice slice_of(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

RocksObjectStore::RocksObjectStore(Engine& engine, Clock& clock, const StoreOptions& options)
    : engine_(engine), clock_(clock), log_bytes_max_(options.log_bytes_max) {}

std::uint64_t RocksObjectStore::now_s() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
}

Status RocksObjectStore::load_counters() {
  std::string saved;
  const rocksdb::Status status =
      engine_.db().Get(rocksdb::ReadOptions(), engine_.internal(), kCountersKey, &saved);
  if (!status.ok() && !status.IsNotFound()) return from_rocks(status, "cannot read the counters");
  if (status.ok() && saved.size() == 16) {
    Reader r(as_bytes(saved));
    objects_ = r.u64();
    object_bytes_ = r.u64();
    // From now on they are only true in memory.
    rocksdb::WriteBatch batch;
    (void)batch.Delete(engine_.internal(), kCountersKey);
    return engine_.write(batch, Durability::kSynced, "cannot write to the store");
  }
  std::unique_ptr<rocksdb::Iterator> it(engine_.db().NewIterator(scan_options(), engine_.meta()));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    if (const auto row = decode_meta(it->value().ToStringView())) {
      ++objects_;
      object_bytes_ += row->object_bytes;
    }
  }
  return check_rocks(it->status(), "cannot count the objects");
}

Status RocksObjectStore::save_counters() {
  std::lock_guard lock(write_mutex_);
  Bytes row;
  Writer w(row);
  w.u64(objects_);
  w.u64(object_bytes_);
  rocksdb::WriteBatch batch;
  (void)batch.Put(engine_.internal(), kCountersKey, slice_of(row));
  return engine_.write(batch, Durability::kSynced, "cannot write the counters");
}

Result<std::vector<std::optional<MetaRow>>> RocksObjectStore::rows_of(
    std::span<const ObjectKey> keys) {
  std::vector<std::string> names;
  names.reserve(keys.size());
  for (const ObjectKey& key : keys) names.push_back(row_key(key));
  const std::vector<rocksdb::Slice> slices(names.begin(), names.end());
  std::vector<rocksdb::PinnableSlice> values(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  engine_.db().MultiGet(rocksdb::ReadOptions(), engine_.meta(), slices.size(), slices.data(),
                        values.data(), statuses.data());
  std::vector<std::optional<MetaRow>> rows(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (statuses[i].IsNotFound()) continue;
    if (!statuses[i].ok()) return from_rocks(statuses[i], "cannot look up an object");
    rows[i] = decode_meta(values[i].ToStringView());
  }
  return rows;
}

Durability RocksObjectStore::durability_for(std::uint64_t bytes) {
  bytes_since_barrier_ += bytes;
  return bytes_since_barrier_ > log_bytes_max_ ? Durability::kBypassed : Durability::kLogged;
}

Durability RocksObjectStore::durability_of_rows(std::uint64_t bytes) {
  const Durability durability = durability_for(bytes);
  return engine_.holds_bypassed() ? Durability::kBypassed : durability;
}

Result<std::vector<PutOutcome>> RocksObjectStore::put(std::span<const PutItem> items) {
  if (items.empty()) return std::vector<PutOutcome>{};
  const std::uint64_t now = now_s();
  DIMS_ASSIGN(std::vector<MetaRow> fresh, check_objects(items, now));
  std::vector<ObjectKey> keys;
  keys.reserve(items.size());
  std::size_t bytes = 0;
  for (const PutItem& item : items) {
    keys.push_back(item.key);
    bytes += item.object.size() + kBatchOverheadBytes;
  }
  std::unique_lock lock(write_mutex_);
  DIMS_ASSIGN(const auto rows, rows_of(keys));
  rocksdb::WriteBatch batch(bytes);
  std::vector<PutOutcome> outcomes(items.size(), PutOutcome::kPresent);
  std::unordered_set<ObjectKey, format::ObjectKeyHash> in_batch;
  std::vector<std::size_t> present;
  std::uint64_t stored = 0, stored_bytes = 0;
  bool renewed = false;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::string name = row_key(keys[i]);
    fresh[i].touched_s = std::max(now, touch_floor_s_.load());
    if (rows[i]) {
      present.push_back(i);
      if (!needs_touch(*rows[i], now)) continue;
      renewed = true;
      (void)batch.Put(engine_.meta(), name, encode_meta(fresh[i]));
      continue;
    }
    if (!in_batch.insert(keys[i]).second) continue;
    outcomes[i] = PutOutcome::kStored;
    ++stored;
    stored_bytes += items[i].object.size();
    (void)batch.Put(engine_.objects(), name, slice_of(items[i].object));
    (void)batch.Put(engine_.meta(), name, encode_meta(fresh[i]));
  }
  if (batch.Count() != 0) {
    if (stored != 0) DIMS_TRY(engine_.check_space());
    const std::uint64_t size = batch.GetDataSize();
    DIMS_TRY(engine_.write(batch, renewed ? durability_of_rows(size) : durability_for(size),
                           "cannot store objects in " + engine_.folder()));
    objects_ += stored;
    object_bytes_ += stored_bytes;
  }
  lock.unlock();
  if (!present.empty()) DIMS_TRY(heal(items, fresh, present));
  return outcomes;
}

Status RocksObjectStore::heal(std::span<const PutItem> items, const std::vector<MetaRow>& fresh,
                              const std::vector<std::size_t>& present) {
  std::vector<std::size_t> broken;
  std::vector<ObjectKey> keys;
  for (const std::size_t i : present) {
    rocksdb::PinnableSlice value;
    const rocksdb::Status status =
        engine_.db().Get(unchecked_options(), engine_.objects(), row_key(items[i].key), &value);
    if (status.ok() && value == slice_of(items[i].object)) continue;
    spdlog::error("{}: object {} cannot be read ({}) and was put again: it is written anew",
                  engine_.folder(), items[i].key.id.hex(),
                  status.ok() ? "its bytes do not have its id" : status.ToString());
    broken.push_back(i);
    keys.push_back(items[i].key);
  }
  if (broken.empty()) return ok_status();
  std::lock_guard lock(write_mutex_);
  DIMS_TRY(engine_.check_space());
  DIMS_ASSIGN(const auto rows, rows_of(keys));
  rocksdb::WriteBatch batch;
  std::unordered_set<ObjectKey, format::ObjectKeyHash> added;
  std::uint64_t added_bytes = 0;
  for (std::size_t n = 0; n < broken.size(); ++n) {
    const std::size_t i = broken[n];
    const std::string name = row_key(keys[n]);
    MetaRow row = fresh[i];
    row.touched_s = std::max(now_s(), touch_floor_s_.load());
    (void)batch.Put(engine_.objects(), name, slice_of(items[i].object));
    (void)batch.Put(engine_.meta(), name, encode_meta(row));
    if (!rows[n] && added.insert(keys[n]).second) added_bytes += items[i].object.size();
  }
  DIMS_TRY(engine_.write(batch, durability_for(batch.GetDataSize()),
                         "cannot store objects in " + engine_.folder()));
  objects_ += added.size();
  object_bytes_ += added_bytes;
  return ok_status();
}

rocksdb::Status RocksObjectStore::read_object(const ObjectKey& key, rocksdb::PinnableSlice& value) {
  value.Reset();
  const rocksdb::Status status =
      engine_.db().Get(unchecked_options(), engine_.objects(), row_key(key), &value);
  const auto* data = reinterpret_cast<const std::uint8_t*>(value.data());
  if (status.ok() && !(format::object_id({data, value.size()}) == key.id)) {
    return rocksdb::Status::Corruption("its bytes do not have its id");
  }
  return status;
}

// Since it was read somebody may have put it anew, or swept it.
rocksdb::Status RocksObjectStore::read_or_forget(const ObjectKey& key,
                                                 rocksdb::PinnableSlice& value) {
  std::lock_guard lock(write_mutex_);
  const rocksdb::Status status = read_object(key, value);
  if (!status.IsCorruption() && !status.IsNotFound()) return status;
  const auto rows = rows_of(std::span(&key, 1));
  if (!rows.ok()) return status;
  const auto& row = rows->front();
  if (status.IsNotFound() && !row) return status;
  spdlog::error("{}: object {} is {}: {}; it counts as absent", engine_.folder(), key.id.hex(),
                status.IsNotFound() ? "lost" : "damaged", status.ToString());
  // Damaged bytes go with their row: they would stop every attempt to give space back.
  rocksdb::WriteBatch batch;
  (void)batch.Delete(engine_.meta(), row_key(key));
  if (status.IsCorruption()) (void)batch.Delete(engine_.objects(), row_key(key));
  const Status written =
      engine_.write(batch, durability_for(batch.GetDataSize()), "cannot mark a damaged object");
  if (!written.ok() || !row) return status;  // it is found damaged again at the next read
  --objects_;
  object_bytes_ -= row->object_bytes;
  return status;
}

Result<Bytes> RocksObjectStore::get_one(const ObjectKey& key) {
  rocksdb::PinnableSlice value;
  rocksdb::Status status = read_object(key, value);
  if (status.IsNotFound()) {
    DIMS_ASSIGN(const auto rows, rows_of(std::span(&key, 1)));
    if (!rows.front()) return absent_error(key);
  }
  if (status.IsCorruption() || status.IsNotFound()) status = read_or_forget(key, value);
  if (status.ok()) {
    const auto* data = reinterpret_cast<const std::uint8_t*>(value.data());
    return Bytes(data, data + value.size());
  }
  if (status.IsNotFound()) return absent_error(key);
  if (!status.IsCorruption()) {
    return from_rocks(status, "cannot read object " + key.id.short_hex());
  }
  return make_error(ErrorCode::kCorrupt,
                    "object " + key.id.short_hex() + " is damaged in the server's store",
                    "whoever still has it can put it again: the store takes it then");
}

void RocksObjectStore::get(std::span<const ObjectKey> keys, const GetSink& sink) {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (!sink(i, get_one(keys[i]))) return;
  }
}

Result<std::vector<bool>> RocksObjectStore::has(std::span<const ObjectKey> keys) {
  DIMS_ASSIGN(const auto rows, rows_of(keys));
  std::vector<bool> out(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) out[i] = rows[i].has_value();
  return out;
}

bool RocksObjectStore::needs_touch(const MetaRow& row, std::uint64_t now) const {
  return must_touch(row, now, touch_floor_s_.load());
}

Result<std::vector<bool>> RocksObjectStore::touch_locked(std::span<const ObjectKey> keys) {
  const std::uint64_t now = now_s();
  DIMS_ASSIGN(const auto rows, rows_of(keys));
  rocksdb::WriteBatch batch;
  std::vector<bool> present(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    present[i] = rows[i].has_value();
    if (!rows[i] || !needs_touch(*rows[i], now)) continue;
    MetaRow row = *rows[i];
    row.touched_s = std::max(now, touch_floor_s_.load());
    (void)batch.Put(engine_.meta(), row_key(keys[i]), encode_meta(row));
  }
  if (batch.Count() == 0) return present;
  DIMS_TRY(engine_.write(batch, durability_of_rows(batch.GetDataSize()), "cannot touch objects"));
  return present;
}

Status RocksObjectStore::touch(std::span<const ObjectKey> keys) {
  DIMS_TRY(touch_present(keys));
  return ok_status();
}

Result<std::vector<bool>> RocksObjectStore::touch_present(std::span<const ObjectKey> keys) {
  // Most are absent or fresh: looking needs no lock. A floor that is set between the look and the
  // answer belongs to a mark that begins after this call.
  const std::uint64_t now = now_s();
  DIMS_ASSIGN(const auto rows, rows_of(keys));
  std::vector<bool> present(keys.size());
  std::vector<ObjectKey> stale;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    present[i] = rows[i].has_value();
    if (!rows[i] || !needs_touch(*rows[i], now)) continue;
    stale.push_back(keys[i]);
    places.push_back(i);
  }
  if (stale.empty()) return present;
  std::lock_guard lock(write_mutex_);
  DIMS_ASSIGN(const std::vector<bool> still, touch_locked(stale));
  for (std::size_t i = 0; i < stale.size(); ++i) present[places[i]] = still[i];
  return present;
}

Status RocksObjectStore::remove(const ObjectKey& key) {
  std::lock_guard lock(write_mutex_);
  DIMS_ASSIGN(const auto rows, rows_of(std::span(&key, 1)));
  if (!rows.front()) return absent_error(key);
  rocksdb::WriteBatch batch;
  (void)batch.Delete(engine_.objects(), row_key(key));
  (void)batch.Delete(engine_.meta(), row_key(key));
  DIMS_TRY(engine_.write(batch, durability_for(batch.GetDataSize()), "cannot remove an object"));
  --objects_;
  object_bytes_ -= rows.front()->object_bytes;
  return ok_status();
}

Result<std::vector<ObjectKey>> RocksObjectStore::list(const std::optional<ObjectKey>& after,
                                                      std::size_t limit) {
  DIMS_ASSIGN(const auto rows, list_rows(after, limit));
  std::vector<ObjectKey> keys;
  for (const contract::ObjectRow& row : rows) keys.push_back(row.key);
  return keys;
}

Status RocksObjectStore::barrier() {
  DIMS_TRY(engine_.make_durable());
  std::lock_guard lock(write_mutex_);
  bytes_since_barrier_ = 0;
  return ok_status();
}

Result<contract::StoreInfo> RocksObjectStore::info() {
  contract::StoreInfo out;
  {
    std::lock_guard lock(write_mutex_);
    out.objects = objects_;
    out.object_bytes = object_bytes_;
  }
  std::error_code error;
  for (auto it = std::filesystem::recursive_directory_iterator(engine_.folder(), error);
       !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    std::error_code gone;  // files come and go while we look
    const auto size = it->file_size(gone);
    if (!gone) out.disk_bytes += size;
  }
  return out;
}

}  // namespace dims::stores
