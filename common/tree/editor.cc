#include "common/tree/editor.h"

namespace dims::tree {

using format::Extent;
using format::Reference;

TreeEditor::TreeEditor(const TreeShape& old_tree, const format::DomainKey& key, NodeSource& source,
                       Sink sink)
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
  const std::uint64_t below =
      format::pages_below(shape_.parameters, static_cast<std::uint8_t>(parent.level - 1));
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

Status TreeEditor::climb_to(std::uint64_t page) {
  DIMS_TRY(close_leaf());
  while (!path_.empty() &&
         path_.back().first_page + format::pages_below(shape_.parameters, path_.back().level) <=
             page) {
    DIMS_TRY(close_inner());
  }
  return ok_status();
}

TreeEditor::Child TreeEditor::child_at(std::uint64_t page) const {
  if (path_.empty()) return {root_, root_level_, 0};
  const OpenInner& open = path_.back();
  const std::uint8_t level = static_cast<std::uint8_t>(open.level - 1);
  const std::uint64_t below = format::pages_below(shape_.parameters, level);
  const std::uint64_t slot = (page - open.first_page) / below;
  return {open.node.slots[slot], level, open.first_page + slot * below};
}

Status TreeEditor::open_inner(const Child& child) {
  OpenInner open;
  open.level = child.level;
  open.first_page = child.first_page;
  open.old_ref = child.ref;
  DIMS_ASSIGN(open.node, load_inner(child.level, child.ref));
  path_.push_back(std::move(open));
  return ok_status();
}

Status TreeEditor::go_to(std::uint64_t page) {
  if (leaf_ && leaf_holds(page)) return ok_status();
  DIMS_TRY(climb_to(page));
  Child child = child_at(page);
  while (child.level > 1) {
    DIMS_TRY(open_inner(child));
    child = child_at(page);
  }
  OpenLeaf leaf;
  leaf.first_page = child.first_page;
  leaf.old_ref = child.ref;
  if (!child.ref.is_zero()) {
    DIMS_TRY(source_.load({&child.ref, 1}, [&](std::size_t, const Bytes& object) -> Status {
      DIMS_ASSIGN(leaf.leaf, format::decode_leaf(shape_.parameters, child.ref, object));
      return ok_status();
    }));
  }
  leaf_ = std::move(leaf);
  return ok_status();
}

Result<std::uint64_t> TreeEditor::clear_subtree(std::uint64_t page, std::uint64_t end) {
  if (leaf_ && leaf_holds(page)) return page;
  DIMS_TRY(climb_to(page));
  for (;;) {
    const Child child = child_at(page);
    const std::uint64_t child_end =
        std::min(child.first_page + format::pages_below(shape_.parameters, child.level),
                 pages_for(shape_.image_bytes));
    if (child.ref.is_zero()) return std::min(end, child_end);
    if (child.first_page >= page && child_end <= end) {
      DIMS_TRY(put_into_parent(child.first_page, Reference{}));
      return child_end;
    }
    if (child.level == 1) return page;
    DIMS_TRY(open_inner(child));
  }
}

bool TreeEditor::leaf_holds(std::uint64_t page) const {
  return page >= leaf_->first_page && page - leaf_->first_page < shape_.parameters.leaf_pages;
}

Status TreeEditor::check(PageRange range, const std::vector<PlacedExtent>& extents) const {
  const auto refuse = [&](const std::string& what) {
    return make_error(ErrorCode::kInvalidArgument, "page range " + std::to_string(range.first) +
                                                       "+" + std::to_string(range.count) + " " +
                                                       what);
  };
  const std::uint64_t pages = pages_for(shape_.image_bytes);
  if (range.first < next_page_) return refuse("goes backwards");
  if (range.first > pages || range.count > pages - range.first) return refuse("leaves the disk");
  std::uint64_t free_from = range.first;
  for (const PlacedExtent& e : extents) {
    if (e.first_page < free_from || e.first_page >= range.end() || e.page_count == 0 ||
        e.page_count > range.end() - e.first_page ||
        e.first_in_chunk + e.page_count > format::kMaxChunkPages || e.ref.is_zero()) {
      return refuse("does not fit its extents");
    }
    free_from = e.first_page + e.page_count;
  }
  return ok_status();
}

Status TreeEditor::replace(PageRange range, const std::vector<PlacedExtent>& extents) {
  DIMS_TRY(check(range, extents));
  next_page_ = range.end();
  std::size_t next = 0;
  std::uint64_t used = 0;  // pages of extents[next] that lie in leaves already done
  for (std::uint64_t at = range.first; at < range.end();) {
    const std::uint64_t zero_until =
        next < extents.size() ? extents[next].first_page + used : range.end();
    if (zero_until > at) {
      DIMS_ASSIGN(const std::uint64_t cleared, clear_subtree(at, zero_until));
      if (cleared > at) {
        at = cleared;
        continue;
      }
    }
    DIMS_TRY(go_to(at));
    const std::uint64_t first = leaf_->first_page;
    const std::uint64_t stop = std::min(range.end(), first + shape_.parameters.leaf_pages);
    std::vector<Extent> here;
    while (next < extents.size() && extents[next].first_page + used < stop) {
      const PlacedExtent& e = extents[next];
      const std::uint64_t from = e.first_page + used;
      const std::uint64_t to = std::min(e.first_page + e.page_count, stop);
      here.push_back({static_cast<std::uint16_t>(from - first),
                      static_cast<std::uint16_t>(to - from),
                      static_cast<std::uint16_t>(e.first_in_chunk + used), e.ref});
      used += to - from;
      if (used == e.page_count) {
        ++next;
        used = 0;
      }
    }
    leaf_->leaf.replace(static_cast<std::uint16_t>(at - first),
                        static_cast<std::uint16_t>(stop - at), here);
    at = stop;
  }
  return ok_status();
}

Result<Reference> TreeEditor::finish() {
  DIMS_TRY(close_leaf());
  while (!path_.empty()) DIMS_TRY(close_inner());
  return root_;
}

}  // namespace dims::tree
