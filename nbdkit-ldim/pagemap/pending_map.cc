#include "nbdkit-ldim/pagemap/pending_map.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include <absl/container/btree_map.h>

namespace dims::ldim {

namespace {

// Larger ranges (only zero and trim can be) are kept as several pieces.
constexpr std::uint64_t kMaxPieceBytes = kGiB;
// remove_through() lets readers in between steps of this many pieces.
constexpr int kRemoveStep = 4096;
// repoint() likewise.
constexpr std::size_t kRepointStep = 512;

// A piece in 32 bytes, beside its key (the guest offset, 8 bytes).
struct Node {
  std::uint64_t order = 0;
  std::uint32_t count = 0;         // guest bytes of the piece
  std::uint32_t skip = 0;          // of the record, before the piece
  std::uint32_t record_count = 0;  // guest bytes of the record
  std::uint32_t file_offset = 0;
  std::uint32_t segment = 0;  // index into the table
  WriteKind kind = WriteKind::kData;
};
static_assert(sizeof(Node) == 32);

}  // namespace

struct PendingMap::Impl {
  using Map = absl::btree_map<std::uint64_t, Node>;
  struct Segment {
    std::shared_ptr<JournalSegment> segment;
    std::uint64_t pieces = 0;
  };

  mutable std::shared_mutex mutex;
  Map map;
  std::uint64_t covered = 0;
  std::uint64_t covered_data = 0;  // of it, by kData
  std::uint64_t removed_through = 0;
  std::vector<Segment> segments;  // by Node::segment; free places have no pieces
  std::vector<std::uint32_t> free_segments;
  std::unordered_map<const JournalSegment*, std::uint32_t> segment_index;

  std::uint32_t index_of(const std::shared_ptr<JournalSegment>& segment) {
    const auto [found, fresh] = segment_index.try_emplace(segment.get(), 0);
    if (!fresh) return found->second;
    if (free_segments.empty()) {
      free_segments.push_back(static_cast<std::uint32_t>(segments.size()));
      segments.emplace_back();
    }
    found->second = free_segments.back();
    free_segments.pop_back();
    segments[found->second].segment = segment;
    return found->second;
  }
  void gain(std::uint32_t index) { ++segments[index].pieces; }
  void drop(std::uint32_t index) {
    Segment& entry = segments[index];
    if (--entry.pieces > 0) return;
    segment_index.erase(entry.segment.get());
    entry.segment.reset();
    free_segments.push_back(index);
  }

  // The first piece that ends behind `offset`.
  Map::const_iterator first_at(std::uint64_t offset) const {
    auto it = map.upper_bound(offset);
    if (it != map.begin()) {
      auto before = std::prev(it);
      if (before->first + before->second.count > offset) return before;
    }
    return it;
  }

  void put(std::uint64_t from, std::uint64_t to, std::uint64_t record_offset, Node node) {
    if (from >= to) return;
    node.count = static_cast<std::uint32_t>(to - from);
    node.skip = static_cast<std::uint32_t>(from - record_offset);
    map.insert_or_assign(from, node);
    count_in(node);
    gain(node.segment);
  }

  void count_in(const Node& node) {
    covered += node.count;
    if (node.kind == WriteKind::kData) covered_data += node.count;
  }
  void count_out(const Node& node) {
    covered -= node.count;
    if (node.kind == WriteKind::kData) covered_data -= node.count;
  }

  void insert(ByteRange range, const Node& node) {
    // What overlaps is few pieces in practice: take out the older ones, put back what sticks out,
    // and fill what the newer ones leave.
    auto it = first_at(range.offset);
    if (it != map.end() && it->first == range.offset && it->second.count == range.count &&
        it->second.order <= node.order) {  // the same place again: no change of the tree's shape
      Node& same = map.find(it->first)->second;
      gain(node.segment);
      drop(same.segment);
      count_out(same);
      same = node;
      same.count = static_cast<std::uint32_t>(range.count);
      count_in(same);
      return;
    }
    std::vector<std::pair<std::uint64_t, Node>> older;
    std::uint64_t at = range.offset;
    std::vector<ByteRange> gaps;
    while (it != map.end() && it->first < range.end()) {
      if (it->second.order > node.order) {
        if (it->first > at) gaps.push_back({at, it->first - at});
        at = std::max(at, it->first + it->second.count);
        ++it;
      } else {
        older.push_back(*it);
        it = map.erase(it);
      }
    }
    if (at < range.end()) gaps.push_back({at, range.end() - at});
    gain(node.segment);  // keeps the segment's index valid while older pieces go
    for (const auto& [from, old] : older) {
      const std::uint64_t to = from + old.count;
      const std::uint64_t record_offset = from - old.skip;
      count_out(old);
      put(from, std::min(to, range.offset), record_offset, old);
      put(std::max(from, range.end()), to, record_offset, old);
      drop(old.segment);
    }
    for (const ByteRange& gap : gaps) put(gap.offset, gap.end(), range.offset, node);
    drop(node.segment);
  }

  void repoint(const MovedRecord& moved) {
    const auto old = segment_index.find(moved.old_location.segment.get());
    if (old == segment_index.end()) return;
    const std::uint32_t old_index = old->second;
    const JournalRecord& now = moved.record;
    const std::uint32_t index = index_of(now.location.segment);
    gain(index);  // keeps the index valid
    auto it = map.lower_bound(now.range.offset);
    for (; it != map.end() && it->first < now.range.end(); ++it) {
      Node& node = it->second;
      if (node.order != now.order || node.segment != old_index ||
          node.file_offset != moved.old_location.file_offset ||
          it->first + node.count > now.range.end()) {
        continue;
      }
      gain(index);
      node.segment = index;
      node.skip = static_cast<std::uint32_t>(it->first - now.range.offset);
      node.record_count = static_cast<std::uint32_t>(now.range.count);
      node.file_offset = static_cast<std::uint32_t>(now.location.file_offset);
      drop(old_index);
    }
    drop(index);
  }

  PendingPiece piece(std::uint64_t from, const Node& node) const {
    PendingPiece out;
    out.range = {from, node.count};
    out.kind = node.kind;
    out.order = node.order;
    out.record_range = {from - node.skip, node.record_count};
    out.location = {segments[node.segment].segment, node.file_offset};
    return out;
  }
};

PendingMap::PendingMap() : impl_(std::make_unique<Impl>()) {}
PendingMap::~PendingMap() = default;

void PendingMap::insert(const JournalRecord& record) {
  const std::unique_lock lock(impl_->mutex);
  // A writer that was slow to enter what has been committed meanwhile: entered now, it would hide
  // what newer committed writes left in the base.
  if (record.order <= impl_->removed_through) return;
  for (std::uint64_t done = 0; done < record.range.count; done += kMaxPieceBytes) {
    const ByteRange part{record.range.offset + done,
                         std::min(kMaxPieceBytes, record.range.count - done)};
    Node node;
    node.order = record.order;
    node.kind = record.kind;
    node.record_count = static_cast<std::uint32_t>(part.count);
    node.file_offset = static_cast<std::uint32_t>(record.location.file_offset);
    node.segment = impl_->index_of(record.location.segment);
    impl_->insert(part, node);
  }
}

std::vector<PendingPiece> PendingMap::lookup(ByteRange range) const {
  std::vector<PendingPiece> out;
  const std::shared_lock lock(impl_->mutex);
  for (auto it = impl_->first_at(range.offset); it != impl_->map.end() && it->first < range.end();
       ++it) {
    PendingPiece piece = impl_->piece(it->first, it->second);
    piece.range = intersect(piece.range, range);
    if (!piece.range.empty()) out.push_back(std::move(piece));
  }
  return out;
}

bool PendingMap::overlaps(ByteRange range) const {
  if (range.empty()) return false;
  const std::shared_lock lock(impl_->mutex);
  const auto it = impl_->first_at(range.offset);
  return it != impl_->map.end() && it->first < range.end();
}

void PendingMap::remove_through(std::uint64_t through_order) {
  std::uint64_t from = 0;
  for (;;) {
    const std::unique_lock lock(impl_->mutex);
    impl_->removed_through = std::max(impl_->removed_through, through_order);
    auto it = impl_->map.lower_bound(from);
    for (int step = 0; step < kRemoveStep; ++step) {
      if (it == impl_->map.end()) return;
      if (it->second.order > through_order) {
        ++it;
        continue;
      }
      impl_->count_out(it->second);
      impl_->drop(it->second.segment);
      it = impl_->map.erase(it);
    }
    if (it == impl_->map.end()) return;
    from = it->first;
  }
}

void PendingMap::repoint(const std::vector<MovedRecord>& moved) {
  for (std::size_t i = 0; i < moved.size();) {
    const std::unique_lock lock(impl_->mutex);
    for (const std::size_t stop = std::min(moved.size(), i + kRepointStep); i < stop; ++i)
      impl_->repoint(moved[i]);
  }
}

void PendingMap::clear() {
  const std::unique_lock lock(impl_->mutex);
  impl_->map.clear();
  impl_->covered = 0;
  impl_->covered_data = 0;
  impl_->removed_through = 0;
  impl_->segments.clear();
  impl_->free_segments.clear();
  impl_->segment_index.clear();
}

std::uint64_t PendingMap::pieces() const {
  const std::shared_lock lock(impl_->mutex);
  return impl_->map.size();
}

std::uint64_t PendingMap::covered_bytes() const {
  const std::shared_lock lock(impl_->mutex);
  return impl_->covered;
}

std::uint64_t PendingMap::journal_bytes() const {
  // A header a piece; a tag a page, and one for an edge.
  constexpr std::uint64_t kPieceBytes = 96 + 16 + 16;
  const std::shared_lock lock(impl_->mutex);
  return impl_->covered_data + impl_->covered_data / kPageBytes * 16 +
         impl_->map.size() * kPieceBytes;
}

std::vector<PageRange> PendingMap::touched_pages() const {
  std::vector<PageRange> out;
  const std::shared_lock lock(impl_->mutex);
  for (const auto& [from, node] : impl_->map) {
    const PageRange pages = pages_touched({from, node.count});
    if (!out.empty() && pages.first <= out.back().end()) {
      out.back().count = std::max(out.back().end(), pages.end()) - out.back().first;
    } else {
      out.push_back(pages);
    }
  }
  return out;
}

}  // namespace dims::ldim
