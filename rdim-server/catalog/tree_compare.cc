#include "rdim-server/catalog/tree_compare.h"

#include <algorithm>
#include <iterator>

namespace dims::catalog {
namespace {

constexpr std::size_t kBatchNodes = 32;

Error no_tree(const ObjectKey& key, const char* what) {
  return make_error(ErrorCode::kCorrupt,
                    "node " + key.id.short_hex() + " does not fit its tree: " + what);
}

void sort_unique(std::vector<ObjectKey>& keys) {
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
}

// Removes from both what both have.
void subtract_common(std::vector<ObjectKey>& a, std::vector<ObjectKey>& b) {
  sort_unique(a);
  sort_unique(b);
  std::vector<ObjectKey> only_a, only_b;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(only_a));
  std::set_difference(b.begin(), b.end(), a.begin(), a.end(), std::back_inserter(only_b));
  a = std::move(only_a);
  b = std::move(only_b);
}

// The node's children go to the level below; leaves' children are chunks and stay out.
Status descend(const ObjectKey& key, const format::ObjectHead& head, std::size_t level,
               TreeCompare::Levels& at) {
  if (head.level != level) return no_tree(key, "it stands on another level");
  if (level < 2) return ok_status();
  auto& below = at[level - 1];
  for (const ObjectKey& child : head.children) {
    if (!child.id.is_zero()) below.push_back(child);
  }
  return ok_status();
}

}  // namespace

TreeCompare::TreeCompare(contract::ObjectStore& store, const ObjectKey& old_root,
                         const ObjectKey& new_root)
    : store_(store), old_root_(old_root), new_root_(new_root) {}

Status TreeCompare::place_root(const ObjectKey& root, Side& side, TreeVisitor& visitor,
                               bool is_new) {
  if (root.id.is_zero() || old_root_ == new_root_) return ok_status();
  Result<Bytes> node = make_error(ErrorCode::kInternal, "the store gave no answer");
  store_.get(std::span(&root, 1), [&](std::size_t, Result<Bytes> object) {
    node = std::move(object);
    return true;
  });
  if (!node.ok()) {
    const ErrorCode code = node.error().code;
    if (code != ErrorCode::kNotFound && code != ErrorCode::kCorrupt) return node.error();
    // An old tree that is gone compares like none.
    return is_new ? visitor.new_node(root, node.error(), nullptr) : ok_status();
  }
  DIMS_ASSIGN(const format::ObjectHead head, format::parse_head(*node));
  if (head.level < 1) return no_tree(root, "the root is a chunk");
  side.at[head.level].push_back(root);
  return ok_status();
}

void TreeCompare::begin_level() {
  subtract_common(old_.at[level_], new_.at[level_]);
  phase_ = Phase::kOld;
  at_ = 0;
}

Result<bool> TreeCompare::next_level() {
  old_.at[level_] = {};
  new_.at[level_] = {};
  while (level_ > 1) {
    --level_;
    begin_level();
    if (!old_.at[level_].empty() || !new_.at[level_].empty()) return true;
  }
  return false;
}

Status TreeCompare::step_old(TreeVisitor& visitor) {
  const auto& keys = old_.at[level_];
  const std::size_t count = std::min(kBatchNodes, keys.size() - at_);
  const std::span<const ObjectKey> batch(keys.data() + at_, count);
  at_ += count;
  for (const ObjectKey& key : batch) DIMS_TRY(visitor.old_node(key));
  if (level_ < 2) return ok_status();  // leaves of the old tree need not be read
  Status status;
  store_.get(batch, [&](std::size_t index, Result<Bytes> node) {
    if (!node.ok()) return true;  // what is gone has no children to compare
    const auto head = format::parse_head(*node);
    if (head.ok()) status = descend(batch[index], *head, level_, old_.at);
    return status.ok();
  });
  return status;
}

Status TreeCompare::step_new(TreeVisitor& visitor) {
  const auto& keys = new_.at[level_];
  const std::size_t count = std::min(kBatchNodes, keys.size() - at_);
  const std::span<const ObjectKey> batch(keys.data() + at_, count);
  at_ += count;
  Status status;
  store_.get(batch, [&](std::size_t index, Result<Bytes> node) {
    status = take_new(batch[index], std::move(node), visitor);
    return status.ok();
  });
  return status;
}

Status TreeCompare::take_new(const ObjectKey& key, Result<Bytes> node, TreeVisitor& visitor) {
  if (!node.ok()) {
    const ErrorCode code = node.error().code;
    if (code != ErrorCode::kNotFound && code != ErrorCode::kCorrupt) return node.error();
    return visitor.new_node(key, std::move(node), nullptr);
  }
  DIMS_ASSIGN(const format::ObjectHead head, format::parse_head(*node));
  DIMS_TRY(descend(key, head, level_, new_.at));
  return visitor.new_node(key, std::move(node), &head);
}

Result<bool> TreeCompare::step(TreeVisitor& visitor) {
  if (!started_) {
    started_ = true;
    DIMS_TRY(place_root(old_root_, old_, visitor, false));
    DIMS_TRY(place_root(new_root_, new_, visitor, true));
    level_ = kLevels - 1;  // no node stands so high
    return next_level();
  }
  if (level_ <= 1 && at_end()) return false;
  if (phase_ == Phase::kOld && at_ == old_.at[level_].size()) {
    phase_ = Phase::kNew;
    at_ = 0;
  }
  if (phase_ == Phase::kOld) {
    DIMS_TRY(step_old(visitor));
    return true;
  }
  if (at_ == new_.at[level_].size()) return next_level();
  DIMS_TRY(step_new(visitor));
  return true;
}

bool TreeCompare::at_end() const { return phase_ == Phase::kNew && at_ == new_.at[level_].size(); }

}  // namespace dims::catalog
