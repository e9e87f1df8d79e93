// Opening: which files of the folder are ours and whole, and what they hold.
#include <spdlog/spdlog.h>

#include <set>

#include "common/base/parse.h"
#include "nbdkit-ldim/cache/page_cache_impl.h"

namespace dims::ldim {
namespace {

// Too many open files, no memory, no permission, a disk that fails for a moment: a machine without
// its server would miss what is thrown away for that.
bool may_be_whole(const Error& error) {
  return error.code == ErrorCode::kIo || error.code == ErrorCode::kPermissionDenied ||
         error.code == ErrorCode::kNoSpace || error.code == ErrorCode::kResourceExhausted;
}

}  // namespace

Result<std::unique_ptr<PageCache>> PageCache::open(io::FileSystem& fs,
                                                   const PageCacheOptions& options,
                                                   Random& random) {
  if (options.limit_bytes < kMinLimitBytes) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "a cache of " + format_size(options.limit_bytes) + " is too small to work with",
        "cache-size must be at least " + format_size(kMinLimitBytes));
  }
  DIMS_TRY(fs.make_folder(options.folder));
  auto cache = std::make_unique<PageCacheImpl>(fs, options, random);
  DIMS_TRY(cache->load());
  return std::unique_ptr<PageCache>(std::move(cache));
}

Status PageCacheImpl::load() {
  const std::lock_guard lock(segments_mutex_);
  DIMS_ASSIGN(const auto names, fs_.list(options_.folder));
  std::set<std::uint64_t> data;
  std::set<std::uint64_t> index;
  for (const std::string& name : names) {
    const auto parsed = parse_cache_file_name(name);
    if (!parsed) continue;  // not ours
    if (parsed->sequence == 0)
      remove_file(name);
    else
      (parsed->kind == CacheFileKind::kData ? data : index).insert(parsed->sequence);
    // Even a name without a whole segment behind it is not used again.
    next_sequence_ = std::max(next_sequence_, parsed->sequence + 1);
  }
  for (const std::uint64_t sequence : index) {
    if (data.count(sequence) == 0) remove_file(cache_file_name(CacheFileKind::kIndex, sequence));
  }
  for (const std::uint64_t sequence : data) {
    if (index.count(sequence) == 0) {
      remove_file(cache_file_name(CacheFileKind::kData, sequence));
      continue;
    }
    if (const Status status = load_segment(sequence); !status) {
      if (may_be_whole(status.error())) {
        spdlog::warn("cache: segment {} in {} cannot be read now and is left alone: {}", sequence,
                     options_.folder, status.error().to_string());
        continue;
      }
      spdlog::warn("cache: segment {} in {} is thrown away: {}", sequence, options_.folder,
                   status.error().to_string());
      remove_file(cache_file_name(CacheFileKind::kIndex, sequence));
      remove_file(cache_file_name(CacheFileKind::kData, sequence));
    }
  }
  // The limit may be smaller than last time.
  while (bytes_ > limit_now_) {
    const SegmentPtr victim = table_.oldest(nullptr);
    if (victim == nullptr) break;
    drop(victim);
  }
  for (const SegmentPtr& segment : table_.all()) load_records(segment);
  return ok_status();
}

Status PageCacheImpl::load_segment(std::uint64_t sequence) {
  DIMS_ASSIGN(SegmentPtr segment,
              CacheSegment::open(fs_, options_.folder, sequence, owner_,
                                 [this](const CacheSalt& salt) { return keys_of(salt); }));
  DIMS_ASSIGN(segment->filling.bytes, segment->file_bytes());
  bytes_ += segment->filling.bytes;
  table_.add(std::move(segment));
  return ok_status();
}

// Oldest segment first, so that of two records of one object the later one stays: if it is whole.
// Two there are only after a crash while objects were carried over; the copy may be torn then, and
// the original still be there.
void PageCacheImpl::load_records(const SegmentPtr& segment) {
  Bytes pages;
  const auto scan = segment->scan([&](const CacheRecord& record) {
    const auto key = index_.key_of(record.object);
    if (index_.find(key)) {
      pages.resize(record.pages * kPageBytes);
      if (!segment->read(record.object, record.first_slot, 0, pages, nullptr)) return;
    }
    index_.put(
        key, PackedPlace::make(segment->sequence(), record.first_slot, record.pages, record.lives));
  });
  if (scan.bad != 0) {
    spdlog::warn(
        "cache: {} index records of segment {} in {} are damaged or speak of pages that are cut "
        "off; "
        "their objects will be fetched again",
        scan.bad, segment->sequence(), options_.folder);
  }
  if (scan.unread) {
    spdlog::warn("cache: the index of segment {} in {} cannot be read now; it is left alone",
                 segment->sequence(), options_.folder);
  } else if (scan.good == 0) {
    drop(segment);
  }
}

void PageCacheImpl::remove_file(const std::string& name) {
  const Status status = fs_.remove(options_.folder + "/" + name);
  if (!status && status.error().code != ErrorCode::kNotFound) {
    spdlog::warn("cache: {}", status.error().to_string());
  }
  folder_dirty_ = true;
}

std::shared_ptr<const CacheKeys> PageCacheImpl::keys_of(const CacheSalt& salt) {
  auto& known = keys_[salt];
  if (auto keys = known.lock()) return keys;
  auto keys = std::make_shared<const CacheKeys>(options_.key, salt, owner_);
  known = keys;
  return keys;
}

}  // namespace dims::ldim
