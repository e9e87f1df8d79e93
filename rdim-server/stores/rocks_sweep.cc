// The parts of RocksObjectStore that collection uses.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/base/parse.h"
#include "common/base/wire.h"
#include "rdim-server/stores/rocks_objects.h"
#include "rdim-server/stores/rocks_status.h"

namespace dims::stores {
namespace {

using contract::RemoveOutcome;

constexpr const char* kTouchFloorKey = "touch-floor";

// Old blob files are rewritten once so much of them is garbage: the store stays below 4/3 of what
// lives in it.
constexpr double kGarbageShareMin = 0.25;

struct Oldest {
  std::size_t files = 0;
  std::uint64_t live_bytes = 0;  // to be written again before any of the files goes
};

// As many of the oldest blob files as are worth rewriting and take at most half of the room, for
// each step costs a pass over all keys; if there are none, as few as are worth it.
Oldest oldest_to_rewrite(const std::vector<rocksdb::BlobMetaData>& files, std::uint64_t room) {
  Oldest few, many;
  std::uint64_t all = 0, garbage = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    all += files[i].total_blob_bytes;
    garbage += files[i].garbage_blob_bytes;
    const double enough = kGarbageShareMin * static_cast<double>(all);
    if (garbage == 0 || static_cast<double>(garbage) < enough) continue;
    const Oldest here{i + 1, all - garbage};
    if (few.files == 0) few = here;
    if (here.live_bytes <= room / 2) many = here;
  }
  return many.files != 0 ? many : few;
}

Status reclaimed(const rocksdb::Status& status, const std::string& folder) {
  if (status.IsCorruption()) {
    return make_error(ErrorCode::kCorrupt,
                      "what was removed is gone, but not its space: something in " + folder +
                          " is damaged: " + status.ToString(),
                      "run 'rdim check --repair', then 'rdim gc run'");
  }
  return check_rocks(status, "cannot give space back in " + folder);
}

}  // namespace

Result<std::vector<contract::ObjectRow>> RocksObjectStore::list_rows(
    const std::optional<ObjectKey>& after, std::size_t limit) {
  std::unique_ptr<rocksdb::Iterator> it(engine_.db().NewIterator(scan_options(), engine_.meta()));
  std::vector<contract::ObjectRow> rows;
  for (it->Seek(row_key_after(after)); it->Valid() && rows.size() < limit; it->Next()) {
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
  const std::uint64_t floor = r.u64();
  if (!r.at_end()) return make_error(ErrorCode::kCorrupt, "the floor of touch times is damaged");
  // Of a collection under a clock that was wrong: all that is put would be kept until that day. A
  // collection that relies on it begins anew.
  if (floor > now_s() + contract::kTouchAheadMaxSeconds) {
    spdlog::warn("the floor of touch times lies in the future: the clock was wrong once");
    return ok_status();
  }
  touch_floor_s_ = floor;
  return ok_status();
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
  const Error stopped = make_error(ErrorCode::kCancelled, "giving space back was stopped");
  for (rocksdb::ColumnFamilyHandle* family : {engine_.meta(), engine_.objects()}) {
    if (cancelled()) return stopped;
    DIMS_TRY(
        reclaimed(engine_.db().CompactRange(options, family, nullptr, nullptr), engine_.folder()));
  }
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
  // A step writes what lives in the oldest files before it lets go of any of them: a disk that is
  // nearly full is gone through in several.
  std::uint64_t first = 0;  // the oldest file of the step before
  for (;;) {
    rocksdb::ColumnFamilyMetaData data;
    engine_.db().GetColumnFamilyMetaData(engine_.objects(), &data);
    auto& files = data.blob_files;
    std::sort(files.begin(), files.end(),
              [](const auto& a, const auto& b) { return a.blob_file_number < b.blob_file_number; });
    const std::uint64_t room = engine_.room();
    const Oldest oldest = oldest_to_rewrite(files, room > data.size ? room - data.size : 0);
    if (oldest.files == 0 || files.front().blob_file_number == first) return ok_status();
    if (cancelled()) return stopped;
    if (oldest.live_bytes + data.size > room) {
      return make_error(ErrorCode::kNoSpace,
                        "not all space of what was removed can be given back: " +
                            format_size(oldest.live_bytes + data.size) +
                            " have to be written for it in " + engine_.folder() + ", and only " +
                            format_size(room) + " are free above the reserve",
                        "free or add space on the server's disk, then 'rdim gc run'");
    }
    first = files.front().blob_file_number;
    // The engine takes so many of the files, rounded down.
    options.blob_garbage_collection_age_cutoff = std::min(
        1.0, (static_cast<double>(oldest.files) + 0.5) / static_cast<double>(files.size()));
    DIMS_TRY(reclaimed(engine_.db().CompactRange(options, engine_.objects(), nullptr, nullptr),
                       engine_.folder()));
  }
}

}  // namespace dims::stores
