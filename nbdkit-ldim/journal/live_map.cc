#include "nbdkit-ldim/journal/live_map.h"

#include <algorithm>

#include <absl/container/btree_map.h>

namespace dims::ldim {

namespace {

struct Piece {
  std::uint64_t end = 0;
  std::uint32_t record = 0;
};
using Map = absl::btree_map<std::uint64_t, Piece>;

// Makes room for [from, end): what lies there is older.
void clear(Map& map, std::uint64_t from, std::uint64_t end) {
  auto it = map.lower_bound(from);
  if (it != map.begin()) {
    const auto before = std::prev(it);
    const Piece old = before->second;
    if (old.end > from) {
      before->second.end = from;
      if (old.end > end) map.emplace(end, old);
      it = map.lower_bound(from);
    }
  }
  while (it != map.end() && it->first < end) {
    const Piece old = it->second;
    it = map.erase(it);
    if (old.end > end) {
      map.emplace(end, old);
      return;
    }
  }
}

}  // namespace

std::vector<LivePiece> live_pieces(const std::vector<PackedRecord>& records) {
  Map map;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const std::uint64_t from = records[i].offset();
    const std::uint64_t end = from + records[i].count;
    const Piece piece{end, static_cast<std::uint32_t>(i)};
    const auto same = map.find(from);
    if (same != map.end() && same->second.end == end) {  // the common case: a page written again
      same->second = piece;
      continue;
    }
    clear(map, from, end);
    map.insert_or_assign(from, piece);
  }
  std::vector<LivePiece> out;
  out.reserve(map.size());
  for (const auto& [from, piece] : map) out.push_back({piece.record, {from, piece.end - from}});
  std::sort(out.begin(), out.end(), [](const LivePiece& a, const LivePiece& b) {
    return a.record != b.record ? a.record < b.record : a.range.offset < b.range.offset;
  });
  return out;
}

}  // namespace dims::ldim
