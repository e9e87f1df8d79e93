#include "nbdkit-ldim/cache/segment_table.h"

#include <algorithm>
#include <mutex>

namespace dims::ldim {

// Where the sequence is or belongs. Numbers mostly follow each other, so the first guess mostly
// hits.
std::size_t SegmentTable::position(std::uint64_t sequence) const {
  if (!sequences_.empty() && sequence >= sequences_.front()) {
    const std::uint64_t guess = sequence - sequences_.front();
    if (guess < sequences_.size() && sequences_[guess] == sequence)
      return static_cast<std::size_t>(guess);
  }
  return static_cast<std::size_t>(std::lower_bound(sequences_.begin(), sequences_.end(), sequence) -
                                  sequences_.begin());
}

std::shared_ptr<CacheSegment> SegmentTable::find(std::uint64_t sequence) const {
  const std::shared_lock lock(mutex_);
  const std::size_t at = position(sequence);
  return at < sequences_.size() && sequences_[at] == sequence ? segments_[at] : nullptr;
}

bool SegmentTable::contains(std::uint64_t sequence) const {
  const std::shared_lock lock(mutex_);
  const std::size_t at = position(sequence);
  return at < sequences_.size() && sequences_[at] == sequence;
}

void SegmentTable::add(std::shared_ptr<CacheSegment> segment) {
  const std::unique_lock lock(mutex_);
  const auto at = static_cast<std::ptrdiff_t>(position(segment->sequence()));
  sequences_.insert(sequences_.begin() + at, segment->sequence());
  segments_.insert(segments_.begin() + at, std::move(segment));
}

void SegmentTable::remove(std::uint64_t sequence) {
  const std::unique_lock lock(mutex_);
  const std::size_t at = position(sequence);
  if (at >= sequences_.size() || sequences_[at] != sequence) return;
  sequences_.erase(sequences_.begin() + static_cast<std::ptrdiff_t>(at));
  segments_.erase(segments_.begin() + static_cast<std::ptrdiff_t>(at));
}

std::vector<std::shared_ptr<CacheSegment>> SegmentTable::all() const {
  const std::shared_lock lock(mutex_);
  return segments_;
}

std::shared_ptr<CacheSegment> SegmentTable::oldest(const CacheSegment* keep) const {
  const std::shared_lock lock(mutex_);
  for (const auto& segment : segments_) {
    if (segment.get() != keep) return segment;
  }
  return nullptr;
}

std::size_t SegmentTable::size() const {
  const std::shared_lock lock(mutex_);
  return segments_.size();
}

}  // namespace dims::ldim
