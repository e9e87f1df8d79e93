#include "common/tree/cutter.h"

#include <algorithm>
#include <array>

#include "common/crypto/hash.h"

namespace dims::tree {
namespace {

constexpr std::ptrdiff_t kSampleBytes = 512;  // of each end of a page

}  // namespace

Cutter::Cutter(const format::DomainKey& key, std::uint32_t mean_bytes, CutMode mode)
    : max_pages_(format::kMaxChunkPages) {
  std::copy_n(key.cutting_key().bytes.begin(), key_.size(), key_.begin());
  const std::uint64_t mean_pages = std::max<std::uint64_t>(1, mean_bytes / kPageBytes);
  if (mode == CutMode::kFixed || mean_pages == 1) {
    threshold_ = 0;
    max_pages_ = mean_pages;
  } else {
    threshold_ = ~std::uint64_t{0} / mean_pages;
  }
}

bool Cutter::ends_chunk(ByteView page) const {
  if (threshold_ == 0) return false;
  // Both ends of the page decide for it: hashing all of it took a twentieth of an import.
  std::array<std::uint8_t, 2 * kSampleBytes> sample;
  std::copy_n(page.begin(), kSampleBytes, sample.begin());
  std::copy_n(page.end() - kSampleBytes, kSampleBytes, sample.begin() + kSampleBytes);
  return crypto::short_hash(key_, sample) < threshold_;
}

std::vector<PageRange> Cutter::cut(ByteView pages) const {
  std::vector<PageRange> chunks;
  const std::uint64_t count = pages.size() / kPageBytes;
  std::uint64_t start = 0;
  std::uint64_t at = 0;
  const auto close = [&] {
    if (at > start) chunks.push_back({start, at - start});
  };
  while (at < count) {
    const ByteView page = pages.subspan(at * kPageBytes, kPageBytes);
    if (is_all_zero(page)) {
      close();
      start = ++at;
      continue;
    }
    ++at;
    if (at - start == max_pages_ || ends_chunk(page)) {
      close();
      start = at;
    }
  }
  close();
  return chunks;
}

}  // namespace dims::tree
