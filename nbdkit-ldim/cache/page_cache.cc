#include "nbdkit-ldim/cache/page_cache.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "nbdkit-ldim/cache/page_cache_impl.h"

namespace dims::ldim {

PageCacheImpl::PageCacheImpl(io::FileSystem& fs, const PageCacheOptions& options, Random& random)
    : fs_(fs),
      options_(options),
      owner_{options.machine, options.image},
      capacity_pages_(cache_segment_capacity(options.limit_bytes)),
      segment_bytes_(cache_segment_bytes(capacity_pages_, capacity_pages_, capacity_pages_)),
      salt_(random.id<CacheSalt>()),
      index_(random.u64()),
      tags_(std::min(options.tag_memory_bytes,
                     options.limit_bytes / (kPageBytes / crypto::kTagBytes)),
            capacity_pages_),
      limit_now_(options.limit_bytes) {}

PageCacheImpl::~PageCacheImpl() = default;

CachePlace PageCacheImpl::find(const ObjectId& object, std::uint32_t* pages) {
  const auto place = index_.find(index_.key_of(object));
  if (pages != nullptr) *pages = place ? place->pages() : 0;
  return place ? CachePlace{place->location()} : CachePlace{};
}

CacheRead PageCacheImpl::read(CachePlace place, const ObjectId& object, std::uint32_t first_page,
                              MutByteView out) {
  const PackedPlace at{place.value};
  const std::uint64_t pages = out.size() / kPageBytes;
  SegmentPtr segment;
  if (place.known() && out.size() % kPageBytes == 0 && first_page + pages <= at.pages()) {
    segment = table_.find(at.sequence());
  }
  if (segment == nullptr || at.slot() + at.pages() > segment->capacity_pages()) {
    if (!out.empty()) std::memset(out.data(), 0, out.size());
    return CacheRead::kGone;
  }
  const Status status = segment->read(object, at.slot(), first_page, out, &tags_);
  if (status) {
    segment->mark_used(at.slot());
    return CacheRead::kOk;
  }
  // A place that outlived its object may lead to bytes that were found bad before: no new damage.
  return drop_damaged(object, at.location(), status.error()) ? CacheRead::kDamaged
                                                             : CacheRead::kGone;
}

bool PageCacheImpl::drop_damaged(const ObjectId& object, std::uint64_t location, const Error& why) {
  if (!index_.erase(index_.key_of(object), location)) return false;
  const std::uint64_t damaged = damaged_pages_.fetch_add(1, std::memory_order_relaxed) + 1;
  // After a power cut there may be thousands: the first ones tell enough.
  constexpr std::uint64_t kToldOneByOne = 10;
  constexpr std::uint64_t kToldAfter = 1000;
  if (damaged <= kToldOneByOne) {
    spdlog::warn("cache: {}; object {} is dropped and will be fetched again", why.to_string(),
                 object.short_hex());
  } else if (damaged % kToldAfter == 0) {
    spdlog::warn("cache: {} damaged objects were dropped so far", damaged);
  }
  return true;
}

Status PageCacheImpl::insert(const ObjectId& object, ByteView data, unsigned lives) {
  const std::uint64_t pages = data.size() / kPageBytes;
  if (data.size() % kPageBytes != 0 || pages == 0 || pages > kCacheMaxObjectPages ||
      lives > kCacheMaxLives) {
    return make_error(ErrorCode::kInvalidArgument,
                      "cannot cache " + std::to_string(data.size()) + " bytes with " +
                          std::to_string(lives) + " lives",
                      "give 1 to 128 whole pages and at most 3 lives");
  }
  if (pages > capacity_pages_) {
    return make_error(ErrorCode::kNoSpace,
                      "an object of " + std::to_string(pages) + " pages fits no segment",
                      "raise cache-size");
  }
  const auto present = index_.find(index_.key_of(object));
  if (present && present->pages() >= pages) return ok_status();

  auto slots = reserve(static_cast<std::uint32_t>(pages));
  if (!slots) {
    insert_failed(slots.error());
    return slots.error();
  }
  Status status;
  try {
    status = write_object(*slots, object, data, lives);
    if (status) {
      index_.put(index_.key_of(object),
                 PackedPlace::make(slots->segment->sequence(), slots->first_slot,
                                   static_cast<std::uint32_t>(pages), lives));
    }
  } catch (...) {
    release(slots->segment, true);  // an eviction waits for it; something may be written
    throw;
  }
  release(slots->segment, status.ok());
  if (!status) {
    insert_failed(status.error());
    if (status.error().code == ErrorCode::kNoSpace) {
      const std::lock_guard lock(segments_mutex_);
      give_way();
    }
  }
  return status;
}

Status PageCacheImpl::write_object(const Slots& slots, const ObjectId& object, ByteView data,
                                   unsigned lives) {
  return slots.segment->write(
      slots.record_number,
      CacheRecord{object, slots.first_slot, static_cast<std::uint32_t>(data.size() / kPageBytes),
                  lives},
      data);
}

void PageCacheImpl::insert_failed(const Error& error) {
  if (failed_inserts_.fetch_add(1, std::memory_order_relaxed) != 0) return;
  spdlog::warn(
      "cache: an object was not cached: {}; the cache goes on, further failures are only counted",
      error.to_string());
}

// Slots that are given out are spent, whatever becomes of the write: a slot number is part of a
// nonce.
bool PageCacheImpl::take_slots(std::uint32_t pages, Slots& slots) {
  const std::lock_guard lock(fill_mutex_);
  if (current_ == nullptr || pages > capacity_pages_ - current_->filling.next_slot) return false;
  auto& filling = current_->filling;
  slots = {current_, filling.next_slot, filling.next_record};
  filling.next_slot += pages;
  filling.next_record += 1;
  filling.writers += 1;
  return true;
}

Result<PageCacheImpl::Slots> PageCacheImpl::reserve(std::uint32_t pages) {
  Slots slots;
  if (take_slots(pages, slots)) return slots;
  const std::lock_guard lock(segments_mutex_);
  // Somebody else may have started a segment meanwhile, and others may fill it before we get ours.
  bool taken = take_slots(pages, slots);
  while (!taken) {
    DIMS_TRY(start_segment());
    taken = take_slots(pages, slots);
    make_room_ahead();
  }
  return slots;
}

void PageCacheImpl::release(const SegmentPtr& segment, bool written) {
  const std::lock_guard lock(fill_mutex_);
  segment->filling.writers -= 1;
  if (written) segment->filling.dirty = true;
  if (segment->filling.writers == 0) writers_done_.notify_all();
}

Status PageCacheImpl::sync() {
  // One at a time: whoever finds nothing left to sync must not return before it is synced.
  const std::lock_guard sync_lock(sync_mutex_);
  struct Dirty {
    SegmentPtr segment;
    bool sync_failed;
  };
  std::vector<Dirty> dirty;
  bool folder_dirty = false;
  {
    const std::lock_guard lock(fill_mutex_);
    for (const SegmentPtr& segment : table_.all()) {
      if (!segment->filling.dirty && !segment->filling.sync_failed) continue;
      segment->filling.dirty = false;
      dirty.push_back({segment, segment->filling.sync_failed});
    }
    folder_dirty = folder_dirty_;
    folder_dirty_ = false;
  }
  Status result;
  for (const auto& [segment, sync_failed] : dirty) {
    Status status = sync_failed
                        ? make_error(ErrorCode::kIo, "an earlier sync of a cache segment failed")
                        : segment->sync();
    if (status) continue;
    if (result) result = status;
    // The kernel may now call clean what never reached the disk, so that a second sync would lie.
    spdlog::warn("cache: {}; the segment is thrown away", status.error().to_string());
    const std::lock_guard lock(segments_mutex_);
    if (segment == current_) close_current();
    if (table_.contains(segment->sequence())) drop(segment);
  }
  if (folder_dirty) {
    Status status = fs_.sync_folder(options_.folder);
    if (!status) {
      const std::lock_guard lock(fill_mutex_);
      folder_dirty_ = true;
      if (result) result = status;
    }
  }
  return result;
}

PageCacheStats PageCacheImpl::stats() {
  PageCacheStats stats;
  const CacheIndex::Totals totals = index_.totals();
  stats.pages = totals.pages;
  stats.objects = totals.objects;
  stats.memory_bytes = totals.memory_bytes + sizeof *this;
  for (const SegmentPtr& segment : table_.all()) stats.memory_bytes += segment->memory_bytes();
  stats.tag_memory_bytes = tags_.memory_bytes();
  stats.damaged_pages = damaged_pages_.load(std::memory_order_relaxed);
  stats.evicted_pages = evicted_pages_.load(std::memory_order_relaxed);
  stats.carried_pages = carried_pages_.load(std::memory_order_relaxed);
  stats.failed_inserts = failed_inserts_.load(std::memory_order_relaxed);
  const std::lock_guard lock(fill_mutex_);
  stats.bytes = bytes_;
  if (current_ != nullptr) {  // counted as full against the limit, but not here
    stats.bytes -= segment_bytes_;
    stats.bytes += cache_segment_bytes(capacity_pages_, current_->filling.next_slot,
                                       current_->filling.next_record);
  }
  stats.limit_bytes = limit_now_;
  stats.free_pages = free_pages();
  return stats;
}

}  // namespace dims::ldim
