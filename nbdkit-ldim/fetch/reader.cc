#include "nbdkit-ldim/fetch/reader.h"

#include <algorithm>
#include <map>

namespace dims::ldim {

using format::Extent;
using format::Leaf;
using format::Reference;

BaseReader::BaseReader(BaseTree& tree, PageCache& cache, Fetcher& fetcher)
    : tree_(tree), cache_(cache), fetcher_(fetcher) {}

Status BaseReader::read(ByteRange range, std::uint8_t* out, FetchWait wait, bool* missed) {
  if (missed != nullptr) *missed = false;
  const PageRange pages = pages_touched(range);
  if (range.offset % kPageBytes == 0 && range.count % kPageBytes == 0)
    return read_pages(pages, out, wait, missed);
  // Partial pages at the edges go through a bounce page; what lies between them does not.
  std::uint64_t at = range.offset;
  while (at < range.end()) {
    const std::uint64_t in_page = at % kPageBytes;
    const std::uint64_t left = range.end() - at;
    std::uint8_t* const to = out + (at - range.offset);
    if (in_page == 0 && left >= kPageBytes) {
      const std::uint64_t whole = left / kPageBytes;
      bool one_missed = false;
      DIMS_TRY(read_pages({page_of(at), whole}, to, wait, &one_missed));
      if (missed != nullptr) *missed = *missed || one_missed;
      at += whole * kPageBytes;
      continue;
    }
    std::array<std::uint8_t, kPageBytes> bounce;
    bool one_missed = false;
    DIMS_TRY(read_pages({page_of(at), 1}, bounce.data(), wait, &one_missed));
    if (missed != nullptr) *missed = *missed || one_missed;
    const std::uint64_t n = std::min(left, kPageBytes - in_page);
    std::memcpy(to, bounce.data() + in_page, static_cast<std::size_t>(n));
    at += n;
  }
  return ok_status();
}

Status BaseReader::read_pages(PageRange pages, std::uint8_t* out, FetchWait wait, bool* missed) {
  std::vector<Missing> missing;
  DIMS_TRY(collect(pages, out, wait, missing));
  if (missing.empty()) return ok_status();
  if (missed != nullptr) *missed = true;
  counters_.reads_missed.fetch_add(1, std::memory_order_relaxed);
  return fetch_missing(missing, contract::Priority::kDemand, wait);
}

// Fills `out` (if given) with zeros and cached pages; lists the rest.
Status BaseReader::collect(PageRange pages, std::uint8_t* out, FetchWait wait,
                           std::vector<Missing>& missing) {
  for (std::uint64_t at = pages.first; at < pages.end();) {
    DIMS_ASSIGN(const Stretch stretch, tree_.stretch(at, wait));
    const std::uint64_t stop = std::min(pages.end(), stretch.first_page + stretch.page_count);
    const auto zero_to = [&](std::uint64_t to) {
      if (out != nullptr)
        std::memset(out + (at - pages.first) * kPageBytes, 0,
                    static_cast<std::size_t>((to - at) * kPageBytes));
      if (out != nullptr) counters_.pages_zero.fetch_add(to - at, std::memory_order_relaxed);
      at = to;
    };
    if (stretch.leaf == nullptr) {
      zero_to(stop);
      continue;
    }
    const LeafView& leaf = *stretch.leaf;
    for (std::size_t i = leaf.find(static_cast<std::uint32_t>(at - stretch.first_page)); at < stop;
         ++i) {
      if (i == leaf.count()) {
        zero_to(stop);
        break;
      }
      const LeafItem& item = leaf.item(i);
      const std::uint64_t item_first = stretch.first_page + item.first_page;
      if (item_first > at) zero_to(std::min(stop, item_first));
      if (at == stop) break;
      const std::uint64_t to = std::min(stop, item_first + item.page_count);
      const auto in_chunk = static_cast<std::uint32_t>(item.first_in_chunk + (at - item_first));
      std::uint8_t* const place_out =
          out == nullptr ? nullptr : out + (at - pages.first) * kPageBytes;
      const auto bytes = static_cast<std::size_t>((to - at) * kPageBytes);
      CachePlace place{item.place.load(std::memory_order_relaxed)};
      CacheRead got = CacheRead::kGone;
      if (place_out != nullptr && place.known())
        got = cache_.read(place, item.object, in_chunk, {place_out, bytes});
      if (got == CacheRead::kGone) {
        std::uint32_t present = 0;
        place = cache_.find(item.object, &present);
        item.place.store(place.value, std::memory_order_relaxed);
        if (place.known() && present >= in_chunk + (to - at)) {
          got = place_out == nullptr
                    ? CacheRead::kOk
                    : cache_.read(place, item.object, in_chunk, {place_out, bytes});
        }
      }
      if (got == CacheRead::kOk) {
        if (place_out != nullptr) counters_.pages_hit.fetch_add(to - at, std::memory_order_relaxed);
      } else {
        missing.push_back(
            {at, static_cast<std::uint32_t>(to - at), in_chunk, place_out, item.object});
      }
      at = to;
    }
  }
  return ok_status();
}

Status BaseReader::fetch_missing(const std::vector<Missing>& missing, contract::Priority priority,
                                 FetchWait wait) {
  // Keys are not kept in memory: the leaves are decoded again, once each.
  std::vector<Reference> refs;
  std::vector<std::vector<std::size_t>> users;  // by ref: indexes into missing
  std::unordered_map<ObjectId, std::size_t, IdHash> index;
  const std::uint64_t leaf_pages = tree_.shape().parameters.leaf_pages;
  std::uint64_t decoded_leaf = ~std::uint64_t{0};
  Leaf leaf;
  for (std::size_t i = 0; i < missing.size(); ++i) {
    const Missing& m = missing[i];
    const auto known = index.find(m.object);
    if (known != index.end()) {
      users[known->second].push_back(i);
      continue;
    }
    if (m.page / leaf_pages != decoded_leaf) {
      DIMS_ASSIGN(leaf, tree_.leaf(m.page, wait));
      decoded_leaf = m.page / leaf_pages;
    }
    const Extent* extent = leaf.find(static_cast<std::uint16_t>(m.page % leaf_pages));
    if (extent == nullptr || !(extent->ref.id == m.object)) {
      // The base moved between the two look-ups (our own commit): read that piece anew.
      if (m.out != nullptr) DIMS_TRY(read_pages({m.page, m.count}, m.out, wait, nullptr));
      continue;
    }
    index.emplace(m.object, refs.size());
    refs.push_back(extent->ref);
    users.push_back({i});
  }
  Status bad;
  DIMS_TRY(fetcher_.chunks(refs, priority, wait, [&](std::size_t k, ByteView pages) {
    for (const std::size_t i : users[k]) {
      const Missing& m = missing[i];
      if (m.out == nullptr) continue;
      counters_.pages_missed.fetch_add(m.count, std::memory_order_relaxed);
      if ((m.first_in_chunk + std::uint64_t{m.count}) * kPageBytes > pages.size()) {
        bad = make_error(ErrorCode::kCorrupt,
                         "a chunk is shorter than its leaf says: " + m.object.short_hex());
        continue;
      }
      std::memcpy(m.out, pages.data() + m.first_in_chunk * kPageBytes, m.count * kPageBytes);
    }
  }));
  return bad;
}

Status BaseReader::ensure(PageRange pages, contract::Priority priority, FetchWait wait) {
  constexpr std::uint64_t kStep = 256;  // pages looked at before fetching: bounds memory
  for (std::uint64_t at = pages.first; at < pages.end();) {
    const std::uint64_t to = std::min(pages.end(), at + kStep);
    std::vector<Missing> missing;
    DIMS_ASSIGN(const Stretch stretch, tree_.stretch(at, wait));
    if (stretch.leaf == nullptr) {  // zeros, perhaps very many
      at = std::max(to, std::min(pages.end(), stretch.first_page + stretch.page_count));
      continue;
    }
    DIMS_TRY(collect({at, to - at}, nullptr, wait, missing));
    if (!missing.empty()) DIMS_TRY(fetch_missing(missing, priority, wait));
    at = to;
  }
  return ok_status();
}

Result<bool> BaseReader::all_here(PageRange pages) {
  std::vector<Missing> missing;
  DIMS_TRY(collect(pages, nullptr, FetchWait::kDoNotWait, missing));
  return missing.empty();
}

namespace {

// Nodes that are here already; an absent one ends the walk.
class LocalNodes : public tree::NodeSource {
 public:
  explicit LocalNodes(Fetcher& fetcher) : fetcher_(fetcher) {}
  Status load(std::span<const Reference> refs, const Sink& sink) override {
    for (std::size_t i = 0; i < refs.size(); ++i) {
      auto object = fetcher_.cached_node(refs[i]);
      if (!object)
        return make_error(ErrorCode::kNotFound,
                          "tree node " + refs[i].id.short_hex() + " is not in the cache");
      DIMS_TRY(sink(i, std::move(*object)));
    }
    return ok_status();
  }

 private:
  Fetcher& fetcher_;
};

}  // namespace

Result<Presence> BaseReader::presence(bool verify) {
  Presence presence;
  LocalNodes nodes(fetcher_);
  const tree::TreeShape shape = tree_.shape();
  Bytes scratch(format::kMaxChunkPages * kPageBytes);
  const Status walked = tree::visit_leaves(
      shape, {0, pages_for(shape.image_bytes)}, nodes,
      [&](std::uint64_t, const Reference&, const Leaf& leaf) {
        for (const Extent& e : leaf.extents) {
          presence.pages_mapped += e.page_count;
          std::uint32_t present = 0;
          const CachePlace place = cache_.find(e.ref.id, &present);
          if (!place.known() || present < std::uint32_t{e.first_in_chunk} + e.page_count) continue;
          if (verify) {
            const MutByteView out = MutByteView(scratch).first(e.page_count * kPageBytes);
            const CacheRead got = cache_.read(place, e.ref.id, e.first_in_chunk, out);
            if (got == CacheRead::kDamaged) presence.pages_damaged += e.page_count;
            if (got != CacheRead::kOk) continue;
          }
          presence.pages_present += e.page_count;
        }
        return ok_status();
      });
  presence.tree_complete = walked.ok();
  if (!walked.ok() && walked.error().code != ErrorCode::kNotFound) return walked.error();
  return presence;
}

}  // namespace dims::ldim
