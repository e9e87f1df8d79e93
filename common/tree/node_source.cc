#include "common/tree/node_source.h"

namespace dims::tree {

using format::Inner;
using format::Leaf;
using format::Reference;

Status RemoteNodeSource::load(std::span<const Reference> refs, const Sink& sink) {
  std::vector<format::ObjectKey> keys;
  keys.reserve(refs.size());
  for (const Reference& ref : refs) keys.push_back(ref.object_key());
  Status first_error;
  const Status status =
      remote_.get(image_, keys, priority_, [&](std::size_t index, Result<Bytes> object) {
        if (!first_error.ok()) return;
        first_error = object.ok() ? sink(index, std::move(object).value()) : Status(object.error());
      });
  return first_error.ok() ? status : first_error;
}

namespace {

struct Place {
  Reference ref;
  std::uint64_t first_page = 0;
};

// Levels up to this are expanded all at once below one node: 32 x 32 leaves with the default
// fan-out.
constexpr std::uint8_t kBatchLevel = 3;

class Visit {
 public:
  Visit(const TreeShape& shape, PageRange within, NodeSource& source, const LeafVisitor& visitor)
      : shape_(shape), within_(within), source_(source), visitor_(visitor) {}

  Status node(const Place& place, std::uint8_t level) {
    if (level <= kBatchLevel) return batch({place}, level);
    DIMS_ASSIGN(std::vector<Place> children, expand({place}, level));
    for (const Place& child : children) DIMS_TRY(node(child, static_cast<std::uint8_t>(level - 1)));
    return ok_status();
  }

 private:
  Status batch(std::vector<Place> places, std::uint8_t level) {
    for (; level > 1; --level) {
      DIMS_ASSIGN(places, expand(places, level));
    }
    std::vector<Leaf> leaves(places.size());
    std::vector<Reference> refs;
    for (const Place& place : places) refs.push_back(place.ref);
    DIMS_TRY(source_.load(refs, [&](std::size_t i, const Bytes& object) -> Status {
      DIMS_ASSIGN(leaves[i], format::decode_leaf(shape_.parameters, refs[i], object));
      return ok_status();
    }));
    for (std::size_t i = 0; i < places.size(); ++i) {
      DIMS_TRY(visitor_(places[i].first_page, places[i].ref, std::move(leaves[i])));
    }
    return ok_status();
  }

  Result<std::vector<Place>> expand(const std::vector<Place>& places, std::uint8_t level) {
    std::vector<Reference> refs;
    for (const Place& place : places) refs.push_back(place.ref);
    std::vector<Inner> nodes(places.size());
    DIMS_TRY(source_.load(refs, [&](std::size_t i, const Bytes& object) -> Status {
      DIMS_ASSIGN(nodes[i], format::decode_inner(shape_.parameters, level, refs[i], object));
      return ok_status();
    }));
    const std::uint64_t below =
        format::pages_below(shape_.parameters, static_cast<std::uint8_t>(level - 1));
    std::vector<Place> children;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      for (std::size_t slot = 0; slot < nodes[i].slots.size(); ++slot) {
        const Place child{nodes[i].slots[slot], places[i].first_page + slot * below};
        if (child.ref.is_zero()) continue;
        if (child.first_page >= within_.end() || child.first_page + below <= within_.first)
          continue;
        children.push_back(child);
      }
    }
    return children;
  }

  const TreeShape& shape_;
  PageRange within_;
  NodeSource& source_;
  const LeafVisitor& visitor_;
};

}  // namespace

Status visit_leaves(const TreeShape& shape, PageRange within, NodeSource& source,
                    const LeafVisitor& visit) {
  if (shape.root.is_zero() || within.count == 0) return ok_status();
  Visit walk(shape, within, source, visit);
  return walk.node({shape.root, 0}, format::root_level(shape.parameters, shape.image_bytes));
}

}  // namespace dims::tree
