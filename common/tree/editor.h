// TreeEditor: makes a new tree from an old one by replacing page ranges, in ascending order,
// holding one path of nodes. Serves the import (old tree empty) and the write-back (a few leaves)
// alike.
//
// Threads: one owner. Ownership: source and sink outlive it. Units: pages. Errors: what the source
// or the sink return; kInvalidArgument if ranges go backwards or leave the disk. Sealed nodes reach
// the sink children before parents; nodes that end up equal to the old ones are not emitted.
#pragma once

#include <functional>
#include <optional>

#include "common/tree/node_source.h"

namespace dims::tree {

// A run of pages on the disk that lies, in order, in one chunk.
struct PlacedExtent {
  std::uint64_t first_page = 0;
  std::uint64_t page_count = 0;
  std::uint16_t first_in_chunk = 0;
  format::Reference ref;
};

class TreeEditor {
 public:
  using Sink = std::function<Status(format::SealedObject)>;
  TreeEditor(const TreeShape& old_tree, const format::DomainKey& key, NodeSource& source,
             Sink sink);
  ~TreeEditor();

  // Replaces `range` by `extents` (inside it, ascending); the rest of the range becomes zeros.
  Status replace(PageRange range, const std::vector<PlacedExtent>& extents);
  // Seals what is open and returns the new root. The editor is spent afterwards.
  Result<format::Reference> finish();

 private:
  struct OpenInner {
    std::uint8_t level = 0;
    std::uint64_t first_page = 0;
    format::Reference old_ref;
    format::Inner node;
    bool changed = false;
  };
  struct OpenLeaf {
    std::uint64_t first_page = 0;
    format::Reference old_ref;
    format::Leaf leaf;
  };

  // A slot of the lowest open node (or the root, when none is open).
  struct Child {
    format::Reference ref;
    std::uint8_t level = 0;
    std::uint64_t first_page = 0;
  };

  Status check(PageRange range, const std::vector<PlacedExtent>& extents) const;
  Status climb_to(std::uint64_t page);  // closes what does not hold this page
  Child child_at(std::uint64_t page) const;
  Status open_inner(const Child& child);
  bool leaf_holds(std::uint64_t page) const;
  Status go_to(std::uint64_t page);  // opens the path to the leaf that holds this page
  // Makes zeros of the largest subtree that starts at `page` and ends by `end`, without loading
  // what is below it. Returns where to go on; `page` itself when a leaf must be edited there.
  Result<std::uint64_t> clear_subtree(std::uint64_t page, std::uint64_t end);
  Status close_leaf();
  Status close_inner();  // the lowest open one
  Status put_into_parent(std::uint64_t first_page, const format::Reference& ref);
  Result<format::Inner> load_inner(std::uint8_t level, const format::Reference& ref);

  TreeShape shape_;
  const format::DomainKey& key_;
  NodeSource& source_;
  Sink sink_;
  std::uint8_t root_level_;
  std::uint64_t next_page_ = 0;
  std::vector<OpenInner> path_;  // root first
  std::optional<OpenLeaf> leaf_;
  format::Reference root_;
};

}  // namespace dims::tree
