// SimServer: the real catalog over its memory stores, and a judge beside it that keeps its own
// account of leases: every commit that the catalog accepts must carry the newest token, unexpired.
//
// Threads: thread-safe, and so is restart() for calls that hold alive(). Ownership: the clock
// outlives it. Units: simulated time. Errors: the catalog's; what the judge finds is in
// violations().
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "rdim-server/catalog/catalog.h"
#include "rdim-server/stores/memory_stores.h"
#include "tests/sim/sim_base.h"

namespace dims::sim {

inline constexpr std::chrono::hours kLeaseTerm{1};

class SimServer {
 public:
  SimServer(SimClock& clock, std::uint64_t seed);

  catalog::Catalog& catalog() { return *catalog_; }
  stores::MemoryObjectStore& objects() { return objects_; }
  stores::MemoryRefStore& refs() { return refs_; }
  // Killed and started again on the same stores: every lease gets a full term.
  void restart();
  // While one is held the server is not killed: a disk's own threads may call at any time.
  std::shared_lock<std::shared_mutex> alive() { return std::shared_lock(life_); }

  // The catalog's calls that the judge watches.
  Result<contract::LeaseGrant> acquire_lease(const contract::LeaseRequest& request);
  Result<contract::LeaseGrant> renew_lease(const ImageId& image, const contract::LeaseGrant& lease);
  Status release_lease(const ImageId& image, const contract::LeaseGrant& lease);
  Result<contract::CommitAnswer> commit(const contract::CommitOrder& order);

  std::vector<std::string> violations();
  std::uint64_t commits_accepted() const { return accepted_; }
  std::uint64_t stale_refused() const { return stale_refused_; }

 private:
  struct Held {
    LeaseId lease;
    std::uint64_t token = 0;
    std::chrono::nanoseconds ends{0};
    bool held = false;
  };

  SimClock& clock_;
  LockedRandom random_;
  stores::MemoryObjectStore objects_;
  stores::MemoryRefStore refs_;
  GenerationId generation_;
  std::unique_ptr<catalog::Catalog> catalog_;
  std::shared_mutex life_;  // taken before mutex_
  std::mutex mutex_;
  std::map<ImageId, Held> held_;
  std::vector<std::string> violations_;
  std::atomic<std::uint64_t> accepted_{0}, stale_refused_{0};
};

}  // namespace dims::sim
