// NodeSource: where tree code gets sealed nodes from (server, local cache, memory).
// Threads: as the implementation says; RemoteNodeSource is thread-safe.
#pragma once

#include <functional>

#include "common/contract/remote.h"
#include "common/format/node.h"

namespace dims::tree {

class NodeSource {
 public:
  virtual ~NodeSource() = default;
  // sink(index, sealed object) once a reference, on the calling thread. The first error ends the
  // call.
  using Sink = std::function<Status(std::size_t index, Bytes object)>;
  virtual Status load(std::span<const format::Reference> refs, const Sink& sink) = 0;
};

class RemoteNodeSource : public NodeSource {
 public:
  RemoteNodeSource(contract::Remote& remote, const ImageId& image, contract::Priority priority)
      : remote_(remote), image_(image), priority_(priority) {}
  Status load(std::span<const format::Reference> refs, const Sink& sink) override;

 private:
  contract::Remote& remote_;
  ImageId image_;
  contract::Priority priority_;
};

// What a version's tree is made of.
struct TreeShape {
  format::TreeParameters parameters;
  std::uint64_t image_bytes = 0;
  format::Reference root;  // zero: the whole disk is zeros
};

// Visits the non-empty leaves of a tree in disk order, loading nodes in large batches. first_page
// is the leaf's place on the disk. `within` limits the visit (pages); leaves that overlap it are
// visited whole.
using LeafVisitor = std::function<Status(std::uint64_t first_page, const format::Reference& ref,
                                         format::Leaf leaf)>;
Status visit_leaves(const TreeShape& shape, PageRange within, NodeSource& source,
                    const LeafVisitor& visit);

}  // namespace dims::tree
