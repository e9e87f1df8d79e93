// TreeDiff: the modified list between two versions, in parts of bounded size.
//
// Threads: one owner. Ownership: the store outlives it. Errors: kNotFound or kCorrupt when a node
// of the new tree is not there: the list would not be complete. Units: bytes of nodes a part.
#pragma once

#include "common/contract/remote.h"
#include "rdim-server/catalog/tree_compare.h"

namespace dims::catalog {

class TreeDiff : private TreeVisitor {
 public:
  TreeDiff(contract::ObjectStore& store, const ObjectKey& old_root, const ObjectKey& new_root)
      : compare_(store, old_root, new_root) {}

  // The next part, of about part_bytes (a few nodes more); nullopt at the end.
  Result<std::optional<contract::DiffPart>> next(std::size_t part_bytes);

 private:
  Status new_node(const ObjectKey& key, Result<Bytes> node,
                  const format::ObjectHead* head) override;
  Status old_node(const ObjectKey& key) override;

  TreeCompare compare_;
  contract::DiffPart part_;
  std::size_t part_bytes_ = 0;
};

// What a tree needs and the store lacks.
struct Presence {
  std::vector<ObjectKey> missing;          // at most the limit
  std::optional<DomainId> foreign_domain;  // an object of a domain that the image may not use
};
// Walks what new_root adds to old_root, down to the chunks. `allowed`: domains of the image.
Result<Presence> check_presence(contract::ObjectStore& store, const ObjectKey& old_root,
                                const ObjectKey& new_root, std::size_t missing_max,
                                const std::function<bool(const DomainId&)>& allowed);

}  // namespace dims::catalog
