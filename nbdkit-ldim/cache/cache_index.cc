#include "nbdkit-ldim/cache/cache_index.h"

#include <algorithm>
#include <cstring>

namespace dims::ldim {
namespace {

constexpr std::size_t kFirstHomes = 32;
// Full: count * 20 > homes * 17 (85 %). Growth: by a fifth.
constexpr bool is_full(std::size_t count, std::size_t homes) { return count * 20 > homes * 17; }
constexpr std::size_t tail_for(std::size_t homes) {
  return std::min<std::size_t>(16 + homes / 16, 192);
}

}  // namespace

CacheIndex::CacheIndex(std::uint64_t seed) : seed_(seed) {
  for (Shard& shard : shards_) shard.resize(kFirstHomes);
}

std::uint64_t CacheIndex::key_of(const ObjectId& object) const {
  // The finalizer of MurmurHash3: every step can be undone, so distinct prefixes stay distinct.
  std::uint64_t x = object.prefix() ^ seed_;
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  x ^= x >> 33;
  return x;
}

std::size_t CacheIndex::Shard::home_of(std::uint64_t key) const {
  // Maps the whole key range onto [0, homes) in order.
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::size_t>((static_cast<Wide>(key) * homes) >> 64);
}

std::size_t CacheIndex::Shard::lower_bound(std::uint64_t key) const {
  std::size_t at = home_of(key);
  while (at < slots.size() && slots[at].place.value != 0 && slots[at].key < key) ++at;
  return at;
}

// Puts the entry at its sorted position, shifting what follows; false if the tail is used up.
bool CacheIndex::Shard::place_from(std::size_t at, const Entry& entry) {
  std::size_t gap = at;
  while (gap < slots.size() && slots[gap].place.value != 0) ++gap;
  if (gap >= slots.size()) return false;
  std::move_backward(slots.begin() + static_cast<std::ptrdiff_t>(at),
                     slots.begin() + static_cast<std::ptrdiff_t>(gap),
                     slots.begin() + static_cast<std::ptrdiff_t>(gap) + 1);
  slots[at] = entry;
  return true;
}

void CacheIndex::Shard::resize(std::size_t new_homes) {
  const std::vector<Entry> old = std::move(slots);
  for (;; new_homes += new_homes / 5) {
    homes = new_homes;
    slots.assign(homes + tail_for(homes), Entry{});
    std::size_t next = 0;  // entries come in order: each goes behind the one before it
    bool fits = true;
    for (const Entry& entry : old) {
      if (entry.place.value == 0) continue;
      next = std::max(next, home_of(entry.key));
      if (next >= slots.size()) {
        fits = false;
        break;
      }
      slots[next++] = entry;
    }
    if (fits) return;
  }
}

void CacheIndex::Shard::insert(std::uint64_t key, PackedPlace place) {
  if (is_full(count + 1, homes)) resize(homes + homes / 5);
  while (!place_from(lower_bound(key), {key, place})) resize(homes + homes / 5);
  ++count;
  pages += place.pages();
}

void CacheIndex::Shard::erase_at(std::size_t at) {
  --count;
  pages -= slots[at].place.pages();
  // Pull back what stands behind its home, so that no gap hides it.
  std::size_t next = at + 1;
  while (next < slots.size() && slots[next].place.value != 0 && home_of(slots[next].key) < next) {
    slots[next - 1] = slots[next];
    ++next;
  }
  slots[next - 1] = Entry{};
}

std::optional<PackedPlace> CacheIndex::find(std::uint64_t key) const {
  const Shard& shard = shard_of(key);
  const std::shared_lock lock(shard.mutex);
  const std::size_t at = shard.lower_bound(key);
  if (at >= shard.slots.size() || shard.slots[at].place.value == 0 || shard.slots[at].key != key) {
    return std::nullopt;
  }
  return shard.slots[at].place;
}

void CacheIndex::put(std::uint64_t key, PackedPlace place) {
  Shard& shard = shard_of(key);
  const std::unique_lock lock(shard.mutex);
  const std::size_t at = shard.lower_bound(key);
  if (at < shard.slots.size() && shard.slots[at].place.value != 0 && shard.slots[at].key == key) {
    shard.pages = shard.pages - shard.slots[at].place.pages() + place.pages();
    shard.slots[at].place = place;
    return;
  }
  shard.insert(key, place);
}

bool CacheIndex::move(std::uint64_t key, PackedPlace from, PackedPlace to) {
  Shard& shard = shard_of(key);
  const std::unique_lock lock(shard.mutex);
  const std::size_t at = shard.lower_bound(key);
  if (at >= shard.slots.size() || shard.slots[at].key != key ||
      shard.slots[at].place.value != from.value) {
    return false;
  }
  shard.pages = shard.pages - from.pages() + to.pages();
  shard.slots[at].place = to;
  return true;
}

bool CacheIndex::erase(std::uint64_t key, std::uint64_t location) {
  Shard& shard = shard_of(key);
  const std::unique_lock lock(shard.mutex);
  const std::size_t at = shard.lower_bound(key);
  if (at >= shard.slots.size() || shard.slots[at].place.value == 0 || shard.slots[at].key != key ||
      shard.slots[at].place.location() != location) {
    return false;
  }
  shard.erase_at(at);
  return true;
}

std::vector<CacheIndex::Entry> CacheIndex::in_segment(std::uint64_t sequence) const {
  std::vector<Entry> found;
  for (const Shard& shard : shards_) {
    const std::shared_lock lock(shard.mutex);
    for (const Entry& entry : shard.slots) {
      if (entry.place.value != 0 && entry.place.sequence() == sequence) found.push_back(entry);
    }
  }
  std::sort(found.begin(), found.end(),
            [](const Entry& a, const Entry& b) { return a.place.slot() < b.place.slot(); });
  return found;
}

std::uint64_t CacheIndex::erase_segment(std::uint64_t sequence) {
  std::uint64_t pages = 0;
  for (Shard& shard : shards_) {
    const std::unique_lock lock(shard.mutex);
    const std::uint64_t before = shard.pages;
    for (Entry& entry : shard.slots) {
      if (entry.place.value == 0 || entry.place.sequence() != sequence) continue;
      --shard.count;
      shard.pages -= entry.place.pages();
      entry = Entry{};
    }
    if (shard.pages == before) continue;
    pages += before - shard.pages;
    // Lays the rest out anew without the gaps; gives memory back when little is left.
    std::size_t homes = shard.homes;
    if (shard.count * 2 < homes) homes = std::max(kFirstHomes, shard.count * 4 / 3);
    shard.resize(homes);
  }
  return pages;
}

CacheIndex::Totals CacheIndex::totals() const {
  Totals totals;
  totals.memory_bytes = sizeof *this;
  for (const Shard& shard : shards_) {
    const std::shared_lock lock(shard.mutex);
    totals.objects += shard.count;
    totals.pages += shard.pages;
    totals.memory_bytes += shard.slots.capacity() * sizeof(Entry);
  }
  return totals;
}

}  // namespace dims::ldim
