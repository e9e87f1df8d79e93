#include "nbdkit-ldim/fetch/base_tree.h"

#include <algorithm>

namespace dims::ldim {

using format::Extent;
using format::Inner;
using format::Leaf;
using format::Reference;

namespace {

constexpr std::size_t kMaxInnerNodes = 4096;  // about 10 MB with the default fan-out

std::uint64_t inner_key(std::uint8_t level, std::uint64_t first_page) {
  return first_page << 8 | level;  // pages fit in 44 bits (kMaxImageBytes)
}

}  // namespace

LeafView::LeafView(const Leaf& leaf)
    : items_(std::make_unique<LeafItem[]>(leaf.extents.size())), count_(leaf.extents.size()) {
  for (std::size_t i = 0; i < count_; ++i) {
    const Extent& e = leaf.extents[i];
    items_[i].object = e.ref.id;
    items_[i].first_page = e.first_page;
    items_[i].page_count = e.page_count;
    items_[i].first_in_chunk = e.first_in_chunk;
  }
}

std::size_t LeafView::find(std::uint32_t page) const {
  std::size_t low = 0;
  std::size_t high = count_;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (std::uint32_t{items_[middle].first_page} + items_[middle].page_count <= page)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

BaseTree::BaseTree(Fetcher& fetcher, const tree::TreeShape& shape, std::size_t memory_budget_bytes)
    : fetcher_(fetcher), budget_bytes_(memory_budget_bytes), shape_(shape) {}

tree::TreeShape BaseTree::shape() const {
  const std::shared_lock lock(mutex_);
  return shape_;
}

Result<BaseTree::Found> BaseTree::descend(std::uint64_t page, FetchWait wait) {
  Found found;
  std::shared_lock lock(mutex_);
  found.generation = generation_;
  const format::TreeParameters parameters = shape_.parameters;
  Reference ref = shape_.root;
  std::uint8_t level = format::root_level(parameters, shape_.image_bytes);
  std::uint64_t first = 0;
  for (;;) {
    if (ref.is_zero() || level == 1) {
      found.leaf = ref;
      found.first_page = first;
      found.page_count = format::pages_below(parameters, level);
      return found;
    }
    std::shared_ptr<const Inner> node;
    const auto known = inner_.find(inner_key(level, first));
    if (known != inner_.end()) {
      node = known->second;
    } else {
      lock.unlock();
      DIMS_ASSIGN(const Bytes object, fetcher_.node(ref, wait));
      DIMS_ASSIGN(Inner inner, format::decode_inner(parameters, level, ref, object));
      node = std::make_shared<const Inner>(std::move(inner));
      {
        const std::unique_lock change(mutex_);
        if (generation_ == found.generation) {
          if (inner_.size() >= kMaxInnerNodes) inner_.clear();
          inner_[inner_key(level, first)] = node;
        }
      }
      lock.lock();
      if (generation_ != found.generation) {  // the base moved meanwhile: start again
        lock.unlock();
        return descend(page, wait);
      }
    }
    --level;
    const std::uint64_t below = format::pages_below(parameters, level);
    const std::uint64_t slot = (page - first) / below;
    ref = node->slots[slot];
    first += slot * below;
  }
}

Result<Stretch> BaseTree::stretch(std::uint64_t page, FetchWait wait) {
  // Leaf size never changes in the life of a disk, so reading it without the lock is safe.
  const std::uint64_t leaf_pages = shape_.parameters.leaf_pages;
  const std::uint64_t number = page / leaf_pages;
  Shard& home = shard(number);
  {
    const std::shared_lock lock(home.mutex);
    const auto known = home.leaves.find(number);
    if (known != home.leaves.end()) {
      if (!known->second->used.load(std::memory_order_relaxed))
        known->second->used.store(true, std::memory_order_relaxed);
      return Stretch{known->second->view, number * leaf_pages, leaf_pages};
    }
  }
  DIMS_ASSIGN(const Found found, descend(page, wait));
  if (found.leaf.is_zero()) return Stretch{nullptr, found.first_page, found.page_count};
  DIMS_ASSIGN(const Bytes object, fetcher_.node(found.leaf, wait));
  DIMS_ASSIGN(const Leaf leaf, format::decode_leaf(shape_.parameters, found.leaf, object));
  auto view = std::make_shared<const LeafView>(leaf);
  // Enter it only if the base did not move: a leaf of the old tree must not be found later.
  const std::shared_lock still(mutex_);
  if (generation_ == found.generation) {
    const std::unique_lock lock(home.mutex);
    auto slot = std::make_unique<Slot>();
    slot->view = view;
    if (home.leaves.emplace(number, std::move(slot)).second) {
      home.order.push_back(number);
      home.memory_bytes += view->memory_bytes();
      evict(home);
    }
  }
  return Stretch{std::move(view), found.first_page, found.page_count};
}

void BaseTree::evict(Shard& home) {
  while (home.memory_bytes > budget_bytes_ / kShards && home.order.size() > 1) {
    const std::uint64_t oldest = home.order.front();
    home.order.pop_front();
    const auto at = home.leaves.find(oldest);
    if (at == home.leaves.end()) continue;
    if (at->second->used.exchange(false)) {
      home.order.push_back(oldest);
      continue;
    }
    home.memory_bytes -= at->second->view->memory_bytes();
    home.leaves.erase(at);
  }
}

Result<Leaf> BaseTree::leaf(std::uint64_t page, FetchWait wait) {
  DIMS_ASSIGN(const Found found, descend(page, wait));
  if (found.leaf.is_zero()) return Leaf{};
  DIMS_ASSIGN(const Bytes object, fetcher_.node(found.leaf, wait));
  return format::decode_leaf(shape_.parameters, found.leaf, object);
}

Result<Extent> BaseTree::extent(std::uint64_t page, FetchWait wait) {
  DIMS_ASSIGN(const Leaf leaf, this->leaf(page, wait));
  const Extent* e = leaf.find(static_cast<std::uint16_t>(page % shape_.parameters.leaf_pages));
  return e == nullptr ? Extent{} : *e;
}

void BaseTree::advance(const tree::TreeShape& shape, const std::vector<PageRange>& touched) {
  const std::unique_lock lock(mutex_);
  shape_.root = shape.root;
  ++generation_;
  inner_.clear();
  const std::uint64_t leaf_pages = shape_.parameters.leaf_pages;
  for (const PageRange range : touched) {
    if (range.count == 0) continue;
    for (std::uint64_t number = range.first / leaf_pages; number <= (range.end() - 1) / leaf_pages;
         ++number) {
      Shard& home = shard(number);
      const std::unique_lock shard_lock(home.mutex);
      const auto at = home.leaves.find(number);
      if (at == home.leaves.end()) continue;
      home.memory_bytes -= at->second->view->memory_bytes();
      home.leaves.erase(at);
      home.order.remove(number);
    }
  }
}

void BaseTree::reset(const tree::TreeShape& shape) {
  const std::unique_lock lock(mutex_);
  shape_.root = shape.root;
  ++generation_;
  inner_.clear();
  for (Shard& home : shards_) {
    const std::unique_lock shard_lock(home.mutex);
    home.leaves.clear();
    home.order.clear();
    home.memory_bytes = 0;
  }
}

std::size_t BaseTree::memory_bytes() const {
  std::size_t total = 0;
  for (const Shard& home : shards_) {
    const std::shared_lock lock(home.mutex);
    total += home.memory_bytes;
  }
  return total;
}

}  // namespace dims::ldim
