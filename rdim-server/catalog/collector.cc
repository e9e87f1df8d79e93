#include "rdim-server/catalog/collector.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

namespace dims::catalog {
namespace {

constexpr std::uint64_t kRowCostBytes = 64;
constexpr std::uint64_t kRemoveCostBytes = 256;
constexpr const char* kDamageHint =
    "nothing was removed; see 'rdim check', and remove or restore what it names";

Error stopped(const std::string& what) {
  return make_error(ErrorCode::kCorrupt, "the collection stopped: " + what, kDamageHint);
}

}  // namespace

Collector::Collector(Catalog& catalog, contract::ObjectStore& store, Clock& clock,
                     const CollectorOptions& options)
    : catalog_(catalog), store_(store), clock_(clock), options_(options) {
  started_ = saved_ = clock_.boottime();
}

RunSpace Collector::owned_space() const {
  RunSpace space = options_.space;
  space.owner = owner_;
  return space;
}

void Collector::make_sets() {
  marker_ = std::make_unique<Marker>(
      store_, owned_space(), [](const ObjectKey& node, const Error& why) -> Status {
        return stopped("node " + node.id.hex() + " of a version that stays: " + why.message);
      });
  for (std::size_t level = 0; level < dead_.size(); ++level) {
    dead_[level] = std::make_unique<KeyRuns>(owned_space(), "dead-" + std::to_string(level));
  }
}

Status Collector::begin() {
  if (lasting()) {
    DIMS_TRY(forget());
    owner_ = catalog_.random_.id<RunOwner>();
  }
  make_sets();
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count();
  began_s_ = static_cast<std::uint64_t>(std::max<std::int64_t>(now, 0));
  const auto grace = static_cast<std::uint64_t>(options_.upload_grace.count());
  touched_before_s_ = began_s_ > grace ? began_s_ - grace : 0;
  // First of all: whoever comes from now on leaves his mark on what he relies on.
  if (!options_.dry_run) DIMS_TRY(store_.set_touch_floor(began_s_));
  RootWalk::Options walk;
  walk.mode = options_.dry_run ? RootWalk::Mode::kDryRun : RootWalk::Mode::kDrop;
  walk.space = options_.space;
  walk.versions_a_step = std::max<std::size_t>(options_.rows_a_step / 8, 1);
  roots_ = std::make_unique<RootWalk>(
      catalog_, walk,
      [this](const ObjectKey& root, bool strict) { return marker_->add_root(root, strict); },
      [](const RootTrouble& trouble) -> Status {
        if (!trouble.fatal) return ok_status();
        const std::string what =
            trouble.kind == RootTrouble::Kind::kDamagedSession
                ? trouble.where
                : "version " + trouble.version.hex() + ", " + trouble.where + ",";
        return stopped(what + " is missing or damaged");
      });
  return ok_status();
}

Status Collector::save() {
  if (!lasting() || phase_ == CollectorPhase::kRoots || phase_ > CollectorPhase::kSweep) {
    return ok_status();
  }
  CollectState state;
  state.owner = owner_;
  state.began_s = began_s_;
  state.touched_before_s = touched_before_s_;
  state.grace_s = static_cast<std::uint64_t>(options_.upload_grace.count());
  state.resumed = figures_.resumed;
  state.phase = phase_;
  state.row_after = row_after_;
  state.dead_level = static_cast<std::uint8_t>(level_);
  state.dead_after = dead_after_;
  const RootFigures& roots = figures_.roots;
  state.figures = {roots.images,           roots.versions_kept, roots.versions_dropped,
                   roots.records_removed,  figures_.objects,    figures_.garbage,
                   figures_.garbage_bytes, figures_.removed,    figures_.spared};
  // They read what is about to be written.
  marked_.reset();
  marked_at_.reset();
  dead_cursor_.reset();
  DIMS_ASSIGN(state.mark, marker_->save());
  std::vector<std::string> paths = marker_->run_paths();
  for (const auto& dead : dead_) {
    DIMS_TRY(dead->save());
    state.dead.push_back(dead->files());
    for (std::string& path : dead->paths()) paths.push_back(std::move(path));
  }
  // A server that knows nothing of this state removes the files, and so makes it void.
  if (paths.empty()) return ok_status();
  DIMS_TRY(options_.space.fs->sync_folder(options_.space.folder));
  // What the sweep touched below the nodes that it has passed is not touched again.
  if (phase_ == CollectorPhase::kSweep) DIMS_TRY(store_.barrier());
  DIMS_ASSIGN(const auto row, catalog_.refs_.get(kCollectStateKey));
  DIMS_TRY(
      catalog_.refs_.put(kCollectStateKey, encode_collect_state(state), row ? row->revision : 0));
  return tidy_runs(options_.space, &paths);
}

Result<bool> Collector::go_on() {
  if (!lasting()) return false;
  DIMS_ASSIGN(const auto row, catalog_.refs_.get(kCollectStateKey));
  if (!row) return false;
  const auto state = decode_collect_state(row->value);
  // With another grace it would keep, or take, what an administrator does not expect.
  return state.ok() &&
         state->grace_s == static_cast<std::uint64_t>(options_.upload_grace.count()) &&
         restore(*state).ok();
}

Status Collector::restore(const CollectState& state) {
  owner_ = state.owner;
  make_sets();
  DIMS_TRY(marker_->restore(state.mark));
  std::vector<std::string> paths = marker_->run_paths();
  for (std::size_t level = 0; level < dead_.size(); ++level) {
    DIMS_TRY(dead_[level]->restore(state.dead[level]));
    for (std::string& path : dead_[level]->paths()) paths.push_back(std::move(path));
  }
  if (paths.empty()) return make_error(ErrorCode::kNotFound, "a collection without its keys");
  DIMS_TRY(tidy_runs(options_.space, &paths));
  // There since the collection began: what was put or found since is told from garbage by it alone.
  if (store_.touch_floor() < state.began_s)
    return make_error(ErrorCode::kNotFound, "a collection whose floor of touch times is gone");
  began_s_ = state.began_s;
  touched_before_s_ = state.touched_before_s;
  row_after_ = state.row_after;
  level_ = state.dead_level;
  dead_after_ = state.dead_after;
  const auto& f = state.figures;
  figures_.roots = {f[0], f[1], f[2], f[3]};
  figures_.nodes_marked = state.mark.nodes;
  figures_.objects = f[4];
  figures_.garbage = f[5];
  figures_.garbage_bytes = f[6];
  figures_.removed = f[7];
  figures_.spared = f[8];
  figures_.resumed = state.resumed + 1;
  phase_ = state.phase;
  return ok_status();
}

Status Collector::forget() {
  DIMS_ASSIGN(const auto row, catalog_.refs_.get(kCollectStateKey));
  if (row) DIMS_TRY(catalog_.refs_.remove(kCollectStateKey, row->revision));
  const std::vector<std::string> none;
  return tidy_runs(options_.space, &none);
}

Status Collector::step_roots() {
  if (!roots_) {
    DIMS_ASSIGN(const bool went_on, go_on());
    return went_on ? ok_status() : begin();
  }
  DIMS_ASSIGN(const bool more, roots_->step());
  figures_.roots = roots_->figures();
  figures_.cost_bytes += options_.rows_a_step * kRowCostBytes;
  if (more) return ok_status();
  roots_.reset();
  phase_ = CollectorPhase::kTouched;
  return ok_status();
}

// Whatever was put or touched within the grace is somebody's upload: it stays, with all below it.
Status Collector::step_touched() {
  DIMS_ASSIGN(const auto rows, store_.list_rows(row_after_, options_.rows_a_step));
  std::vector<ObjectKey> ahead;
  for (const contract::ObjectRow& row : rows) {
    row_after_ = row.key;
    if (row.touched_s > began_s_ + contract::kTouchAheadMaxSeconds) ahead.push_back(row.key);
    if (row.level == 0 || row.touched_s < touched_before_s_) continue;
    DIMS_TRY(marker_->add_node(row.key, row.level));
  }
  // Left alone they would stay until that day, whether somebody needs them or not.
  if (!ahead.empty() && !std::exchange(told_of_ahead_, true)) {
    spdlog::warn(
        "collection: object {} and perhaps others were touched in the future: the clock "
        "was wrong once. They count as touched now",
        ahead.front().id.hex());
  }
  if (!ahead.empty() && !options_.dry_run) DIMS_TRY(store_.touch(ahead));
  figures_.cost_bytes += rows.size() * kRowCostBytes;
  if (rows.size() < options_.rows_a_step) {
    row_after_.reset();
    phase_ = CollectorPhase::kMark;
  }
  return ok_status();
}

Status Collector::step_mark() {
  const std::uint64_t before = marker_->bytes_read();
  DIMS_ASSIGN(const bool more, marker_->step(options_.nodes_a_step));
  figures_.nodes_marked = marker_->nodes();
  figures_.cost_bytes += marker_->bytes_read() - before;
  if (more) return ok_status();
  phase_ = CollectorPhase::kFind;
  return ok_status();
}

Status Collector::step_find() {
  if (!marked_) {
    marked_ = std::make_unique<KeyCursor>(marker_->marked(row_after_));
    DIMS_ASSIGN(marked_at_, marked_->next());
  }
  DIMS_ASSIGN(const auto rows, store_.list_rows(row_after_, options_.rows_a_step));
  for (const contract::ObjectRow& row : rows) {
    row_after_ = row.key;
    ++figures_.objects;
    while (marked_at_ && marked_at_->key < row.key) {
      DIMS_ASSIGN(marked_at_, marked_->next());
    }
    if (marked_at_ && marked_at_->key == row.key) continue;
    const bool old = row.touched_s < touched_before_s_;
    if (old) {
      ++figures_.garbage;
      figures_.garbage_bytes += row.object_bytes;
    }
    // A young node is not swept, but the sweep looks after what it names.
    if (old || row.level > 0) {
      DIMS_TRY(dead_[std::min<std::size_t>(row.level, dead_.size() - 1)]->add(row.key));
    }
  }
  figures_.cost_bytes += rows.size() * kRowCostBytes;
  if (rows.size() == options_.rows_a_step) return ok_status();
  marked_.reset();
  marked_at_.reset();
  row_after_.reset();
  phase_ = options_.dry_run ? CollectorPhase::kDone : CollectorPhase::kSweep;
  return ok_status();
}

Status Collector::touch_children(const std::vector<ObjectKey>& nodes) {
  Status status;
  store_.get(nodes, [&](std::size_t, Result<Bytes> node) {
    if (!node.ok()) return true;  // damaged: whoever puts it again names its children again
    const auto head = format::parse_head(*node);
    if (!head.ok()) return true;
    std::vector<ObjectKey> children;
    for (const ObjectKey& child : head->children) {
      if (!child.id.is_zero()) children.push_back(child);
    }
    status = store_.touch(children);
    return status.ok();
  });
  return status;
}

Status Collector::step_sweep() {
  if (level_ == dead_.size()) --level_;
  if (!dead_cursor_) {
    dead_cursor_ =
        std::make_unique<KeyCursor>(std::vector<KeyRuns*>{dead_[level_].get()}, dead_after_);
  }
  std::vector<ObjectKey> keys;
  while (keys.size() < options_.rows_a_step) {
    DIMS_ASSIGN(const auto entry, dead_cursor_->next());
    if (!entry) break;
    keys.push_back(entry->key);
  }
  if (keys.empty()) {
    dead_cursor_.reset();
    dead_after_.reset();
    if (level_ == 0) {
      phase_ = CollectorPhase::kReclaim;
    } else {
      --level_;
    }
    return ok_status();
  }
  DIMS_ASSIGN(const auto outcomes, store_.remove_untouched(keys, touched_before_s_));
  std::vector<ObjectKey> touched;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (outcomes[i] == contract::RemoveOutcome::kRemoved) ++figures_.removed;
    if (outcomes[i] != contract::RemoveOutcome::kTouched) continue;
    ++figures_.spared;
    touched.push_back(keys[i]);
  }
  figures_.cost_bytes += keys.size() * kRemoveCostBytes;
  if (level_ > 0 && !touched.empty()) DIMS_TRY(touch_children(touched));
  dead_after_ = keys.back();
  return ok_status();
}

Result<bool> Collector::do_step(const std::function<bool()>& cancelled) {
  switch (phase_) {
    case CollectorPhase::kRoots:
      DIMS_TRY(step_roots());
      return true;
    case CollectorPhase::kTouched:
      DIMS_TRY(step_touched());
      return true;
    case CollectorPhase::kMark:
      DIMS_TRY(step_mark());
      return true;
    case CollectorPhase::kFind:
      DIMS_TRY(step_find());
      return phase_ != CollectorPhase::kDone;
    case CollectorPhase::kSweep:
      DIMS_TRY(step_sweep());
      return true;
    case CollectorPhase::kReclaim:
      // Also if this one removed nothing: the last one may have been cut short before this.
      DIMS_TRY(store_.reclaim(cancelled));
      if (lasting()) DIMS_TRY(forget());
      phase_ = CollectorPhase::kDone;
      return false;
    case CollectorPhase::kDone:
      return false;
  }
  return false;
}

// A part of what was done: so that a long mark has a few hundred run files and no more.
Status Collector::save_now_and_then() {
  constexpr int kPart = 64;
  const auto now = clock_.boottime();
  if (now - saved_ < std::max(options_.save_every, (now - started_) / kPart)) return ok_status();
  saved_ = now;
  return save();
}

Result<bool> Collector::step(const std::function<bool()>& cancelled) {
  auto more = do_step(cancelled);
  if (more.ok() && *more) {
    // Without it a restart costs more. A disk that is full must not end what gives space back.
    (void)save_now_and_then();
  } else if (!more.ok() && more.error().code != ErrorCode::kCancelled && lasting()) {
    (void)forget();
  }
  return more;
}

}  // namespace dims::catalog
