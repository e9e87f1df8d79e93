// MemoryObjectStore, MemoryRefStore: the same contracts without a disk, for tests and for measuring
// what the engine costs.
//
// Threads: thread-safe. Ownership: values. Errors: as the contracts say. Durable: nothing.
#pragma once

#include <map>
#include <mutex>

#include "common/base/clock.h"
#include "common/contract/object_store.h"
#include "common/contract/ref_store.h"
#include "rdim-server/stores/meta_row.h"

namespace dims::stores {

class MemoryObjectStore : public contract::ObjectStore {
 public:
  explicit MemoryObjectStore(Clock& clock) : clock_(clock) {}

  Result<std::vector<contract::PutOutcome>> put(std::span<const PutItem> items) override;
  void get(std::span<const ObjectKey> keys, const GetSink& sink) override;
  Result<std::vector<bool>> has(std::span<const ObjectKey> keys) override;
  Status touch(std::span<const ObjectKey> keys) override;
  Status remove(const ObjectKey& key) override;
  Result<std::vector<ObjectKey>> list(const std::optional<ObjectKey>& after,
                                      std::size_t limit) override;
  Status barrier() override { return ok_status(); }
  Result<contract::StoreInfo> info() override;
  Result<std::vector<bool>> touch_present(std::span<const ObjectKey> keys) override;
  Result<std::vector<contract::ObjectRow>> list_rows(const std::optional<ObjectKey>& after,
                                                     std::size_t limit) override;
  Status set_touch_floor(std::uint64_t seconds) override;
  std::uint64_t touch_floor() override;
  Result<std::vector<contract::RemoveOutcome>> remove_untouched(
      std::span<const ObjectKey> keys, std::uint64_t touched_before_s) override;
  Status reclaim(const std::function<bool()>& /*cancelled*/) override { return ok_status(); }
  Result<contract::AuditPage> audit(const std::optional<ObjectKey>& after, std::size_t limit,
                                    std::uint64_t bytes_max, bool mend) override;

  // For tests: flips a bit of what is stored.
  void damage(const ObjectKey& key);
  // For tests: these bytes lie where the object's were.
  void misdirect(const ObjectKey& key, ByteView bytes);

 private:
  struct Entry {
    Bytes object;
    MetaRow row;
    bool damaged = false;  // found so: counts as absent
  };
  std::uint64_t now_s();
  void renew(MetaRow& row);
  Result<Bytes> get_one(const ObjectKey& key);

  Clock& clock_;
  std::mutex mutex_;
  std::map<ObjectKey, Entry> entries_;
  std::uint64_t touch_floor_s_ = 0;
};

class MemoryRefStore : public contract::RefStore {
 public:
  Result<std::optional<contract::RefValue>> get(const std::string& key) override;
  Result<std::uint64_t> put(const std::string& key, ByteView value,
                            std::uint64_t expected_revision) override;
  Status put_all(const std::vector<contract::RefPut>& rows) override;
  Status remove(const std::string& key, std::uint64_t expected_revision) override;
  Result<std::vector<std::pair<std::string, contract::RefValue>>> list(const std::string& prefix,
                                                                       const std::string& after,
                                                                       std::size_t limit) override;

 private:
  std::mutex mutex_;
  std::map<std::string, contract::RefValue> rows_;
  std::uint64_t next_revision_ = 1;
};

}  // namespace dims::stores
