#include "nbdkit-ldim/cache/tag_memory.h"

#include <algorithm>
#include <cstring>

namespace dims::ldim {
namespace {

constexpr std::uint32_t kHot = 3;  // misses of others that a line in use survives

std::uint64_t name_of(std::uint64_t sequence, std::uint32_t slot) {
  return sequence << 24 | slot / TagMemory::kLineTags;
}

}  // namespace

TagMemory::TagMemory(std::uint64_t bytes, std::uint32_t segment_pages)
    : lines_a_segment_((segment_pages + kLineTags - 1) / kLineTags),
      line_count_(std::max<std::uint64_t>(1, bytes / sizeof(Line))),
      lines_(std::make_unique<Line[]>(line_count_)) {}

bool TagMemory::get(std::uint64_t sequence, std::uint32_t first, std::uint32_t count,
                    std::uint8_t* out) {
  while (count != 0) {
    const std::uint32_t at = first % kLineTags;
    const std::uint32_t run = std::min(count, kLineTags - at);
    Line& line = line_of(sequence, first);
    const std::uint32_t before = line.version.load(std::memory_order_acquire);
    if (before % 2 != 0 || line.name.load(std::memory_order_acquire) != name_of(sequence, first))
      return false;
    for (std::uint32_t i = at; i < at + run; ++i) {
      // Acquire keeps the second look at the version behind these loads.
      const std::uint64_t low = line.words[2 * i].load(std::memory_order_acquire);
      const std::uint64_t high = line.words[2 * i + 1].load(std::memory_order_acquire);
      if (low == 0 && high == 0) return false;  // was not written when the line was read
      std::memcpy(out, &low, 8);
      std::memcpy(out + 8, &high, 8);
      out += crypto::kTagBytes;
    }
    if (line.version.load(std::memory_order_relaxed) != before) return false;
    if (line.heat.load(std::memory_order_relaxed) != kHot)
      line.heat.store(kHot, std::memory_order_relaxed);
    first += run;
    count -= run;
  }
  return true;
}

bool TagMemory::wants(std::uint64_t sequence, std::uint32_t slot) {
  Line& line = line_of(sequence, slot);
  if (line.name.load(std::memory_order_relaxed) == name_of(sequence, slot)) return true;
  const std::uint32_t heat = line.heat.load(std::memory_order_relaxed);
  if (heat == 0) return true;
  line.heat.store(heat - 1, std::memory_order_relaxed);
  return false;
}

void TagMemory::put(std::uint64_t sequence, std::uint32_t slot, ByteView tags) {
  Line& line = line_of(sequence, slot);
  std::uint32_t version = line.version.load(std::memory_order_relaxed);
  if (version % 2 != 0 ||
      !line.version.compare_exchange_strong(version, version + 1, std::memory_order_acq_rel)) {
    return;  // somebody else is at it
  }
  line.name.store(name_of(sequence, slot), std::memory_order_release);
  for (std::size_t i = 0; i < line.words.size(); ++i) {
    std::uint64_t word = 0;
    if (8 * i + 8 <= tags.size()) std::memcpy(&word, tags.data() + 8 * i, 8);
    line.words[i].store(word, std::memory_order_release);
  }
  line.version.store(version + 2, std::memory_order_release);
}

}  // namespace dims::ldim
