#include "rdim-server/stores/rocks_refs.h"

#include <algorithm>
#include <set>

#include "common/base/wire.h"
#include "rdim-server/stores/rocks_status.h"

namespace dims::stores {
namespace {

using contract::RefValue;

Result<RefValue> decode(std::string_view row, const std::string& key) {
  Reader r(as_bytes(row));
  RefValue value;
  value.revision = r.u64();
  if (!r.ok() || value.revision == 0) {
    return make_error(ErrorCode::kCorrupt, "the record '" + key + "' is damaged",
                      "restore the store from its backup");
  }
  const ByteView rest = r.raw(r.remaining());
  value.value.assign(rest.begin(), rest.end());
  return value;
}

void add_row(rocksdb::WriteBatch& batch, rocksdb::ColumnFamilyHandle* refs, const std::string& key,
             std::uint64_t revision, ByteView value) {
  Bytes row;
  row.reserve(value.size() + 8);
  Writer w(row);
  w.u64(revision);
  w.raw(value);
  (void)batch.Put(refs, key, rocksdb::Slice(reinterpret_cast<const char*>(row.data()), row.size()));
}

// Random: a record that was removed and made again never has a revision that somebody remembers.
std::uint64_t new_revision(Random& random) { return std::max<std::uint64_t>(random.u64(), 1); }

}  // namespace

Result<std::optional<RefValue>> RocksRefStore::get(const std::string& key) {
  rocksdb::PinnableSlice row;
  const rocksdb::Status status =
      engine_.db().Get(rocksdb::ReadOptions(), engine_.refs(), key, &row);
  if (status.IsNotFound()) return std::optional<RefValue>{};
  if (!status.ok()) return from_rocks(status, "cannot read the record '" + key + "'");
  DIMS_ASSIGN(RefValue value, decode(row.ToStringView(), key));
  return std::optional<RefValue>(std::move(value));
}

Status RocksRefStore::check_revision(const std::string& key, std::uint64_t expected) {
  DIMS_ASSIGN(const auto current, get(key));
  if ((current ? current->revision : 0) == expected) return ok_status();
  return make_error(ErrorCode::kConflict, "the record '" + key + "' was changed by somebody else",
                    "read it again and repeat");
}

Result<std::uint64_t> RocksRefStore::put(const std::string& key, ByteView value,
                                         std::uint64_t expected_revision) {
  std::lock_guard lock(lock_of(key));
  DIMS_TRY(check_revision(key, expected_revision));
  const std::uint64_t revision = new_revision(random_);
  rocksdb::WriteBatch batch;
  add_row(batch, engine_.refs(), key, revision, value);
  DIMS_TRY(engine_.write(batch, Durability::kSynced, "cannot write the record '" + key + "'"));
  return revision;
}

Status RocksRefStore::put_all(const std::vector<contract::RefPut>& rows) {
  std::set<std::string> keys;
  std::set<std::size_t>
      numbers;  // in one order for all, so that two of these cannot wait in a ring
  for (const contract::RefPut& row : rows) {
    if (!keys.insert(row.key).second) {
      return make_error(ErrorCode::kInvalidArgument,
                        "the record '" + row.key + "' twice in one step");
    }
    numbers.insert(lock_number(row.key));
  }
  std::vector<std::unique_lock<std::mutex>> held;
  for (const std::size_t number : numbers) held.emplace_back(locks_[number]);
  rocksdb::WriteBatch batch;
  for (const contract::RefPut& row : rows) {
    DIMS_TRY(check_revision(row.key, row.expected_revision));
    add_row(batch, engine_.refs(), row.key, new_revision(random_), row.value);
  }
  return engine_.write(batch, Durability::kSynced, "cannot write records");
}

Status RocksRefStore::remove(const std::string& key, std::uint64_t expected_revision) {
  std::lock_guard lock(lock_of(key));
  DIMS_TRY(check_revision(key, expected_revision));
  if (expected_revision == 0) return ok_status();
  rocksdb::WriteBatch batch;
  (void)batch.Delete(engine_.refs(), key);
  return engine_.write(batch, Durability::kSynced, "cannot remove the record '" + key + "'");
}

Result<std::vector<std::pair<std::string, RefValue>>> RocksRefStore::list(const std::string& prefix,
                                                                          const std::string& after,
                                                                          std::size_t limit) {
  std::unique_ptr<rocksdb::Iterator> it(
      engine_.db().NewIterator(rocksdb::ReadOptions(), engine_.refs()));
  std::vector<std::pair<std::string, RefValue>> out;
  for (it->Seek(std::max(prefix, after)); it->Valid() && out.size() < limit; it->Next()) {
    const std::string_view key = it->key().ToStringView();
    if (!key.starts_with(prefix)) break;
    if (key <= after) continue;
    DIMS_ASSIGN(RefValue value, decode(it->value().ToStringView(), std::string(key)));
    out.emplace_back(std::string(key), std::move(value));
  }
  DIMS_TRY(check_rocks(it->status(), "cannot list records"));
  return out;
}

}  // namespace dims::stores
