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
      return levels_[head->level]->add(root, strict ? kStrict : 0);
    }
    why =
        head.ok() ? make_error(ErrorCode::kCorrupt, "the root of a tree is a chunk") : head.error();
  }
  return strict ? missing_(root, why.error()) : ok_status();
}

Status Marker::add_node(const ObjectKey& node, std::size_t level) {
  if (level >= kLevels) return ok_status();
  return levels_[level]->add(node);
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
  for (const ObjectKey& child : head->children) {
    if (!child.id.is_zero()) DIMS_TRY(levels_[level_ - 1]->add(child, entry.flags));
  }
  return ok_status();
}

Result<bool> Marker::step(std::size_t nodes) {
  if (level_ == 0) return false;
  if (!cursor_) {
    if (--level_ == 0) return false;
    if (levels_[level_]->empty()) return true;
    cursor_ = std::make_unique<KeyCursor>(std::vector<KeyRuns*>{levels_[level_].get()});
  }
  std::vector<MarkedKey> batch;
  std::vector<ObjectKey> keys;
  while (batch.size() < nodes) {
    DIMS_ASSIGN(const auto entry, cursor_->next());
    if (!entry) {
      cursor_.reset();
      break;
    }
    batch.push_back(*entry);
    keys.push_back(entry->key);
  }
  Status status;
  store_.get(keys, [&](std::size_t index, Result<Bytes> node) {
    status = take(batch[index], std::move(node));
    return status.ok();
  });
  DIMS_TRY(status);
  return true;
}

KeyCursor Marker::marked() {
  std::vector<KeyRuns*> all;
  for (const auto& level : levels_) all.push_back(level.get());
  return KeyCursor(all);
}

}  // namespace dims::catalog
