// The parts of RocksObjectStore that check and scrub use.
#include <spdlog/spdlog.h>

#include "rdim-server/stores/rocks_objects.h"
#include "rdim-server/stores/rocks_status.h"

namespace dims::stores {
namespace {

using contract::StoreFinding;

// Whether it says something of what is stored, and not of the process that looked.
Status looked(const rocksdb::Status& status, const ObjectKey& key) {
  if (status.ok() || status.IsNotFound() || status.IsCorruption()) return ok_status();
  return from_rocks(status, "cannot read object " + key.id.short_hex() + " now");
}

// Of an iterator that a value stopped.
std::optional<ObjectKey> key_of_stop(rocksdb::Iterator& it) {
  std::string name;
  if (!it.GetProperty("rocksdb.iterator.internal-key", &name).ok()) return std::nullopt;
  return parse_row_key(name);
}

}  // namespace

// Looks again first: since it was found somebody may have put or removed it.
Status RocksObjectStore::mend_one(StoreFinding& finding) {
  const ObjectKey& key = finding.key;
  std::string name = row_key(key), old_row, object;
  const rocksdb::Status had_row = engine_.db().Get(scan_options(), engine_.meta(), name, &old_row);
  DIMS_TRY(looked(had_row, key));
  rocksdb::Status had_bytes = engine_.db().Get(scan_options(), engine_.objects(), name, &object);
  const bool rotten = had_bytes.IsCorruption();
  // What is round it may be damaged, and the bytes whole.
  if (rotten) had_bytes = engine_.db().Get(unchecked_options(), engine_.objects(), name, &object);
  const auto row = had_row.ok() ? decode_meta(old_row) : std::nullopt;
  if (is_bad_sector(had_bytes)) return mend_unreadable(finding, row);
  DIMS_TRY(looked(had_bytes, key));
  MetaRow fresh;
  bool healthy = false;
  if (had_bytes.ok()) {
    const contract::ObjectStore::PutItem item{key, as_bytes(object)};
    const auto checked =
        check_objects(std::span(&item, 1), std::max(now_s(), touch_floor_s_.load()));
    healthy = checked.ok();
    if (healthy) fresh = checked->front();
    if (healthy && !rotten && row && !audit_object(key, *row, item.object)) return ok_status();
  }
  rocksdb::WriteBatch batch;
  if (healthy) {  // the row can be made anew
    if (rotten) (void)batch.Put(engine_.objects(), name, object);
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

// The disk does not give the bytes. They stay: if it does one day, the next repair makes their row
// anew. Without it they count as absent, and can be put again.
Status RocksObjectStore::mend_unreadable(StoreFinding& finding, const std::optional<MetaRow>& row) {
  if (!row) return ok_status();
  rocksdb::WriteBatch batch;
  (void)batch.Delete(engine_.meta(), row_key(finding.key));
  DIMS_TRY(engine_.write(batch, Durability::kSynced, "cannot mend an object"));
  finding.mended = true;
  --objects_;
  object_bytes_ -= row->object_bytes;
  return ok_status();
}

Result<contract::AuditPage> RocksObjectStore::audit(const std::optional<ObjectKey>& after,
                                                    std::size_t limit, std::uint64_t bytes_max,
                                                    bool mend) {
  DIMS_ASSIGN(contract::AuditPage page, audit_page(after, limit, bytes_max));
  if (mend && !page.findings.empty()) {
    std::lock_guard lock(write_mutex_);
    // A row that is made anew must not reach the disk before its bytes.
    DIMS_TRY(engine_.make_durable());
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
  rows->Seek(row_key_after(after));
  bytes->Seek(row_key_after(after));
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
    const std::string row_name = rows->Valid() ? rows->key().ToString() : std::string();
    const auto row_of = rows->Valid() ? parse_row_key(row_name) : std::nullopt;
    const bool unreadable = !bytes->Valid() && !bytes->status().ok();
    const auto stop = unreadable ? key_of_stop(*bytes) : std::nullopt;
    if (!rows->Valid() && !bytes->Valid() && (!stop || stop == page.last)) {
      page.last.reset();
      return page;
    }
    ++page.objects;
    if (stop && (!rows->Valid() || (row_of && *stop < *row_of))) {
      if (!is_bad_sector(bytes->status())) DIMS_TRY(looked(bytes->status(), *stop));
      if (!row_again(*stop))
        note(Kind::kStrayBytes, *stop, "nobody can reach them: " + bytes->status().ToString());
      bytes->Seek(row_key_after(stop));
      page.last = stop;
      continue;
    }
    const bool stray = bytes->Valid() && (!rows->Valid() || bytes->key().compare(rows->key()) < 0);
    const auto key = stray ? parse_row_key(bytes->key().ToStringView()) : row_of;
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
        if (!is_bad_sector(status)) DIMS_TRY(looked(status, *key));
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
