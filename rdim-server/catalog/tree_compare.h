// TreeCompare: what a new tree has that an old one has not, found level by level from the roots,
// skipping equal ids: cost grows with the change. Works on sealed nodes, by what they show in
// clear.
//
// A node counts as shared if it stands in both trees below parents that differ. One that both trees
// have in different places, on one side below a shared parent, may be reported all the same: both
// lists may name a little more than the exact difference of the sets, and never less.
//
// Threads: one owner. Ownership: the store outlives it. Errors: kCorrupt for nodes that form no
// tree; what is missing goes to the visitor. Memory: the differing ids of two levels.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "common/contract/object_store.h"

namespace dims::catalog {

using format::ObjectKey;

class TreeVisitor {
 public:
  virtual ~TreeVisitor() = default;
  // Parents come before children. An error is kNotFound or kCorrupt: its children stay unseen.
  virtual Status new_node(const ObjectKey& key, Result<Bytes> node,
                          const format::ObjectHead* head) = 0;
  virtual Status old_node(const ObjectKey& key) = 0;
};

class TreeCompare {
 public:
  static constexpr std::size_t kLevels = 17;  // more than any node's level, as the format allows it
  using Levels = std::array<std::vector<ObjectKey>, kLevels>;

  // Zero ids: an empty tree.
  TreeCompare(contract::ObjectStore& store, const ObjectKey& old_root, const ObjectKey& new_root);

  // Handles the next few nodes. False: nothing was left.
  Result<bool> step(TreeVisitor& visitor);

 private:
  struct Side {
    Levels at;  // by level, ids still to be handled
  };
  enum class Phase { kOld, kNew };

  Status place_root(const ObjectKey& root, Side& side, TreeVisitor& visitor, bool is_new);
  void begin_level();
  Status step_old(TreeVisitor& visitor);
  Status step_new(TreeVisitor& visitor);
  Status take_new(const ObjectKey& key, Result<Bytes> node, TreeVisitor& visitor);
  Result<bool> next_level();
  bool at_end() const;

  contract::ObjectStore& store_;
  ObjectKey old_root_, new_root_;
  Side old_, new_;
  bool started_ = false;
  std::size_t level_ = 0;
  Phase phase_ = Phase::kOld;
  std::size_t at_ = 0;  // in the current level's list of the current phase
};

}  // namespace dims::catalog
