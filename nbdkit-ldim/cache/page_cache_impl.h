// The page cache put together: index in memory, table of segments, filling, eviction.
//
// Order of locks: sync_mutex_ > segments_mutex_ > fill_mutex_ > those inside the index and the
// table.
//   segments_mutex_  held by whoever makes or drops segments, for as long as that takes
//   fill_mutex_      short: who gets which slot, the sum of bytes
// Reads take neither. Invariant: bytes_ <= limit, where the segment that is being filled counts as
// if it were full; besides, room for one more segment is made ahead, so that what eviction carries
// over has a place.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "nbdkit-ldim/cache/cache_index.h"
#include "nbdkit-ldim/cache/cache_segment.h"
#include "nbdkit-ldim/cache/page_cache.h"
#include "nbdkit-ldim/cache/segment_table.h"

namespace dims::ldim {

class PageCacheImpl : public PageCache {
 public:
  PageCacheImpl(io::FileSystem& fs, const PageCacheOptions& options, Random& random);
  ~PageCacheImpl() override;
  // Takes in what the folder holds.
  Status load();

  CachePlace find(const ObjectId& object, std::uint32_t* pages) override;
  CacheRead read(CachePlace place, const ObjectId& object, std::uint32_t first_page,
                 MutByteView out) override;
  Status insert(const ObjectId& object, ByteView data, unsigned lives) override;
  Status sync() override;
  Status yield_space(std::uint64_t bytes) override;
  Result<std::uint64_t> verify_all() override;
  void clear() override;
  PageCacheStats stats() override;

 private:
  using SegmentPtr = std::shared_ptr<CacheSegment>;
  struct Slots {
    SegmentPtr segment;
    std::uint32_t first_slot = 0;
    std::uint32_t record_number = 0;
  };
  enum class Carry { kNothing, kUsed, kAll };

  std::shared_ptr<const CacheKeys> keys_of(const CacheSalt& salt);
  // Drops a damaged object if it still is at this place; false if it was dropped before.
  bool drop_damaged(const ObjectId& object, std::uint64_t location, const Error& why);

  // --- filling (page_cache.cc)
  bool take_slots(std::uint32_t pages, Slots& slots);
  Result<Slots> reserve(std::uint32_t pages);
  void release(const SegmentPtr& segment, bool written);
  Status write_object(const Slots& slots, const ObjectId& object, ByteView data, unsigned lives);
  void insert_failed(const Error& error);

  // --- loading (page_cache_open.cc)
  Status load_segment(std::uint64_t sequence);
  void load_records(const SegmentPtr& segment);
  void remove_file(const std::string& name);

  // --- eviction (page_cache_evict.cc); callers hold segments_mutex_
  Status start_segment();
  void close_current();
  bool room_for_segment() const;
  SegmentPtr shortest() const;       // but for the current one
  std::uint64_t free_pages() const;  // the caller holds fill_mutex_ alone
  bool grow_limit();
  void make_room_ahead();
  void give_way();
  void evict(const SegmentPtr& victim, Carry carry, std::uint32_t& budget_pages);
  std::uint32_t carry_over(const CacheSegment& victim, Carry carry, std::uint32_t budget_pages);
  // Forgets the segment and removes its files; returns how many pages that cost.
  std::uint64_t drop(const SegmentPtr& victim);
  void wait_for_writers(const SegmentPtr& segment);
  std::uint64_t verify_segment(const CacheSegment& segment);

  io::FileSystem& fs_;
  PageCacheOptions options_;
  const CacheOwner owner_;
  const std::uint32_t capacity_pages_;  // of new segments
  const std::uint64_t segment_bytes_;   // what a full new segment takes
  const CacheSalt salt_;                // of this open

  CacheIndex index_;
  TagMemory tags_;
  SegmentTable table_;

  std::mutex sync_mutex_;
  std::mutex segments_mutex_;
  std::uint64_t next_sequence_ = 1;
  std::map<CacheSalt, std::weak_ptr<const CacheKeys>> keys_;
  std::vector<SegmentPtr> undead_;  // dropped, but their files could not be removed yet

  mutable std::mutex fill_mutex_;
  std::condition_variable writers_done_;
  SegmentPtr current_;
  std::uint64_t bytes_ = 0;
  std::uint64_t limit_now_;  // below options_.limit_bytes while the disk is short
  bool folder_dirty_ = false;

  std::atomic<std::uint64_t> damaged_pages_{0};
  std::atomic<std::uint64_t> evicted_pages_{0};
  std::atomic<std::uint64_t> carried_pages_{0};
  std::atomic<std::uint64_t> failed_inserts_{0};
};

}  // namespace dims::ldim
