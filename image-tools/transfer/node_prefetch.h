// PrefetchingNodes: a NodeSource that brings the children of every inner node together with it, so
// that walking a whole tree from left to right costs a round trip a parent instead of one a leaf.
// Threads: one owner. Ownership: the remote outlives it. Memory: the children of one node a level.
#pragma once

#include <unordered_map>
#include <vector>

#include "common/tree/node_source.h"

namespace dims::transfer {

class PrefetchingNodes : public tree::NodeSource {
 public:
  PrefetchingNodes(contract::Remote& remote, const ImageId& image)
      : remote_(remote), image_(image) {}
  Status load(std::span<const format::Reference> refs, const Sink& sink) override;

 private:
  using Nodes = std::unordered_map<format::ObjectKey, Bytes, format::ObjectKeyHash>;
  Result<Bytes> take(const format::ObjectKey& key);
  Status bring_children(ByteView node);

  contract::Remote& remote_;
  const ImageId image_;
  std::vector<Nodes> levels_;  // by the children's level
};

}  // namespace dims::transfer
