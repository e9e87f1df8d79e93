// The live segments of the cache by sequence number. Lookups run beside each other; a segment found
// stays usable after it left the table. Threads: all methods are thread-safe. Errors: none.
#pragma once

#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "nbdkit-ldim/cache/cache_segment.h"

namespace dims::ldim {

class SegmentTable {
 public:
  // Null if there is none.
  std::shared_ptr<CacheSegment> find(std::uint64_t sequence) const;
  bool contains(std::uint64_t sequence) const;
  void add(std::shared_ptr<CacheSegment> segment);
  void remove(std::uint64_t sequence);
  // Ascending, so the oldest first.
  std::vector<std::shared_ptr<CacheSegment>> all() const;
  // The oldest but for `keep` (may be null); null if there is no other.
  std::shared_ptr<CacheSegment> oldest(const CacheSegment* keep) const;
  std::size_t size() const;

 private:
  std::size_t position(std::uint64_t sequence) const;

  mutable std::shared_mutex mutex_;
  std::vector<std::shared_ptr<CacheSegment>> segments_;  // sorted by sequence
  std::vector<std::uint64_t> sequences_;                 // beside them, for a short search
};

}  // namespace dims::ldim
