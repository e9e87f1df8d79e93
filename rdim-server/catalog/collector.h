// Collector: one garbage collection, mark and sweep, in pieces that the caller paces.
//
//   floor of touch times < commits under way noted < roots and retention decided, durable < marked
//   < found < swept: nodes before what they name, looking at the touch time in the same step
//   < space given back
//
// Why nothing that lives goes: what a version that stays leads to is marked. What is put, answered
// "present" or found by a commit's check since the mark began has a touch time from then on, and a
// sweep that meets a touched node touches what it names before going a level down.
//
// Threads: one owner; everybody else goes on. Ownership: catalog, store and clock outlive it.
// Errors: kCorrupt when something that must stay is missing or damaged: nothing is swept then.
// Durable: the sweep may be lost in a power cut, and is repeated. A collection that is cut short
// begins anew.
#pragma once

#include "rdim-server/catalog/marker.h"
#include "rdim-server/catalog/root_walk.h"

namespace dims::catalog {

struct CollectorOptions {
  std::chrono::seconds upload_grace = std::chrono::hours(24 * 7);
  bool dry_run = false;
  RunSpace space;
  std::size_t rows_a_step = 512;
  std::size_t nodes_a_step = 32;
};

enum class CollectorPhase { kRoots, kTouched, kMark, kFind, kSweep, kReclaim, kDone };
std::string_view name_of(CollectorPhase phase);

struct CollectorFigures {
  RootFigures roots;
  std::uint64_t nodes_marked = 0;
  std::uint64_t objects = 0;  // that were looked at
  std::uint64_t garbage = 0;  // found
  std::uint64_t garbage_bytes = 0;
  std::uint64_t removed = 0;
  std::uint64_t spared = 0;      // touched since they were found
  std::uint64_t cost_bytes = 0;  // about what reading and writing took; for pacing
};

class Collector {
 public:
  Collector(Catalog& catalog, contract::ObjectStore& store, Clock& clock,
            const CollectorOptions& options);

  // False: done. `cancelled` is asked by the one long step, giving space back.
  Result<bool> step(const std::function<bool()>& cancelled = [] { return false; });
  CollectorPhase phase() const { return phase_; }
  const CollectorFigures& figures() const { return figures_; }

 private:
  Status begin();
  Status step_roots();
  Status step_touched();
  Status step_mark();
  Status step_find();
  Status step_sweep();
  Status touch_children(const std::vector<ObjectKey>& nodes);

  Catalog& catalog_;
  contract::ObjectStore& store_;
  Clock& clock_;
  const CollectorOptions options_;
  CollectorPhase phase_ = CollectorPhase::kRoots;
  CollectorFigures figures_;
  std::uint64_t began_s_ = 0;
  std::uint64_t touched_before_s_ = 0;  // what was touched earlier may go

  std::unique_ptr<RootWalk> roots_;
  Marker marker_;
  std::optional<ObjectKey> row_after_;
  bool told_of_ahead_ = false;
  std::unique_ptr<KeyCursor> marked_;
  std::optional<MarkedKey> marked_at_;
  std::array<std::unique_ptr<KeyRuns>, Marker::kLevels> dead_;
  std::size_t level_ = Marker::kLevels;
  std::unique_ptr<KeyCursor> dead_cursor_;
};

}  // namespace dims::catalog
