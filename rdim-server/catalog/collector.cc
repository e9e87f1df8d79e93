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

std::string_view name_of(CollectorPhase phase) {
  switch (phase) {
    case CollectorPhase::kRoots:
      return "roots";
    case CollectorPhase::kTouched:
      return "touched";
    case CollectorPhase::kMark:
      return "mark";
    case CollectorPhase::kFind:
      return "find";
    case CollectorPhase::kSweep:
      return "sweep";
    case CollectorPhase::kReclaim:
      return "reclaim";
    case CollectorPhase::kDone:
      return "done";
  }
  return "done";
}

Collector::Collector(Catalog& catalog, contract::ObjectStore& store, Clock& clock,
                     const CollectorOptions& options)
    : catalog_(catalog),
      store_(store),
      clock_(clock),
      options_(options),
      marker_(store, options.space, [](const ObjectKey& node, const Error& why) -> Status {
        return stopped("node " + node.id.hex() + " of a version that stays: " + why.message);
      }) {
  for (std::size_t level = 0; level < dead_.size(); ++level) {
    dead_[level] = std::make_unique<KeyRuns>(options.space, "dead-" + std::to_string(level));
  }
}

Status Collector::begin() {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count();
  began_s_ = static_cast<std::uint64_t>(std::max<std::int64_t>(now, 0));
  const auto grace = static_cast<std::uint64_t>(options_.upload_grace.count());
  touched_before_s_ = began_s_ > grace ? began_s_ - grace : 0;
  // First of all: whoever comes from now on leaves his mark on what he relies on.
  if (!options_.dry_run) store_.set_touch_floor(began_s_);
  RootWalk::Options walk;
  walk.mode = options_.dry_run ? RootWalk::Mode::kDryRun : RootWalk::Mode::kDrop;
  walk.space = options_.space;
  walk.versions_a_step = std::max<std::size_t>(options_.rows_a_step / 8, 1);
  roots_ = std::make_unique<RootWalk>(
      catalog_, walk,
      [this](const ObjectKey& root, bool strict) { return marker_.add_root(root, strict); },
      [](const RootTrouble& trouble) -> Status {
        if (!trouble.fatal) return ok_status();
        return stopped("version " + trouble.version.hex() + ", " + trouble.where +
                       ", is missing or damaged");
      });
  return ok_status();
}

Status Collector::step_roots() {
  if (!roots_) return begin();
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
    DIMS_TRY(marker_.add_node(row.key, row.level));
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
  const std::uint64_t before = marker_.bytes_read();
  DIMS_ASSIGN(const bool more, marker_.step(options_.nodes_a_step));
  figures_.nodes_marked = marker_.nodes();
  figures_.cost_bytes += marker_.bytes_read() - before;
  if (more) return ok_status();
  marked_ = std::make_unique<KeyCursor>(marker_.marked());
  DIMS_ASSIGN(marked_at_, marked_->next());
  phase_ = CollectorPhase::kFind;
  return ok_status();
}

Status Collector::step_find() {
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
  if (!dead_cursor_) {
    if (level_ == 0) {
      phase_ = CollectorPhase::kReclaim;
      return ok_status();
    }
    --level_;
    if (dead_[level_]->empty()) return ok_status();
    dead_cursor_ = std::make_unique<KeyCursor>(std::vector<KeyRuns*>{dead_[level_].get()});
  }
  std::vector<ObjectKey> keys;
  while (keys.size() < options_.rows_a_step) {
    DIMS_ASSIGN(const auto entry, dead_cursor_->next());
    if (!entry) {
      dead_cursor_.reset();
      break;
    }
    keys.push_back(entry->key);
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
  return level_ > 0 && !touched.empty() ? touch_children(touched) : ok_status();
}

Result<bool> Collector::step(const std::function<bool()>& cancelled) {
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
      phase_ = CollectorPhase::kDone;
      return false;
    case CollectorPhase::kDone:
      return false;
  }
  return false;
}

}  // namespace dims::catalog
