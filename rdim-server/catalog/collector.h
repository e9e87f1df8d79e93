// Collector: one garbage collection, mark and sweep, in pieces that the caller paces.
//
//   floor of touch times durable < commits under way noted < roots and retention decided, durable
//   < marked < found < swept: nodes before what they name, looking at the touch time in the same
//   step < space given back
//
// Why nothing that lives goes: what a version that stays leads to is marked. What is put, answered
// "present" or found by a commit's check since the mark began has a touch time from then on, and a
// sweep that meets a touched node touches what it names before going a level down.
//
// A collection that is cut short after its roots goes on where save() was called last, in whatever
// process. Nothing else has to hold for that: the floor is durable, and holds before anybody is
// served after a restart; a version's record is durable after what its commit touched. What a kill
// or a power cut took of other touches, nobody was promised (docs/decisions/010).
//
// Threads: one owner; everybody else goes on. Ownership: catalog, store and clock outlive it.
// Errors: kCorrupt when something that must stay is missing or damaged: nothing is swept then, and
// the next one begins anew. kCancelled: it can go on.
// Durable: the sweep may be lost in a power cut, and is repeated.
#pragma once

#include "rdim-server/catalog/collect_state.h"
#include "rdim-server/catalog/root_walk.h"

namespace dims::catalog {

struct CollectorOptions {
  std::chrono::seconds upload_grace = std::chrono::hours(24 * 7);
  bool dry_run = false;
  RunSpace space;  // without a file system it cannot be gone on with
  // What a kill costs at most: so much time, or a part of what was done since it began or went on.
  std::chrono::nanoseconds save_every = std::chrono::minutes(1);
  std::size_t rows_a_step = 512;
  std::size_t nodes_a_step = 32;
};

struct CollectorFigures {
  RootFigures roots;
  std::uint64_t nodes_marked = 0;
  std::uint64_t objects = 0;  // that were looked at
  std::uint64_t garbage = 0;  // found
  std::uint64_t garbage_bytes = 0;
  std::uint64_t removed = 0;
  std::uint64_t spared = 0;      // touched since they were found
  std::uint64_t resumed = 0;     // how often it went on after a restart
  std::uint64_t cost_bytes = 0;  // about what reading and writing took; for pacing
};

class Collector {
 public:
  Collector(Catalog& catalog, contract::ObjectStore& store, Clock& clock,
            const CollectorOptions& options);

  // False: done. `cancelled` is asked by the one long step, giving space back.
  Result<bool> step(const std::function<bool()>& cancelled = [] { return false; });
  // Between steps. What was done is not done again by the next Collector, if it is one that goes on
  // (any but a dry run). An error costs nothing but that.
  Status save();
  CollectorPhase phase() const { return phase_; }
  std::uint64_t began_s() const { return began_s_; }
  const CollectorFigures& figures() const { return figures_; }

 private:
  bool lasting() const { return !options_.dry_run && options_.space.fs != nullptr; }
  RunSpace owned_space() const;
  void make_sets();
  // False: there is nothing to go on with.
  Result<bool> go_on();
  Status restore(const CollectState& state);
  Status forget();
  Status begin();
  Result<bool> do_step(const std::function<bool()>& cancelled);
  Status save_now_and_then();
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
  RunOwner owner_;
  std::uint64_t began_s_ = 0;
  std::uint64_t touched_before_s_ = 0;  // what was touched earlier may go
  std::chrono::nanoseconds started_{0}, saved_{0};

  std::unique_ptr<RootWalk> roots_;
  std::unique_ptr<Marker> marker_;
  std::optional<ObjectKey> row_after_;
  bool told_of_ahead_ = false;
  std::unique_ptr<KeyCursor> marked_;  // behind row_after_; opened when needed
  std::optional<MarkedKey> marked_at_;
  std::array<std::unique_ptr<KeyRuns>, Marker::kLevels> dead_;
  std::size_t level_ = Marker::kLevels;
  std::optional<ObjectKey> dead_after_;
  std::unique_ptr<KeyCursor> dead_cursor_;  // behind dead_after_; opened when needed
};

}  // namespace dims::catalog
