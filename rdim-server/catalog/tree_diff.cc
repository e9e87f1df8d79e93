#include "rdim-server/catalog/tree_diff.h"

#include <unordered_set>

namespace dims::catalog {
namespace {

constexpr std::size_t kBytesOfKey = 64;  // on the wire

class PresenceVisitor : public TreeVisitor {
 public:
  PresenceVisitor(contract::ObjectStore& store, std::size_t missing_max,
                  const std::function<bool(const DomainId&)>& allowed)
      : store_(store), missing_max_(missing_max), allowed_(allowed) {}

  Status new_node(const ObjectKey& key, Result<Bytes> node,
                  const format::ObjectHead* head) override {
    if (!node.ok()) {
      note_missing(key);
      return ok_status();
    }
    DIMS_ASSIGN(const std::vector<bool> still, store_.touch_present(std::span(&key, 1)));
    if (!still.front()) note_missing(key);
    for (const ObjectKey& child : head->children) {
      if (!child.id.is_zero() && !allowed_(child.domain)) found.foreign_domain = child.domain;
    }
    if (head->kind != format::ObjectKind::kLeaf || head->children.empty()) return ok_status();
    // Touched in the same step: a sweep that comes between this look and the commit spares them.
    DIMS_ASSIGN(const std::vector<bool> present, store_.touch_present(head->children));
    for (std::size_t i = 0; i < present.size(); ++i) {
      if (!present[i] && !head->children[i].id.is_zero()) note_missing(head->children[i]);
    }
    return ok_status();
  }
  Status old_node(const ObjectKey& /*key*/) override { return ok_status(); }

  bool full() const { return found.missing.size() >= missing_max_; }

  Presence found;

 private:
  void note_missing(const ObjectKey& key) {
    if (!full() && seen_.insert(key).second) found.missing.push_back(key);
  }

  contract::ObjectStore& store_;
  const std::size_t missing_max_;
  const std::function<bool(const DomainId&)>& allowed_;
  std::unordered_set<ObjectKey, format::ObjectKeyHash> seen_;
};

}  // namespace

Status TreeDiff::new_node(const ObjectKey& key, Result<Bytes> node,
                          const format::ObjectHead* /*head*/) {
  if (!node.ok()) return node.error().with_context("the new version is not complete");
  part_bytes_ += node->size() + kBytesOfKey;
  part_.keys.push_back(key);
  part_.nodes.push_back(std::move(*node));
  return ok_status();
}

Status TreeDiff::old_node(const ObjectKey& key) {
  part_bytes_ += kBytesOfKey;
  part_.removed.push_back(key);
  return ok_status();
}

Result<std::optional<contract::DiffPart>> TreeDiff::next(std::size_t part_bytes) {
  part_ = {};
  part_bytes_ = 0;
  for (;;) {
    DIMS_ASSIGN(const bool more, compare_.step(*this));
    if (part_bytes_ >= part_bytes || (!more && part_bytes_ != 0)) {
      return std::optional<contract::DiffPart>(std::move(part_));
    }
    if (!more) return std::optional<contract::DiffPart>{};
  }
}

Result<Presence> check_presence(contract::ObjectStore& store, const ObjectKey& old_root,
                                const ObjectKey& new_root, std::size_t missing_max,
                                const std::function<bool(const DomainId&)>& allowed) {
  PresenceVisitor visitor(store, missing_max, allowed);
  if (!new_root.id.is_zero() && !allowed(new_root.domain)) {
    visitor.found.foreign_domain = new_root.domain;
    return std::move(visitor.found);
  }
  TreeCompare compare(store, old_root, new_root);
  for (;;) {
    DIMS_ASSIGN(const bool more, compare.step(visitor));
    if (!more || visitor.full() || visitor.found.foreign_domain) return std::move(visitor.found);
  }
}

}  // namespace dims::catalog
