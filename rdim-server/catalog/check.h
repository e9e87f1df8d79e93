// Check: the whole store, on a running server: every object against its id, every record, every
// tree complete, and what nothing leads to. In pieces that the caller paces.
//
// repair does only what cannot lose anything: rows are made anew from objects that are whole;
// objects that are not are dropped, so that the next put of them heals them; records that lead
// nowhere are removed.
//
// Threads: one owner; no collection may run meanwhile (Maintenance sees to it). Ownership: catalog
// and stores outlive it. Errors: of the stores; damage is a finding. Durable on return: repairs.
#pragma once

#include "common/contract/admin.h"
#include "rdim-server/catalog/marker.h"
#include "rdim-server/catalog/root_walk.h"

namespace dims::catalog {

struct CheckOptions {
  bool repair = false;
  RunSpace space;
  std::size_t objects_a_step = 256;
  std::uint64_t bytes_a_step = 8 * kMiB;
};

class Check {
 public:
  Check(Catalog& catalog, contract::ObjectStore& store, contract::RefStore& refs,
        const CheckOptions& options);

  // False: done.
  Result<bool> step();
  const contract::CheckProgress& progress() const { return progress_; }
  // What the steps since the last call found.
  std::vector<contract::CheckFinding> take_findings() { return std::exchange(findings_, {}); }

 private:
  enum class Phase { kObjects, kRecords, kRoots, kTrees, kPresence, kDone };
  Status step_objects();
  Status step_records();
  Status step_roots();
  Status step_trees();
  Status step_presence();
  Status check_name(const std::string& key, const contract::RefValue& row);
  Status check_owned(const std::string& key, const contract::RefValue& row);
  Status check_images();
  Status trouble(const RootTrouble& trouble);
  void missing(const ObjectKey& key, const std::string& why);
  void found(const char* code, contract::Severity severity, std::string what, std::string where,
             std::string hint, bool repaired = false);

  Catalog& catalog_;
  contract::ObjectStore& store_;
  contract::RefStore& refs_;
  const CheckOptions options_;
  Phase phase_ = Phase::kObjects;
  contract::CheckProgress progress_;
  std::vector<contract::CheckFinding> findings_;
  std::optional<ObjectKey> after_;
  std::size_t prefix_ = 0;
  std::string record_after_;
  Marker marker_;
  std::unique_ptr<RootWalk> roots_;
  std::unique_ptr<KeyCursor> marked_;
  std::optional<MarkedKey> marked_at_;
};

}  // namespace dims::catalog
