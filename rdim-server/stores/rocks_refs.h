// RocksRefStore: contract::RefStore over the Engine: a row is a random revision and the value.
//
// Threads: thread-safe; keys are spread over locks, so that synced writes of different keys share a
// sync. Ownership: engine and random outlive it. Errors, durability: as the contract says.
#pragma once

#include <array>
#include <mutex>

#include "common/base/clock.h"
#include "rdim-server/stores/engine.h"

namespace dims::stores {

class RocksRefStore : public contract::RefStore {
 public:
  RocksRefStore(Engine& engine, Random& random) : engine_(engine), random_(random) {}

  Result<std::optional<contract::RefValue>> get(const std::string& key) override;
  Result<std::uint64_t> put(const std::string& key, ByteView value,
                            std::uint64_t expected_revision) override;
  Status put_all(const std::vector<contract::RefPut>& rows) override;
  Status remove(const std::string& key, std::uint64_t expected_revision) override;
  Result<std::vector<std::pair<std::string, contract::RefValue>>> list(const std::string& prefix,
                                                                       const std::string& after,
                                                                       std::size_t limit) override;

 private:
  std::size_t lock_number(const std::string& key) const {
    return std::hash<std::string>{}(key) % locks_.size();
  }
  std::mutex& lock_of(const std::string& key) { return locks_[lock_number(key)]; }
  Status check_revision(const std::string& key, std::uint64_t expected);

  Engine& engine_;
  Random& random_;
  std::array<std::mutex, 64> locks_;
};

}  // namespace dims::stores
