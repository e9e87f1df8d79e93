#include "rdim-server/catalog/root_walk.h"

#include <algorithm>

namespace dims::catalog {
namespace {

constexpr std::size_t kSessionsABatch = 256;
// Of a linked version: its image's chain, a head or a session led to it and so decided about it.
constexpr std::uint8_t kDecided = 1;

ObjectKey run_key(const VersionId& id) { return {{}, ObjectId{id.bytes}}; }

}  // namespace

RootWalk::RootWalk(Catalog& catalog, const Options& options, Sink sink, TroubleSink trouble)
    : catalog_(catalog),
      options_(options),
      sink_(std::move(sink)),
      trouble_(std::move(trouble)),
      linked_(options.space, "linked") {}

RootWalk::~RootWalk() {
  if (collecting_) catalog_.gate_.end_collection();
}

Status RootWalk::report(RootTrouble::Kind kind, bool fatal, const VersionId& version,
                        const std::string& where) {
  return trouble_({kind, fatal, version, where});
}

Status RootWalk::emit(const format::VersionRecord& record) {
  ++figures_.versions_kept;
  return record.root.id.is_zero() ? ok_status() : sink_(record.root, true);
}

Status RootWalk::begin() {
  if (options_.mode == Mode::kDrop || options_.guard) {
    collecting_ = true;
    for (const ObjectKey& root : catalog_.gate_.begin_collection()) {
      if (!root.id.is_zero()) DIMS_TRY(sink_(root, false));
    }
  }
  DIMS_TRY(gather_images());
  return gather_sessions();
}

// Creations write the name, then the image, then show it: nobody is between the two.
Status RootWalk::gather_images() {
  std::lock_guard naming(catalog_.naming_mutex_);
  std::shared_lock lock(catalog_.table_mutex_);
  for (const auto& [id, live] : catalog_.images_) {
    images_.push_back(id);
    std::lock_guard image(live->mutex);
    const ImageRecord& record = live->record;
    if (!record.head.is_zero()) heads_.emplace(record.head, "the head of '" + record.name + "'");
    if (!record.origin.is_zero()) {
      heads_.emplace(record.origin, "the origin of '" + record.name + "'");
    }
  }
  figures_.images = images_.size();
  return ok_status();
}

Status RootWalk::gather_sessions() {
  std::string after;
  for (;;) {
    DIMS_ASSIGN(const auto rows, catalog_.refs_.list("session/", after, kSessionsABatch));
    for (const auto& [key, value] : rows) {
      after = key;
      const auto image_id = ImageId::from_hex_text(key.substr(8, 2 * ImageId::kBytes));
      if (!image_id) continue;
      const auto live = catalog_.live(*image_id);
      if (!live.ok()) continue;  // a session of an image that is gone pins nothing
      const auto session = decode_session(value.value);
      if (!session.ok()) {
        DIMS_TRY(report(RootTrouble::Kind::kDamagedSession, true, {}, key));
        continue;
      }
      if (!session->base.is_zero()) pins_.insert(session->base);
      // Where the session stands now: on the newest version that came from its journal.
      std::lock_guard image((*live)->mutex);
      for (const JournalRecord& journal : (*live)->record.journals) {
        if (journal.newest.journal == session->journal) pins_.insert(journal.version);
      }
    }
    if (rows.size() < kSessionsABatch) return ok_status();
  }
}

Status RootWalk::step_images() {
  if (chain_) return step_chain();
  if (image_ == images_.size()) {
    for (const auto& [id, whose] : heads_) DIMS_TRY(linked_.add(run_key(id), kDecided));
    for (const VersionId& id : pins_) DIMS_TRY(linked_.add(run_key(id), kDecided));
    linked_cursor_ = std::make_unique<KeyCursor>(std::vector<KeyRuns*>{&linked_});
    DIMS_ASSIGN(linked_at_, linked_cursor_->next());
    phase_ = Phase::kUnlinked;
    return ok_status();
  }
  const ImageId id = images_[image_++];
  const auto live = catalog_.live(id);
  if (!live.ok()) return ok_status();
  DIMS_ASSIGN(const RetentionPolicy policy, catalog_.retention_of(id));
  std::lock_guard image((*live)->mutex);
  chain_.emplace(Chain{id, (*live)->record.name, (*live)->record.head, RetentionChooser(policy)});
  return ok_status();
}

Status RootWalk::step_chain() {
  for (std::size_t n = 0; n < options_.versions_a_step; ++n) {
    if (chain_->at.is_zero()) break;
    const VersionId id = chain_->at;
    const auto stored = catalog_.load_version(id);
    const bool own = !stored.ok() || stored->record.image == chain_->image;
    DIMS_TRY(linked_.add(run_key(id), own ? kDecided : 0));
    if (!stored.ok()) {
      const ErrorCode code = stored.error().code;
      if (code != ErrorCode::kNotFound && code != ErrorCode::kCorrupt) return stored.error();
      DIMS_ASSIGN(const bool gone, catalog_.is_gone(id));
      const bool expected = gone || chain_->parent_may_be_gone || heads_.contains(id);
      const auto kind = code == ErrorCode::kCorrupt ? RootTrouble::Kind::kDamagedVersion
                                                    : RootTrouble::Kind::kMissingParent;
      chain_->at = {};
      if (code == ErrorCode::kCorrupt || !expected) {
        DIMS_TRY(report(kind, true, id, "in the history of '" + chain_->name + "'"));
      }
      break;
    }
    // What a branch shares is its image's to decide: while that image lives, its own chain leads
    // there too. Whether it lives may change until its turn: see step_unlinked.
    chain_->parent_may_be_gone = !own;
    if (own) DIMS_TRY(visit(id, stored->record));
    chain_->at = stored->record.parent;
  }
  if (chain_->at.is_zero()) chain_.reset();
  return ok_status();
}

Status RootWalk::visit(const VersionId& id, const format::VersionRecord& record) {
  const bool wanted = chain_->chooser.keep(record.time_unix_ns);
  if (heads_.contains(id) || pins_.contains(id)) return ok_status();
  DIMS_ASSIGN(const bool gone, catalog_.is_gone(id));
  if (gone) return ok_status();
  if (wanted || options_.mode == Mode::kAll) return emit(record);
  return let_go(id, record);
}

// Branches lead to it; its image is gone, or went before its turn: nobody wants it for itself.
Status RootWalk::visit_shared(const VersionId& id) {
  DIMS_ASSIGN(const bool gone, catalog_.is_gone(id));
  if (gone) return ok_status();
  DIMS_ASSIGN(const auto stored, catalog_.load_version(id));
  if (options_.mode == Mode::kAll) return emit(stored.record);
  return let_go(id, stored.record);
}

Status RootWalk::let_go(const VersionId& id, const format::VersionRecord& record) {
  if (options_.mode == Mode::kDryRun) {
    ++figures_.versions_dropped;
    return ok_status();
  }
  DIMS_ASSIGN(const bool dropped, catalog_.gate_.drop(id, [&] { return catalog_.mark_gone(id); }));
  if (!dropped) return emit(record);
  ++figures_.versions_dropped;
  return ok_status();
}

Status RootWalk::step_unlinked() {
  DIMS_ASSIGN(const auto rows,
              catalog_.refs_.list(kVersionPrefix, version_after_, options_.versions_a_step));
  for (const auto& [key, value] : rows) {
    version_after_ = key;
    const auto id = VersionId::from_hex_text(std::string_view(key).substr(8));
    if (!id) continue;
    while (linked_at_ && linked_at_->key < run_key(*id)) {
      DIMS_ASSIGN(linked_at_, linked_cursor_->next());
    }
    if (linked_at_ && linked_at_->key == run_key(*id)) {
      if ((linked_at_->flags & kDecided) == 0) DIMS_TRY(visit_shared(*id));
      continue;
    }
    if (options_.mode == Mode::kAll) {
      DIMS_TRY(report(RootTrouble::Kind::kUnlinkedVersion, false, *id, "no image leads to it"));
      continue;
    }
    if (options_.mode == Mode::kDryRun) {
      ++figures_.records_removed;
      continue;
    }
    const std::uint64_t revision = value.revision;
    const std::string name = key;
    DIMS_ASSIGN(const bool dropped, catalog_.gate_.drop(*id, [&]() -> Status {
      DIMS_TRY(catalog_.refs_.remove(name, revision));
      return catalog_.forget_gone(*id);
    }));
    if (dropped) {
      ++figures_.records_removed;
      continue;
    }
    // Named, but perhaps only by somebody who was told that it is gone, or who commits it again.
    DIMS_ASSIGN(const bool gone, catalog_.is_gone(*id));
    if (gone) continue;
    const auto stored = catalog_.load_version(*id);
    if (stored.ok()) DIMS_TRY(emit(stored->record));
  }
  if (rows.size() < options_.versions_a_step) {
    phase_ = Phase::kPins;
    head_at_ = heads_.begin();
    pin_at_ = pins_.begin();
  }
  return ok_status();
}

Status RootWalk::step_pins() {
  for (std::size_t n = 0; n < options_.versions_a_step; ++n) {
    const bool head = head_at_ != heads_.end();
    if (!head && pin_at_ == pins_.end()) {
      phase_ = Phase::kDone;
      return ok_status();
    }
    const VersionId id = head ? head_at_->first : *pin_at_;
    const std::string where = head ? head_at_->second : "the base of a session";
    if (head) {
      ++head_at_;
    } else if (++pin_at_; heads_.contains(id)) {
      continue;
    }
    const auto stored = catalog_.load_version(id);
    if (!stored.ok()) {
      if (stored.error().code == ErrorCode::kNotFound) {
        using Kind = RootTrouble::Kind;
        DIMS_TRY(report(head ? Kind::kDanglingHead : Kind::kUnknownBase, head, id, where));
      } else if (stored.error().code == ErrorCode::kCorrupt) {
        DIMS_TRY(report(RootTrouble::Kind::kDamagedVersion, true, id, where));
      } else {
        return stored.error();
      }
      continue;
    }
    DIMS_ASSIGN(const bool gone, catalog_.is_gone(id));
    if (gone) {
      DIMS_TRY(report(RootTrouble::Kind::kDroppedHead, head, id, where));
      continue;
    }
    DIMS_TRY(emit(stored->record));
  }
  return ok_status();
}

Result<bool> RootWalk::step() {
  switch (phase_) {
    case Phase::kBegin:
      DIMS_TRY(begin());
      phase_ = Phase::kImages;
      return true;
    case Phase::kImages:
      DIMS_TRY(step_images());
      return true;
    case Phase::kUnlinked:
      DIMS_TRY(step_unlinked());
      return true;
    case Phase::kPins:
      DIMS_TRY(step_pins());
      return true;
    case Phase::kDone:
      return false;
  }
  return false;
}

}  // namespace dims::catalog
