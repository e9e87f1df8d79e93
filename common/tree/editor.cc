#include "common/tree/editor.h"

namespace dims::tree {

using format::Extent;
using format::Reference;

TreeEditor::TreeEditor(const TreeShape& old_tree, const format::DomainKey& key, NodeSource& source, Sink sink)
    : shape_(old_tree),
      key_(key),
      source_(source),
      sink_(std::move(sink)),
      root_level_(format::root_level(old_tree.parameters, old_tree.image_bytes)),
      root_(old_tree.root) {}

TreeEditor::~TreeEditor() = default;

Result<format::Inner> TreeEditor::load_inner(std::uint8_t level, const Reference& ref) {
  format::Inner node;
  node.slots.resize(shape_.parameters.fanout);
  if (ref.is_zero()) return node;
  DIMS_TRY(source_.load({&ref, 1}, [&](std::size_t, const Bytes& object) -> Status {
    DIMS_ASSIGN(node, format::decode_inner(shape_.parameters, level, ref, object));
    return ok_status();
  }));
  return node;
}

Status TreeEditor::put_into_parent(std::uint64_t first_page, const Reference& ref) {
  if (path_.empty()) {
    root_ = ref;
    return ok_status();
  }
  OpenInner& parent = path_.back();
  const std::uint64_t below = format::pages_below(shape_.parameters, static_cast<std::uint8_t>(parent.level - 1));
  Reference& slot = parent.node.slots[(first_page - parent.first_page) / below];
  if (!(slot == ref)) {
    slot = ref;
    parent.changed = true;
  }
  return ok_status();
}

Status TreeEditor::close_leaf() {
  if (!leaf_) return ok_status();
  const OpenLeaf done = std::move(*leaf_);
  leaf_.reset();
  Reference ref;
  if (!done.leaf.extents.empty()) {
    format::SealedObject sealed = format::encode_leaf(key_, done.leaf);
    ref = sealed.ref;
    if (!(ref == done.old_ref)) DIMS_TRY(sink_(std::move(sealed)));
  }
  return put_into_parent(done.first_page, ref);
}

Status TreeEditor::close_inner() {
  const OpenInner done = std::move(path_.back());
  path_.pop_back();
  Reference ref = done.old_ref;
  if (done.changed) {
    ref = Reference{};
    bool empty = true;
    for (const Reference& slot : done.node.slots) empty = empty && slot.is_zero();
    if (!empty) {
      format::SealedObject sealed = format::encode_inner(key_, done.level, done.node);
      ref = sealed.ref;
      if (!(ref == done.old_ref)) DIMS_TRY(sink_(std::move(sealed)));
    }
  }
  return put_into_parent(done.first_page, ref);
}

Status TreeEditor::go_to(std::uint64_t page) {
  const std::uint64_t leaf_pages = shape_.parameters.leaf_pages;
  const std::uint64_t leaf_first = page / leaf_pages * leaf_pages;
  if (leaf_ && leaf_->first_page == leaf_first) return ok_status();
  DIMS_TRY(close_leaf());
  while (!path_.empty() &&
         path_.back().first_page + format::pages_below(shape_.parameters, path_.back().level) <= page) {
    DIMS_TRY(close_inner());
  }
  Reference ref = root_;
  std::uint8_t level = root_level_;
  std::uint64_t first = 0;
  const auto child_of = [&](const OpenInner& open) {
    level = static_cast<std::uint8_t>(open.level - 1);
    const std::uint64_t below = format::pages_below(shape_.parameters, level);
    const std::uint64_t slot = (page - open.first_page) / below;
    ref = open.node.slots[slot];
    first = open.first_page + slot * below;
  };
  if (!path_.empty()) child_of(path_.back());
  while (level > 1) {
    OpenInner open;
    open.level = level;
    open.first_page = first;
    open.old_ref = ref;
    DIMS_ASSIGN(open.node, load_inner(level, ref));
    path_.push_back(std::move(open));
    child_of(path_.back());
  }
  OpenLeaf leaf;
  leaf.first_page = first;
  leaf.old_ref = ref;
  if (!ref.is_zero()) {
    DIMS_TRY(source_.load({&ref, 1}, [&](std::size_t, const Bytes& object) -> Status {
      DIMS_ASSIGN(leaf.leaf, format::decode_leaf(shape_.parameters, ref, object));
      return ok_status();
    }));
  }
  leaf_ = std::move(leaf);
  return ok_status();
}

Status TreeEditor::replace(PageRange range, const std::vector<PlacedExtent>& extents) {
  if (range.first < next_page_ || range.end() > pages_for(shape_.image_bytes)) {
    return make_error(ErrorCode::kInvalidArgument, "page range " + std::to_string(range.first) + "+" +
                                                       std::to_string(range.count) +
                                                       " goes backwards or leaves the disk");
  }
  next_page_ = range.end();
  const std::uint64_t leaf_pages = shape_.parameters.leaf_pages;
  std::size_t next = 0;
  std::uint64_t used = 0;  // pages of extents[next] that lie in leaves already done
  for (std::uint64_t at = range.first; at < range.end();) {
    DIMS_TRY(go_to(at));
    const std::uint64_t leaf_end = leaf_->first_page + leaf_pages;
    const std::uint64_t stop = std::min(range.end(), leaf_end);
    std::vector<Extent> here;
    while (next < extents.size() && extents[next].first_page + used < stop) {
      const PlacedExtent& e = extents[next];
      const std::uint64_t from = e.first_page + used;
      const std::uint64_t to = std::min(e.first_page + e.page_count, stop);
      here.push_back({static_cast<std::uint16_t>(from - leaf_->first_page), static_cast<std::uint16_t>(to - from),
                      static_cast<std::uint16_t>(e.first_in_chunk + used), e.ref});
      used += to - from;
      if (used == e.page_count) {
        ++next;
        used = 0;
      }
    }
    leaf_->leaf.replace(static_cast<std::uint16_t>(at - leaf_->first_page), static_cast<std::uint16_t>(stop - at), here);
    at = stop;
  }
  if (next != extents.size()) {
    return make_error(ErrorCode::kInvalidArgument, "an extent lies outside of the replaced range");
  }
  return ok_status();
}

Result<Reference> TreeEditor::finish() {
  DIMS_TRY(close_leaf());
  while (!path_.empty()) DIMS_TRY(close_inner());
  return root_;
}

}  // namespace dims::tree
