// The parts of RocksObjectStore that collection, check and scrub use.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/base/wire.h"
#include "rdim-server/stores/rocks_objects.h"
#include "rdim-server/stores/rocks_status.h"

namespace dims::stores {
namespace {

using contract::RemoveOutcome;
using contract::StoreFinding;

constexpr const char* kTouchFloorKey = "touch-floor";

// Old blob files are rewritten once so much of them is garbage: the store stays below 4/3 of what
// lives in it.
constexpr double kGarbageShareMin = 0.25;

std::string after_key(const std::optional<ObjectKey>& after) {
  // The shortest key behind it.
  return after ? row_key(*after) + '\0' : std::string();
}

// The largest share of the oldest blob files that is worth rewriting; 0: none.
double share_to_rewrite(const std::vector<rocksdb::BlobMetaData>& files) {
  double worth = 0;
  std::uint64_t all = 0, garbage = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    all += files[i].total_blob_bytes;
    garbage += files[i].garbage_blob_bytes;
    if (garbage != 0 && static_cast<double>(garbage) >= kGarbageShareMin * static_cast<double>(all))
      worth = static_cast<double>(i + 1) / static_cast<double>(files.size());
  }
  return worth;
}

}  // namespace

Result<std::vector<contract::ObjectRow>> RocksObjectStore::list_rows(
    const std::optional<ObjectKey>& after, std::size_t limit) {
  std::unique_ptr<rocksdb::Iterator> it(engine_.db().NewIterator(scan_options(), engine_.meta()));
  std::vector<contract::ObjectRow> rows;
  for (it->Seek(after_key(after)); it->Valid() && rows.size() < limit; it->Next()) {
    const auto key = parse_row_key(it->key().ToStringView());
    const auto row = decode_meta(it->value().ToStringView());
    if (key && row) rows.push_back(object_row(*key, *row));
  }
  DIMS_TRY(check_rocks(it->status(), "cannot list objects"));
  return rows;
}

Status RocksObjectStore::set_touch_floor(std::uint64_t seconds) {
  std::lock_guard lock(write_mutex_);
  touch_floor_s_ = std::max(touch_floor_s_.load(), seconds);
  // Also if it was there before: the write of it may have failed.
  Bytes row;
  Writer(row).u64(touch_floor_s_.load());
  rocksdb::WriteBatch batch;
  (void)batch.Put(engine_.internal(), kTouchFloorKey, as_text(row));
  return engine_.write(batch, Durability::kSynced, "cannot write the floor of touch times");
}

Status RocksObjectStore::load_touch_floor() {
  std::string row;
  const rocksdb::Status status =
      engine_.db().Get(rocksdb::ReadOptions(), engine_.internal(), kTouchFloorKey, &row);
  if (status.IsNotFound()) return ok_status();
  DIMS_TRY(check_rocks(status, "cannot read the floor of touch times"));
  Reader r(as_bytes(row));
  touch_floor_s_ = r.u64();
  if (r.at_end()) return ok_status();
  return make_error(ErrorCode::kCorrupt, "the floor of touch times is damaged");
}

Result<std::vector<RemoveOutcome>> RocksObjectStore::remove_untouched(
    std::span<const ObjectKey> keys, std::uint64_t touched_before_s) {
  std::lock_guard lock(write_mutex_);
  DIMS_ASSIGN(const auto rows, rows_of(keys));
  std::vector<RemoveOutcome> out(keys.size(), RemoveOutcome::kAbsent);
  rocksdb::WriteBatch batch;
  std::uint64_t objects = 0, bytes = 0;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (!rows[i]) continue;
    if (rows[i]->touched_s >= touched_before_s) {
      out[i] = RemoveOutcome::kTouched;
      continue;
    }
    out[i] = RemoveOutcome::kRemoved;
    const std::string name = row_key(keys[i]);
    (void)batch.Delete(engine_.objects(), name);
    (void)batch.Delete(engine_.meta(), name);
    ++objects;
    bytes += rows[i]->object_bytes;
  }
  if (objects == 0) return out;
  // Always through the log: what was removed first is also lost last.
  DIMS_TRY(engine_.write(batch, Durability::kLogged, "cannot remove objects"));
  objects_ -= objects;
  object_bytes_ -= bytes;
  return out;
}

Status RocksObjectStore::reclaim(const std::function<bool()>& cancelled) {
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  // Drops the keys; blob files in which nothing lives go with them.
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kDisable;
  const std::string what = "cannot give space back in " + engine_.folder();
  for (rocksdb::ColumnFamilyHandle* family : {engine_.meta(), engine_.objects()}) {
    if (cancelled()) return make_error(ErrorCode::kCancelled, "giving space back was stopped");
    DIMS_TRY(check_rocks(engine_.db().CompactRange(options, family, nullptr, nullptr), what));
  }
  rocksdb::ColumnFamilyMetaData data;
  engine_.db().GetColumnFamilyMetaData(engine_.objects(), &data);
  std::sort(data.blob_files.begin(), data.blob_files.end(),
            [](const auto& a, const auto& b) { return a.blob_file_number < b.blob_file_number; });
  const double share = share_to_rewrite(data.blob_files);
  if (share == 0) return ok_status();
  if (cancelled()) return make_error(ErrorCode::kCancelled, "giving space back was stopped");
  // Rewriting needs room for what lives; on a full disk the rest must do.
  DIMS_TRY(engine_.check_space());
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
  options.blob_garbage_collection_age_cutoff = share;
  return check_rocks(engine_.db().CompactRange(options, engine_.objects(), nullptr, nullptr), what);
}

// Looks again first: since it was found somebody may have put or removed it.
Status RocksObjectStore::mend_one(StoreFinding& finding) {
  const ObjectKey& key = finding.key;
  std::string name = row_key(key), old_row, object;
  const rocksdb::Status had_row = engine_.db().Get(scan_options(), engine_.meta(), name, &old_row);
  const rocksdb::Status had_bytes =
      engine_.db().Get(scan_options(), engine_.objects(), name, &object);
  const auto row = had_row.ok() ? decode_meta(old_row) : std::nullopt;
  MetaRow fresh;
  bool healthy = false;
  if (had_bytes.ok()) {
    const contract::ObjectStore::PutItem item{key, as_bytes(object)};
    const auto checked =
        check_objects(std::span(&item, 1), std::max(now_s(), touch_floor_s_.load()));
    healthy = checked.ok();
    if (healthy) fresh = checked->front();
    if (healthy && row && !audit_object(key, *row, item.object)) return ok_status();
  }
  rocksdb::WriteBatch batch;
  if (healthy) {  // the row can be made anew
    (void)batch.Put(engine_.meta(), name, encode_meta(fresh));
  } else {
    (void)batch.Delete(engine_.objects(), name);
    (void)batch.Delete(engine_.meta(), name);
  }
  DIMS_TRY(engine_.write(batch, Durability::kSynced, "cannot mend an object"));
  finding.mended = true;
  if (row) {
    --objects_;
    object_bytes_ -= row->object_bytes;
  }
  if (healthy) {
    ++objects_;
    object_bytes_ += fresh.object_bytes;
  }
  return ok_status();
}

Result<contract::AuditPage> RocksObjectStore::audit(const std::optional<ObjectKey>& after,
                                                    std::size_t limit, std::uint64_t bytes_max,
                                                    bool mend) {
  DIMS_ASSIGN(contract::AuditPage page, audit_page(after, limit, bytes_max));
  if (mend && !page.findings.empty()) {
    std::lock_guard lock(write_mutex_);
    for (StoreFinding& finding : page.findings) DIMS_TRY(mend_one(finding));
  }
  return page;
}

Result<contract::AuditPage> RocksObjectStore::audit_page(const std::optional<ObjectKey>& after,
                                                         std::size_t limit,
                                                         std::uint64_t bytes_max) {
  using Kind = StoreFinding::Kind;
  contract::AuditPage page;
  std::unique_ptr<rocksdb::Iterator> rows(engine_.db().NewIterator(scan_options(), engine_.meta()));
  std::unique_ptr<rocksdb::Iterator> bytes(
      engine_.db().NewIterator(scan_options(), engine_.objects()));
  rows->Seek(after_key(after));
  bytes->Seek(after_key(after));
  const auto note = [&](Kind kind, const ObjectKey& key, std::string what) {
    page.findings.push_back({kind, key, std::move(what), false});
  };
  // Looked at again, under the lock: a put or a sweep may have changed it since the iterators were
  // made.
  const auto row_again = [&](const ObjectKey& key) -> bool {
    const auto again = rows_of(std::span(&key, 1));
    return again.ok() && again->front().has_value();
  };
  while (page.objects < limit && page.bytes < bytes_max) {
    if (!rows->Valid()) DIMS_TRY(check_rocks(rows->status(), "cannot read the rows"));
    const bool unreadable = !bytes->Valid() && !bytes->status().ok();
    if (!rows->Valid() && (!bytes->Valid() || unreadable)) {
      page.last.reset();
      return page;
    }
    ++page.objects;
    const std::string row_name = rows->Valid() ? rows->key().ToString() : std::string();
    const bool stray =
        !unreadable && bytes->Valid() && (!rows->Valid() || bytes->key().compare(rows->key()) < 0);
    const auto key = parse_row_key(stray ? bytes->key().ToStringView() : row_name);
    if (stray) {
      page.bytes += bytes->value().size();
      if (key && !row_again(*key)) note(Kind::kStrayBytes, *key, "nobody can reach them");
      bytes->Next();
      page.last = key ? key : page.last;
      continue;
    }
    const auto row = decode_meta(rows->value().ToStringView());
    const bool same = !unreadable && bytes->Valid() && bytes->key() == rows->key();
    if (key && !row) note(Kind::kDamagedRow, *key, "its row cannot be read");
    if (key && row && same) {
      const rocksdb::Slice value = bytes->value();
      page.bytes += value.size();
      const auto found = audit_object(
          *key, *row, {reinterpret_cast<const std::uint8_t*>(value.data()), value.size()});
      if (found) page.findings.push_back(*found);
    } else if (key && row) {
      rocksdb::PinnableSlice value;
      const rocksdb::Status status =
          engine_.db().Get(scan_options(), engine_.objects(), row_name, &value);
      if (status.IsNotFound()) {
        if (row_again(*key)) note(Kind::kMissingObject, *key, "its bytes are gone");
      } else if (!status.ok()) {
        note(Kind::kDamagedObject, *key, status.ToString());
      }
    }
    page.last = key ? key : page.last;
    rows->Next();
    if (same) bytes->Next();
    // A damaged blob ends an iterator: it begins anew behind it.
    if (unreadable || !bytes->status().ok()) bytes->Seek(row_name + '\0');
  }
  return page;
}

}  // namespace dims::stores
