#include "nbdkit-ldim/disk/fill.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "nbdkit-ldim/cache/cache_format.h"

namespace dims::ldim {
namespace {

constexpr std::chrono::milliseconds kTick{250};
constexpr std::chrono::seconds kQuiet{2};
constexpr std::uint64_t kStepPages = 256;  // 1 MiB: what a guest's read may have to wait behind
// What a step may put in: chunks that reach beyond it on both sides, and the tree's nodes.
constexpr std::uint64_t kStepRoomPages = kStepPages + 3 * kCacheMaxObjectPages;

}  // namespace

Fill::Fill(const Parts& parts)
    : parts_(parts), quiet_since_(parts.clock.boottime()), thread_([this] { run(); }) {}

Fill::~Fill() { stop(); }

void Fill::stop() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Fill::restart() {
  const MutexLock lock(mutex_);
  progress_ = {};
}

FillProgress Fill::progress() const {
  const MutexLock lock(mutex_);
  return progress_;
}

bool Fill::quiet() {
  const std::uint64_t misses = parts_.reader.counters().reads_missed.load();
  const auto now = parts_.clock.boottime();
  if (misses != misses_seen_ || !parts_.remote.counters().connected) {
    misses_seen_ = misses;
    quiet_since_ = now;
  }
  return now - quiet_since_ >= kQuiet;
}

void Fill::run() {
  MutexLock lock(mutex_);
  while (!stop_) {
    const bool finished = progress_.done || progress_.no_room;
    lock.unlock();
    const bool go = quiet() && !finished;
    if (go) step();
    lock.lock();
    if (!go && !stop_)
      changed_.wait_for(lock, kTick, [&]() DIMS_REQUIRES(mutex_) { return stop_; });
  }
}

void Fill::step() {
  std::uint64_t at = 0;
  {
    const MutexLock lock(mutex_);
    at = progress_.pages_done;
  }
  bool no_room = false;
  std::uint64_t to = at;
  const auto stretch = parts_.tree.stretch(at, FetchWait::kDoNotWait);
  if (stretch.ok()) {
    // Large runs of zeros are one step.
    const std::uint64_t stretch_end = stretch->first_page + stretch->page_count;
    const std::uint64_t end = stretch->leaf == nullptr ? stretch_end : at + kStepPages;
    const PageRange pages{at, std::min(parts_.disk_pages, end) - at};
    bool here = false;
    if (parts_.cache.stats().free_pages >= kStepRoomPages) {
      here = parts_.reader.ensure(pages, contract::Priority::kPrefetch, FetchWait::kDoNotWait).ok();
    } else {  // what is fetched now would push out what the guest has read
      const auto all_here = parts_.reader.all_here(pages);
      here = all_here.ok() && *all_here;
      no_room = all_here.ok() && !*all_here;
    }
    if (here) to = pages.end();
  }
  const bool done = to >= parts_.disk_pages;
  if (done) (void)parts_.cache.sync().ok();
  MutexLock lock(mutex_);
  if (progress_.pages_done != at) return;  // restarted meanwhile
  progress_.pages_done = to;
  progress_.done = done;
  progress_.no_room = no_room;
  if (done) spdlog::info("the whole disk is in the cache");
  if (to == at && !no_room)  // the server went away: not in a tight loop
    changed_.wait_for(lock, kTick, [&]() DIMS_REQUIRES(mutex_) { return stop_; });
}

}  // namespace dims::ldim
