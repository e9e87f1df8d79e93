#include "nbdkit-ldim/disk/version_fetch.h"

#include <spdlog/spdlog.h>

#include <unordered_set>

namespace dims::ldim {

using format::Reference;

namespace {

constexpr std::size_t kBatchChunks = 64;

Error stopped() { return make_error(ErrorCode::kCancelled, "LDIM is stopping"); }

}  // namespace

VersionFetch::VersionFetch(const Parts& parts) : parts_(parts), thread_([this] { run(); }) {}

VersionFetch::~VersionFetch() { stop(); }

void VersionFetch::stop() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool VersionFetch::stopping() const {
  const MutexLock lock(mutex_);
  return stop_ || wanted_.has_value();  // a newer one makes this one pointless
}

void VersionFetch::announce(const ImageId& image, const VersionId& version) {
  {
    const MutexLock lock(mutex_);
    wanted_ = {image, version};
  }
  changed_.notify_all();
}

VersionFetchProgress VersionFetch::progress() const {
  const MutexLock lock(mutex_);
  return progress_;
}

void VersionFetch::run() {
  MutexLock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&]() DIMS_REQUIRES(mutex_) { return stop_ || wanted_.has_value(); });
    if (stop_) return;
    const Wanted wanted = *wanted_;
    wanted_.reset();
    progress_ = {};
    lock.unlock();
    const Status status = fetch(wanted);
    lock.lock();
    progress_.done = status.ok();
    progress_.trouble = status.ok() ? "" : status.error().to_string();
    if (status.ok() && progress_.sequence != 0)
      spdlog::info("version {} is in the cache for the next start: {} chunks fetched",
                   progress_.sequence, progress_.chunks);
  }
}

Status VersionFetch::fetch(const Wanted& wanted) {
  DIMS_ASSIGN(const contract::VersionInfo version,
              parts_.remote.get_version(wanted.image, wanted.version, 0));
  DIMS_TRY(parts_.key->check_signer(version.record));
  {
    const MutexLock lock(mutex_);
    progress_.sequence = version.record.sequence;
  }
  const tree::TreeShape base = parts_.tree.shape();
  tree::TreeShape shape = base;
  DIMS_ASSIGN(shape.root, format::open_root(version.record, parts_.key->image_key(version.record)));
  FetchedNodes nodes(parts_.fetcher, contract::Priority::kPrefetch, FetchWait::kDoNotWait);
  const PageRange all{0, pages_for(shape.image_bytes)};
  std::unordered_set<ObjectId, IdHash> same;
  DIMS_TRY(tree::visit_leaves(base, all, nodes,
                              [&](std::uint64_t, const Reference& ref, format::Leaf) -> Status {
                                same.insert(ref.id);
                                return stopping() ? Status(stopped()) : ok_status();
                              }));
  std::vector<Reference> batch;
  std::uint64_t room = parts_.cache.stats().limit_bytes / 2;
  const auto send = [&]() -> Status {
    if (stopping()) return stopped();
    const std::size_t count = batch.size();
    DIMS_TRY(parts_.fetcher.chunks(batch, contract::Priority::kPrefetch, FetchWait::kDoNotWait,
                                   [](std::size_t, ByteView) {}));
    batch.clear();
    const MutexLock lock(mutex_);
    progress_.chunks += count;
    return ok_status();
  };
  const Status visited = tree::visit_leaves(
      shape, all, nodes,
      [&](std::uint64_t, const Reference& ref, const format::Leaf& leaf) -> Status {
        if (same.contains(ref.id)) return ok_status();
        for (const format::Extent& extent : leaf.extents) {
          const std::uint64_t bytes = extent.page_count * kPageBytes;
          if (parts_.cache.find(extent.ref.id, nullptr).known() || bytes > room) continue;
          room -= bytes;
          batch.push_back(extent.ref);
          if (batch.size() == kBatchChunks) DIMS_TRY(send());
        }
        return ok_status();
      });
  DIMS_TRY(visited);
  if (!batch.empty()) DIMS_TRY(send());
  return parts_.cache.sync();
}

}  // namespace dims::ldim
