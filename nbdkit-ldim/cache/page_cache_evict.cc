// Making and dropping segments: the limit, carry-over, giving way to others, checking everything.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "nbdkit-ldim/cache/page_cache_impl.h"

namespace dims::ldim {
namespace {

// Many short segments (of many short runs) would take many file descriptors.
constexpr std::size_t kMaxSegments = 320;

bool by_slot(const CacheIndex::Entry& entry, std::uint32_t slot) {
  return entry.place.slot() < slot;
}

}  // namespace

bool PageCacheImpl::room_for_segment() const {
  const std::lock_guard lock(fill_mutex_);
  return bytes_ + segment_bytes_ <= limit_now_;
}

// What the current segment has left, and the segments that can be started before
// make_room_ahead() evicts one. The end of each may be too short for an object.
std::uint64_t PageCacheImpl::free_pages() const {
  static constexpr std::uint64_t kWaste = kCacheMaxObjectPages - 1;
  const auto usable = [](std::uint64_t slots) { return slots - std::min(slots, kWaste); };
  std::uint64_t pages = 0;
  if (current_ != nullptr) pages += usable(capacity_pages_ - current_->filling.next_slot);
  const std::uint64_t segments = (limit_now_ - std::min(limit_now_, bytes_)) / segment_bytes_;
  if (segments > 1) pages += (segments - 1) * usable(capacity_pages_);
  return pages;
}

// After the disk was short: takes the limit back up step by step while there is ample room.
bool PageCacheImpl::grow_limit() {
  if (limit_now_ >= options_.limit_bytes) return false;
  const auto free = fs_.free_bytes(options_.folder);
  if (!free || *free < 4 * segment_bytes_) return false;
  const std::lock_guard lock(fill_mutex_);
  limit_now_ = std::min(options_.limit_bytes, std::max(limit_now_, bytes_) + segment_bytes_);
  return true;
}

// From here on the segment takes only what it holds.
void PageCacheImpl::close_current() {
  const std::lock_guard lock(fill_mutex_);
  if (current_ == nullptr) return;
  auto& filling = current_->filling;
  bytes_ -= filling.bytes;
  filling.bytes = cache_segment_bytes(capacity_pages_, filling.next_slot, filling.next_record);
  bytes_ += filling.bytes;
  current_ = nullptr;
}

Status PageCacheImpl::start_segment() {
  close_current();
  std::uint32_t nothing = 0;
  while (!room_for_segment()) {
    if (grow_limit()) continue;
    const SegmentPtr victim = table_.oldest(nullptr);
    if (victim == nullptr) {
      return make_error(ErrorCode::kNoSpace,
                        "the cache gave its disk space away and there is still little left",
                        "free space on the file system of " + options_.folder);
    }
    evict(victim, Carry::kNothing, nothing);
  }
  const auto keys = keys_of(salt_);
  for (;;) {
    if (next_sequence_ > kCacheMaxSequence) {
      return make_error(ErrorCode::kUnsupported, "the cache has used up its segment numbers",
                        "remove the files in " + options_.folder + " while LDIM is stopped");
    }
    const CacheHeader header{owner_, salt_, next_sequence_++, capacity_pages_};
    auto segment = CacheSegment::create(fs_, options_.folder, header, keys);
    if (!segment) {
      if (segment.error().code == ErrorCode::kAlreadyExists) continue;
      if (segment.error().code == ErrorCode::kNoSpace) give_way();
      return segment.error();
    }
    table_.add(*segment);
    const std::lock_guard lock(fill_mutex_);
    current_ = *segment;
    current_->filling.bytes = segment_bytes_;
    bytes_ += segment_bytes_;
    folder_dirty_ = true;
    return ok_status();
  }
}

// Evicts now what would have to go when the current segment is full, so that what is carried over
// has a place to go to. Takes at most half a segment, so that new objects get on.
void PageCacheImpl::make_room_ahead() {
  std::uint32_t budget_pages = capacity_pages_ / 2;
  for (;;) {
    const bool room = room_for_segment();
    if (room && table_.size() <= kMaxSegments) return;
    if (!room && grow_limit()) continue;
    // Too many, not too large: what a short run left behind moves, as far as the budget goes.
    const SegmentPtr victim = room ? shortest() : table_.oldest(current_.get());
    if (victim == nullptr) return;
    evict(victim, room ? Carry::kAll : Carry::kUsed, budget_pages);
  }
}

// The disk is full: gives up a segment and does not grow past what is left until there is room
// again.
void PageCacheImpl::give_way() {
  SegmentPtr victim = table_.oldest(current_.get());
  if (victim == nullptr) {
    victim = current_;
    close_current();
  }
  std::uint32_t nothing = 0;
  if (victim != nullptr) evict(victim, Carry::kNothing, nothing);
  const std::lock_guard lock(fill_mutex_);
  limit_now_ = std::min(limit_now_, bytes_);
}

PageCacheImpl::SegmentPtr PageCacheImpl::shortest() const {
  SegmentPtr found;
  const auto segments = table_.all();
  const std::lock_guard lock(fill_mutex_);
  for (const SegmentPtr& segment : segments) {
    if (segment == current_) continue;
    if (found == nullptr || segment->filling.bytes < found->filling.bytes) found = segment;
  }
  return found;
}

void PageCacheImpl::evict(const SegmentPtr& victim, Carry carry, std::uint32_t& budget_pages) {
  wait_for_writers(victim);
  if (carry != Carry::kNothing && budget_pages != 0) {
    const std::uint32_t carried = carry_over(*victim, carry, budget_pages);
    budget_pages -= std::min(budget_pages, carried);
    carried_pages_.fetch_add(carried, std::memory_order_relaxed);
    if (carried != 0) {
      // What was durable stays durable: the copy before the removal of the original.
      Status status = current_->sync();
      if (status) status = fs_.sync_folder(options_.folder);
      if (!status) {
        spdlog::warn("cache: {}", status.error().to_string());
        const std::lock_guard lock(fill_mutex_);
        current_->filling.sync_failed = true;  // the next sync() says so
      }
    }
  }
  evicted_pages_.fetch_add(drop(victim), std::memory_order_relaxed);
}

std::uint32_t PageCacheImpl::carry_over(const CacheSegment& victim, Carry carry,
                                        std::uint32_t budget_pages) {
  struct Candidate {
    CacheRecord record;
    PackedPlace place;
    unsigned score = 0;
  };
  const auto entries = index_.in_segment(victim.sequence());
  std::vector<Candidate> candidates;
  (void)victim.scan([&](const CacheRecord& record) {
    const auto at = std::lower_bound(entries.begin(), entries.end(), record.first_slot, by_slot);
    if (at == entries.end() || at->place.slot() != record.first_slot ||
        at->key != index_.key_of(record.object)) {
      return;  // dropped or superseded
    }
    const unsigned score = at->place.lives() + (victim.was_used(record.first_slot) ? 2 : 0);
    if (score != 0 || carry == Carry::kAll) candidates.push_back({record, at->place, score});
  });
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.score > b.score; });

  std::uint32_t carried = 0;
  Bytes buffer(kCacheMaxObjectPages * kPageBytes);
  for (const Candidate& candidate : candidates) {
    const std::uint32_t pages = candidate.record.pages;
    if (pages > budget_pages - carried) continue;
    const MutByteView data = MutByteView(buffer).first(pages * kPageBytes);
    const Status read =
        victim.read(candidate.record.object, candidate.record.first_slot, 0, data, nullptr);
    if (!read) {
      drop_damaged(candidate.record.object, candidate.place.location(), read.error());
      continue;
    }
    Slots slots;
    if (!take_slots(pages, slots)) break;  // filled by others meanwhile
    // Being used saves it this time; else it costs a life. Being moved for order's sake costs none.
    const bool used = victim.was_used(candidate.record.first_slot);
    const unsigned lives = candidate.place.lives() - (used || carry == Carry::kAll ? 0 : 1);
    const Status written = write_object(slots, candidate.record.object, data, lives);
    if (written) {
      index_.move(index_.key_of(candidate.record.object), candidate.place,
                  PackedPlace::make(slots.segment->sequence(), slots.first_slot, pages, lives));
      carried += pages;
    }
    release(slots.segment, written.ok());
    if (!written) break;
  }
  return carried;
}

void PageCacheImpl::wait_for_writers(const SegmentPtr& segment) {
  std::unique_lock lock(fill_mutex_);
  writers_done_.wait(lock, [&] { return segment->filling.writers == 0; });
}

std::uint64_t PageCacheImpl::drop(const SegmentPtr& victim) {
  wait_for_writers(victim);
  const std::uint64_t pages = index_.erase_segment(victim->sequence());
  table_.remove(victim->sequence());
  undead_.push_back(victim);
  // Files that could not be removed keep counting against the limit and are tried again.
  std::erase_if(undead_, [this](const SegmentPtr& segment) {
    if (const Status status = segment->remove(); !status) {
      spdlog::warn("cache: {}", status.error().to_string());
      return false;
    }
    const std::lock_guard lock(fill_mutex_);
    bytes_ -= segment->filling.bytes;
    folder_dirty_ = true;
    return true;
  });
  return pages;
}

Status PageCacheImpl::yield_space(std::uint64_t bytes) {
  const std::lock_guard lock(segments_mutex_);
  close_current();
  std::uint64_t freed = 0;
  std::uint32_t nothing = 0;
  while (freed < bytes) {
    const SegmentPtr victim = table_.oldest(nullptr);
    if (victim == nullptr) break;
    freed += victim->filling.bytes;
    evict(victim, Carry::kNothing, nothing);
  }
  {
    const std::lock_guard fill_lock(fill_mutex_);
    limit_now_ = std::min(limit_now_, bytes_);
  }
  if (freed >= bytes) return ok_status();
  return make_error(ErrorCode::kNoSpace,
                    "the cache gave all it had, " + std::to_string(freed) + " of " +
                        std::to_string(bytes) + " bytes",
                    "free space on the file system of " + options_.folder);
}

void PageCacheImpl::clear() {
  const std::lock_guard lock(segments_mutex_);
  close_current();
  for (const SegmentPtr& segment : table_.all()) drop(segment);
}

Result<std::uint64_t> PageCacheImpl::verify_all() {
  // Without the lock: an insert that needs a new segment must not wait until everything was read.
  // A segment that is evicted meanwhile stays readable; what moved or went is left alone.
  std::uint64_t dropped = 0;
  for (const SegmentPtr& segment : table_.all()) {
    if (table_.contains(segment->sequence())) dropped += verify_segment(*segment);
  }
  return dropped;
}

std::uint64_t PageCacheImpl::verify_segment(const CacheSegment& segment) {
  std::vector<CacheIndex::Entry> entries = index_.in_segment(segment.sequence());
  std::uint64_t dropped = 0;
  Bytes buffer(kCacheMaxObjectPages * kPageBytes);
  (void)segment.scan([&](const CacheRecord& record) {
    const auto at = std::lower_bound(entries.begin(), entries.end(), record.first_slot, by_slot);
    if (at == entries.end() || at->place.slot() != record.first_slot ||
        at->key != index_.key_of(record.object)) {
      return;
    }
    at->key = 0;  // seen
    const Status read = segment.read(record.object, record.first_slot, 0,
                                     MutByteView(buffer).first(record.pages * kPageBytes), nullptr);
    if (!read && drop_damaged(record.object, at->place.location(), read.error()))
      dropped += record.pages;
  });
  // What has no valid record any more would be absent after the next open: be honest now.
  for (const CacheIndex::Entry& entry : entries) {
    if (entry.key == 0 || !index_.erase(entry.key, entry.place.location())) continue;
    dropped += entry.place.pages();
    damaged_pages_.fetch_add(1, std::memory_order_relaxed);
    spdlog::warn(
        "cache: segment {} has lost the index record of an object; it is dropped and will be "
        "fetched again",
        segment.sequence());
  }
  return dropped;
}

}  // namespace dims::ldim
