// Units of the disk: bytes, pages, ranges. A page is 4 KiB of the guest's disk.
// Threads: values. Arithmetic is unsigned 64 bit; callers keep ranges inside the disk's size.
#pragma once

#include <algorithm>
#include <cstdint>

namespace dims {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr std::uint64_t kMaxImageBytes = std::uint64_t{1} << 56;

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t count = 0;
  std::uint64_t end() const { return offset + count; }
  bool empty() const { return count == 0; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Whole pages; `first` is a page index on the disk.
struct PageRange {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  std::uint64_t end() const { return first + count; }
  friend bool operator==(const PageRange&, const PageRange&) = default;
};

inline constexpr std::uint64_t page_of(std::uint64_t offset) { return offset / kPageBytes; }
inline constexpr std::uint64_t pages_for(std::uint64_t bytes) {
  return bytes / kPageBytes + (bytes % kPageBytes != 0 ? 1 : 0);
}
inline constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}
// The pages that a byte range touches, even partly.
inline PageRange pages_touched(ByteRange range) {
  if (range.empty()) return {page_of(range.offset), 0};
  const std::uint64_t first = page_of(range.offset);
  return {first, page_of(range.end() - 1) - first + 1};
}
inline ByteRange intersect(ByteRange a, ByteRange b) {
  const std::uint64_t from = std::max(a.offset, b.offset);
  const std::uint64_t to = std::min(a.end(), b.end());
  return from < to ? ByteRange{from, to - from} : ByteRange{from, 0};
}

}  // namespace dims
