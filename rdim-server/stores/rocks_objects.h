// RocksObjectStore: contract::ObjectStore over the Engine.
//
// Threads: thread-safe; writes go one after another, reads do not wait for them. Ownership: the
// engine and the clock outlive it. Errors and durability: as the contract says. An object whose
// bytes turn out damaged or gone is reported (kCorrupt, kNotFound) and counts as absent from then
// on, so that the next put of it heals it. What cannot be read for another reason stays.
#pragma once

#include <atomic>
#include <mutex>

#include "common/base/clock.h"
#include "rdim-server/stores/engine.h"
#include "rdim-server/stores/meta_row.h"

namespace dims::stores {

// A scan must not push out of the cache what reads need.
inline rocksdb::ReadOptions scan_options() {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  return options;
}

// The id says more than the engine's checksum: for whoever looks at it.
inline rocksdb::ReadOptions unchecked_options() {
  rocksdb::ReadOptions options;
  options.verify_checksums = false;
  return options;
}

class RocksObjectStore : public contract::ObjectStore {
 public:
  RocksObjectStore(Engine& engine, Clock& clock, const StoreOptions& options);

  // Reads the counters that a clean end left, or counts anew. Before any other call.
  Status load_counters();
  // Reads the floor that holds. Before any other call.
  Status load_touch_floor();
  // For a clean end: stores the counters durably.
  Status save_counters();

  Result<std::vector<contract::PutOutcome>> put(std::span<const PutItem> items) override;
  void get(std::span<const ObjectKey> keys, const GetSink& sink) override;
  Result<std::vector<bool>> has(std::span<const ObjectKey> keys) override;
  Status touch(std::span<const ObjectKey> keys) override;
  Status remove(const ObjectKey& key) override;
  Result<std::vector<ObjectKey>> list(const std::optional<ObjectKey>& after,
                                      std::size_t limit) override;
  Status barrier() override;
  void expect_barrier() override { engine_.start_flush(); }
  Result<contract::StoreInfo> info() override;
  Result<std::vector<bool>> touch_present(std::span<const ObjectKey> keys) override;
  Result<std::vector<contract::ObjectRow>> list_rows(const std::optional<ObjectKey>& after,
                                                     std::size_t limit) override;
  Status set_touch_floor(std::uint64_t seconds) override;
  std::uint64_t touch_floor() override { return touch_floor_s_; }
  Result<std::vector<contract::RemoveOutcome>> remove_untouched(
      std::span<const ObjectKey> keys, std::uint64_t touched_before_s) override;
  Status reclaim(const std::function<bool()>& cancelled) override;
  Result<contract::AuditPage> audit(const std::optional<ObjectKey>& after, std::size_t limit,
                                    std::uint64_t bytes_max, bool mend) override;

 private:
  Result<std::vector<std::optional<MetaRow>>> rows_of(std::span<const ObjectKey> keys);
  Result<Bytes> get_one(const ObjectKey& key);
  // Corruption also for bytes that do not have the id.
  rocksdb::Status read_object(const ObjectKey& key, rocksdb::PinnableSlice& value);
  // The same after a read that failed: if it is proven damaged or gone now, it counts as absent.
  rocksdb::Status read_or_forget(const ObjectKey& key, rocksdb::PinnableSlice& value);
  // What put() found present and cannot be read back is written anew.
  Status heal(std::span<const PutItem> items, const std::vector<MetaRow>& fresh,
              const std::vector<std::size_t>& present);
  Durability durability_for(std::uint64_t bytes);
  // For rows written without their bytes: a row must not outlive bytes that are in no log.
  Durability durability_of_rows(std::uint64_t bytes);
  std::uint64_t now_s();
  bool needs_touch(const MetaRow& row, std::uint64_t now) const;
  // The next two need write_mutex_.
  Result<std::vector<bool>> touch_locked(std::span<const ObjectKey> keys);
  Status mend_one(contract::StoreFinding& finding);
  Status mend_unreadable(contract::StoreFinding& finding, const std::optional<MetaRow>& row);
  Result<contract::AuditPage> audit_page(const std::optional<ObjectKey>& after, std::size_t limit,
                                         std::uint64_t bytes_max);

  Engine& engine_;
  Clock& clock_;
  const std::uint64_t log_bytes_max_;

  std::mutex write_mutex_;  // makes "is it there, what is its touch time, write" one step
  std::atomic<std::uint64_t> touch_floor_s_{0};  // changed under write_mutex_
  std::uint64_t bytes_since_barrier_ = 0;
  std::uint64_t objects_ = 0;
  std::uint64_t object_bytes_ = 0;
};

}  // namespace dims::stores
