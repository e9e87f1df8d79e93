// The cache's index in memory: object -> place, 16 bytes an entry.
//
// 64 shards, each an ordered linear-probing table behind a read-write lock: entries stand sorted by
// key, so that a miss ends as early as a hit and growing by a fifth at a time keeps tables 70 to 85
// % full. An entry keeps only a 64-bit key made of the object id's first bytes; whoever reads at a
// place checks the whole id (it is associated data of every page), so a collision costs one object,
// no more. Threads: all methods are thread-safe; finds run in parallel. Errors: none.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "common/base/bytes.h"

namespace dims::ldim {

// A place packed into 64 bits; 0 is "none" (sequences begin at 1).
struct PackedPlace {
  std::uint64_t value = 0;

  static PackedPlace make(std::uint64_t sequence, std::uint32_t slot, std::uint32_t pages,
                          unsigned lives) {
    return {std::uint64_t{lives} << 61 | sequence << 30 | std::uint64_t{slot} << 7 | (pages - 1)};
  }
  std::uint32_t pages() const { return static_cast<std::uint32_t>(value & 0x7f) + 1; }
  std::uint32_t slot() const { return static_cast<std::uint32_t>(value >> 7 & 0x7fffff); }
  std::uint64_t sequence() const { return value >> 30 & 0x7fffffff; }
  unsigned lives() const { return static_cast<unsigned>(value >> 61 & 3); }
  // Without the lives: what a CachePlace holds.
  std::uint64_t location() const { return value & ((std::uint64_t{1} << 61) - 1); }
};

class CacheIndex {
 public:
  struct Entry {
    std::uint64_t key = 0;
    PackedPlace place;
  };
  static_assert(sizeof(Entry) == 16);
  struct Totals {
    std::uint64_t objects = 0;
    std::uint64_t pages = 0;
    std::uint64_t memory_bytes = 0;
  };

  // `seed` spreads ids that somebody chose; any value is right.
  explicit CacheIndex(std::uint64_t seed);

  // A bijection of the id's first 8 bytes.
  std::uint64_t key_of(const ObjectId& object) const;

  std::optional<PackedPlace> find(std::uint64_t key) const;
  // Enters or replaces.
  void put(std::uint64_t key, PackedPlace place);
  // Replaces only if the entry still is at `from`.
  bool move(std::uint64_t key, PackedPlace from, PackedPlace to);
  // Removes only what is at this location. Returns whether it was.
  bool erase(std::uint64_t key, std::uint64_t location);
  // Everything that lies in a segment, in the order of slots.
  std::vector<Entry> in_segment(std::uint64_t sequence) const;
  // Forgets everything that lies in a segment; returns how many pages that were.
  std::uint64_t erase_segment(std::uint64_t sequence);
  Totals totals() const;

 private:
  static constexpr std::size_t kShards = 64;

  struct alignas(64) Shard {
    mutable std::shared_mutex mutex;
    std::vector<Entry> slots;  // homes, then a tail for what runs over the last home
    std::size_t homes = 0;
    std::size_t count = 0;
    std::uint64_t pages = 0;

    std::size_t home_of(std::uint64_t key) const;
    // Position of the key, or where it belongs.
    std::size_t lower_bound(std::uint64_t key) const;
    void insert(std::uint64_t key, PackedPlace place);
    void erase_at(std::size_t at);
    void resize(std::size_t new_homes);
    bool place_from(std::size_t at, const Entry& entry);
  };

  Shard& shard_of(std::uint64_t key) { return shards_[key % kShards]; }
  const Shard& shard_of(std::uint64_t key) const { return shards_[key % kShards]; }

  std::uint64_t seed_;
  std::array<Shard, kShards> shards_;
};

}  // namespace dims::ldim
