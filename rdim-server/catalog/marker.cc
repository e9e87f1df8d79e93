#include "rdim-server/catalog/marker.h"

namespace dims::catalog {
namespace {

bool absent_or_damaged(const Error& error) {
  return error.code == ErrorCode::kNotFound || error.code == ErrorCode::kCorrupt;
}

}  // namespace

Marker::Marker(contract::ObjectStore& store, const RunSpace& space, MissingSink missing)
    : store_(store), missing_(std::move(missing)) {
  for (std::size_t level = 0; level < kLevels; ++level) {
    levels_[level] = std::make_unique<KeyRuns>(space, "marked-" + std::to_string(level));
  }
}

Status Marker::add_root(const ObjectKey& root, bool strict) {
  Result<Bytes> node = make_error(ErrorCode::kInternal, "the store gave no answer");
  store_.get(std::span(&root, 1), [&](std::size_t, Result<Bytes> object) {
    node = std::move(object);
    return true;
  });
  Status why;
  if (!node.ok()) {
    if (!absent_or_damaged(node.error())) return node.error();
    why = node.error();
  } else {
    const auto head = format::parse_head(*node);
    if (head.ok() && head->level > 0) {
      return levels_[head->level]->add(root, kNode | (strict ? kStrict : 0));
    }
    why =
        head.ok() ? make_error(ErrorCode::kCorrupt, "the root of a tree is a chunk") : head.error();
  }
  return strict ? missing_(root, why.error()) : ok_status();
}

Status Marker::add_node(const ObjectKey& node, std::size_t level) {
  if (level >= kLevels) return ok_status();
  return levels_[level]->add(node, kNode);
}

Status Marker::take(const MarkedKey& entry, Result<Bytes> node) {
  const bool strict = (entry.flags & kStrict) != 0;
  if (!node.ok()) {
    if (!absent_or_damaged(node.error())) return node.error();
    return strict ? missing_(entry.key, node.error()) : ok_status();
  }
  ++nodes_;
  bytes_read_ += node->size();
  const auto head = format::parse_head(*node);
  if (!head.ok() || head->level != level_) {
    const Error why = make_error(ErrorCode::kCorrupt,
                                 "node " + entry.key.id.short_hex() + " does not fit its tree");
    return strict ? missing_(entry.key, why) : ok_status();
  }
  const auto flags = static_cast<std::uint8_t>((entry.flags & kStrict) | (level_ > 1 ? kNode : 0));
  for (const ObjectKey& child : head->children) {
    if (!child.id.is_zero()) DIMS_TRY(levels_[level_ - 1]->add(child, flags));
  }
  return ok_status();
}

Result<bool> Marker::step(std::size_t nodes) {
  if (level_ == 0) return false;
  if (level_ == kLevels) --level_;
  if (!cursor_) {
    cursor_ = std::make_unique<KeyCursor>(std::vector<KeyRuns*>{levels_[level_].get()}, after_);
  }
  std::vector<MarkedKey> batch;
  std::vector<ObjectKey> keys;
  while (batch.size() < nodes) {
    DIMS_ASSIGN(const auto entry, cursor_->next());
    if (!entry) break;
    batch.push_back(*entry);
    keys.push_back(entry->key);
  }
  if (keys.empty()) {
    cursor_.reset();
    after_.reset();
    return --level_ != 0;
  }
  Status status;
  store_.get(keys, [&](std::size_t index, Result<Bytes> node) {
    status = take(batch[index], std::move(node));
    return status.ok();
  });
  DIMS_TRY(status);
  after_ = keys.back();
  return true;
}

KeyCursor Marker::marked(const std::optional<ObjectKey>& after) {
  std::vector<KeyRuns*> all;
  for (const auto& level : levels_) all.push_back(level.get());
  return KeyCursor(all, after);
}

Result<MarkPlace> Marker::save() {
  cursor_.reset();  // reads what is about to be written
  MarkPlace place;
  place.level = static_cast<std::uint8_t>(level_);
  place.after = after_;
  place.nodes = nodes_;
  for (const auto& level : levels_) {
    DIMS_TRY(level->save());
    place.runs.push_back(level->files());
  }
  return place;
}

Status Marker::restore(const MarkPlace& place) {
  if (place.runs.size() != levels_.size() || place.level > kLevels) {
    return make_error(ErrorCode::kCorrupt, "the place of a mark does not fit");
  }
  for (std::size_t level = 0; level < levels_.size(); ++level) {
    DIMS_TRY(levels_[level]->restore(place.runs[level]));
  }
  level_ = place.level;
  after_ = place.after;
  nodes_ = place.nodes;
  return ok_status();
}

std::vector<std::string> Marker::run_paths() const {
  std::vector<std::string> out;
  for (const auto& level : levels_) {
    for (std::string& path : level->paths()) out.push_back(std::move(path));
  }
  return out;
}

}  // namespace dims::catalog
