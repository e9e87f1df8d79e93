#include "common/format/node.h"

#include <algorithm>
#include <unordered_map>

#include "common/base/wire.h"

namespace dims::format {
namespace {

Error corrupt(const Reference& ref, const std::string& what) {
  return make_error(ErrorCode::kCorrupt,
                    "tree node " + ref.id.short_hex() + " is damaged: " + what);
}

// Children without repeats, in order of first use; keys in the same order.
class ChildTable {
 public:
  std::uint16_t add(const Reference& ref) {
    const auto [it, fresh] =
        index_.try_emplace(ref.object_key(), static_cast<std::uint16_t>(children_.size()));
    if (fresh) {
      children_.push_back(ref.object_key());
      keys_.push_back(ref.key);
    }
    return it->second;
  }
  const std::vector<ObjectKey>& children() const { return children_; }
  void write_keys(Writer& w) const {
    for (const Secret32& key : keys_) w.id(key);
  }

 private:
  std::unordered_map<ObjectKey, std::uint16_t, ObjectKeyHash> index_;
  std::vector<ObjectKey> children_;
  std::vector<Secret32> keys_;
};

struct Entry {
  std::uint16_t a, b, c, child;
};

// Entries (four u16 each) and the children's full references.
struct RawNode {
  std::vector<Entry> entries;
  std::vector<Reference> children;
};

Result<RawNode> decode_raw(const Reference& ref, ByteView object, ObjectKind kind,
                           std::uint8_t level, std::size_t max_entries) {
  DIMS_ASSIGN(const ObjectHead head, parse_head(object));
  if (head.kind != kind || head.level != level)
    return corrupt(ref, "not the expected kind of node");
  DIMS_ASSIGN(const Bytes data, open_object(ref, object));
  Reader r(data);
  const std::uint32_t count = r.u32();
  if (!r.ok() || count > max_entries) return corrupt(ref, "entry count");
  RawNode node;
  node.entries.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    Entry e{};
    e.a = r.u16();
    e.b = r.u16();
    e.c = r.u16();
    e.child = r.u16();
    if (!r.ok() || e.child >= head.children.size()) return corrupt(ref, "entry");
    node.entries.push_back(e);
  }
  node.children.reserve(head.children.size());
  for (const ObjectKey& child : head.children) {
    node.children.push_back({child.domain, child.id, r.id<Secret32>()});
  }
  if (!r.at_end()) return corrupt(ref, "length");
  return node;
}

}  // namespace

Status check_parameters(const TreeParameters& p) {
  if (p.leaf_pages < 32 || p.leaf_pages > 1024 || p.fanout < 4 || p.fanout > 1024 ||
      p.chunk_mean_bytes < kPageBytes || p.chunk_mean_bytes > kMaxChunkPages * kPageBytes) {
    return make_error(ErrorCode::kUnsupported,
                      "tree parameters out of range: leaf of " + std::to_string(p.leaf_pages) +
                          " pages, fan-out " + std::to_string(p.fanout) + ", chunk mean " +
                          std::to_string(p.chunk_mean_bytes));
  }
  return ok_status();
}

std::uint64_t pages_below(const TreeParameters& p, std::uint8_t level) {
  std::uint64_t pages = p.leaf_pages;
  for (unsigned i = 1; i < level; ++i) pages *= p.fanout;
  return pages;
}

std::uint8_t root_level(const TreeParameters& p, std::uint64_t image_bytes) {
  std::uint8_t level = 1;
  const std::uint64_t pages = pages_for(image_bytes);
  while (pages_below(p, level) < pages) ++level;
  return level;
}

void Leaf::replace(std::uint16_t first, std::uint16_t count, const std::vector<Extent>& with) {
  const std::uint32_t end = std::uint32_t{first} + count;
  std::vector<Extent> out;
  out.reserve(extents.size() + with.size() + 1);
  bool placed = false;
  const auto place = [&] {
    if (!placed) out.insert(out.end(), with.begin(), with.end());
    placed = true;
  };
  for (const Extent& e : extents) {
    if (e.first_page >= end) place();
    if (e.end_page() <= first || e.first_page >= end) {
      out.push_back(e);
      continue;
    }
    if (e.first_page < first) {
      Extent left = e;
      left.page_count = static_cast<std::uint16_t>(first - e.first_page);
      out.push_back(left);
    }
    if (e.end_page() > end) {
      place();
      Extent right = e;
      right.first_page = static_cast<std::uint16_t>(end);
      right.page_count = static_cast<std::uint16_t>(e.end_page() - end);
      right.first_in_chunk = static_cast<std::uint16_t>(e.first_in_chunk + (end - e.first_page));
      out.push_back(right);
    }
  }
  place();
  extents = std::move(out);
}

const Extent* Leaf::find(std::uint16_t page) const {
  auto it = std::upper_bound(extents.begin(), extents.end(), page,
                             [](std::uint16_t p, const Extent& e) { return p < e.first_page; });
  if (it == extents.begin()) return nullptr;
  --it;
  return page < it->end_page() ? &*it : nullptr;
}

SealedObject encode_leaf(const DomainKey& key, const Leaf& leaf) {
  ChildTable table;
  Bytes data;
  Writer w(data);
  w.u32(static_cast<std::uint32_t>(leaf.extents.size()));
  for (const Extent& e : leaf.extents) {
    w.u16(e.first_page);
    w.u16(e.page_count);
    w.u16(e.first_in_chunk);
    w.u16(table.add(e.ref));
  }
  table.write_keys(w);
  return seal_node(key, ObjectKind::kLeaf, 1, table.children(), data);
}

SealedObject encode_inner(const DomainKey& key, std::uint8_t level, const Inner& inner) {
  ChildTable table;
  Bytes entries;
  Writer w(entries);
  std::uint32_t count = 0;
  for (std::size_t slot = 0; slot < inner.slots.size(); ++slot) {
    if (inner.slots[slot].is_zero()) continue;
    w.u16(static_cast<std::uint16_t>(slot));
    w.u16(0);
    w.u16(0);
    w.u16(table.add(inner.slots[slot]));
    ++count;
  }
  Bytes data;
  Writer all(data);
  all.u32(count);
  all.raw(entries);
  table.write_keys(all);
  return seal_node(key, ObjectKind::kInner, level, table.children(), data);
}

Result<Leaf> decode_leaf(const TreeParameters& p, const Reference& ref, ByteView object) {
  DIMS_ASSIGN(RawNode raw, decode_raw(ref, object, ObjectKind::kLeaf, 1, p.leaf_pages));
  Leaf leaf;
  leaf.extents.reserve(raw.entries.size());
  std::uint32_t free_from = 0;
  for (const Entry& e : raw.entries) {
    if (e.a < free_from || e.b == 0 || std::uint32_t{e.a} + e.b > p.leaf_pages ||
        std::uint32_t{e.c} + e.b > kMaxChunkPages) {
      return corrupt(ref, "extent out of place");
    }
    free_from = std::uint32_t{e.a} + e.b;
    leaf.extents.push_back({e.a, e.b, e.c, raw.children[e.child]});
  }
  return leaf;
}

Result<Inner> decode_inner(const TreeParameters& p, std::uint8_t level, const Reference& ref,
                           ByteView object) {
  DIMS_ASSIGN(RawNode raw, decode_raw(ref, object, ObjectKind::kInner, level, p.fanout));
  Inner inner;
  inner.slots.resize(p.fanout);
  for (const Entry& e : raw.entries) {
    if (e.a >= p.fanout || !inner.slots[e.a].is_zero() || e.b != 0 || e.c != 0)
      return corrupt(ref, "slot");
    inner.slots[e.a] = raw.children[e.child];
  }
  return inner;
}

}  // namespace dims::format
