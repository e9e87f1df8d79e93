// BaseTree: which object stands at which page of the base version.
//
// Leaves are loaded when asked for and kept, decoded and compact, within a memory budget; inner
// nodes likewise. A leaf also remembers where its chunks lie in the cache, so that a hot read takes
// one table look-up and one cache read. Threads: all methods are thread-safe; stretch() runs in
// parallel. Ownership: the fetcher outlives it; views are shared and immutable but for the cached
// places. Units: pages. Errors: as the fetcher's.
#pragma once

#include <array>
#include <list>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "common/tree/node_source.h"
#include "nbdkit-ldim/fetch/fetcher.h"

namespace dims::ldim {

// One extent of a leaf, without its key: 48 bytes.
struct LeafItem {
  ObjectId object;
  mutable std::atomic<std::uint64_t> place{0};  // CachePlace, a hint
  std::uint16_t first_page = 0;                 // relative to the leaf
  std::uint16_t page_count = 0;
  std::uint16_t first_in_chunk = 0;
};

class LeafView {
 public:
  explicit LeafView(const format::Leaf& leaf);
  // The item that covers a page or the next one after it; count() if none.
  std::size_t find(std::uint32_t page) const;
  std::size_t count() const { return count_; }
  const LeafItem& item(std::size_t i) const { return items_[i]; }
  std::size_t memory_bytes() const { return sizeof(LeafView) + count_ * sizeof(LeafItem); }

 private:
  std::unique_ptr<LeafItem[]> items_;
  std::size_t count_ = 0;
};

// A stretch of the disk below one leaf, or a run of zeros as large as the tree shows it.
struct Stretch {
  std::shared_ptr<const LeafView> leaf;  // null: zeros
  std::uint64_t first_page = 0;
  std::uint64_t page_count = 0;
};

class BaseTree {
 public:
  BaseTree(Fetcher& fetcher, const tree::TreeShape& shape, std::size_t memory_budget_bytes);

  // The stretch that holds `page`.
  Result<Stretch> stretch(std::uint64_t page, FetchWait wait);
  // The full reference (with key) of the chunk at `page`; a zero reference if the page is zero.
  Result<format::Extent> extent(std::uint64_t page, FetchWait wait);
  // The whole decoded leaf (with keys) that holds `page`; empty if zeros.
  Result<format::Leaf> leaf(std::uint64_t page, FetchWait wait);

  // The base moves: a new root, of which only the leaves under `touched` differ.
  void advance(const tree::TreeShape& shape, const std::vector<PageRange>& touched);
  // The base moves to any other tree.
  void reset(const tree::TreeShape& shape);

  tree::TreeShape shape() const;
  std::size_t memory_bytes() const;

 private:
  struct Found {
    format::Reference leaf;  // zero: zeros
    std::uint64_t first_page = 0;
    std::uint64_t page_count = 0;
    std::uint64_t generation = 0;
  };
  Result<Found> descend(std::uint64_t page, FetchWait wait);

  struct Slot {
    std::shared_ptr<const LeafView> view;
    mutable std::atomic<bool> used{true};
  };
  static constexpr std::size_t kShards = 16;
  struct Shard {
    mutable std::shared_mutex mutex;
    std::unordered_map<std::uint64_t, std::unique_ptr<Slot>> leaves;  // by leaf number
    std::list<std::uint64_t> order;                                   // eviction: second chance
    std::size_t memory_bytes = 0;
  };
  Shard& shard(std::uint64_t leaf_number) { return shards_[leaf_number % kShards]; }
  void evict(Shard& shard);

  Fetcher& fetcher_;
  const std::size_t budget_bytes_;
  mutable std::shared_mutex mutex_;  // root, inner nodes, generation
  tree::TreeShape shape_;
  std::uint64_t generation_ = 1;
  std::unordered_map<std::uint64_t, std::shared_ptr<const format::Inner>>
      inner_;  // by level and place
  std::array<Shard, kShards> shards_;
};

}  // namespace dims::ldim
