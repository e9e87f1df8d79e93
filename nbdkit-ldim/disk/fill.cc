#include "nbdkit-ldim/disk/fill.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "nbdkit-ldim/cache/cache_format.h"

namespace dims::ldim {
namespace {

constexpr std::chrono::milliseconds kTick{250};
constexpr std::chrono::seconds kQuiet{2};
constexpr std::chrono::minutes kAgainAfter{5};
constexpr std::uint64_t kStepPages = 256;  // 1 MiB: what a guest's read may have to wait behind
// What a step may put in: chunks that reach beyond it on both sides, and the tree's nodes.
constexpr std::uint64_t kStepRoomPages = kStepPages + 3 * kCacheMaxObjectPages;

// The server, as opposed to an object that it lacks or mangles, which would be met again at once.
bool comes_back(const Error& error) {
  switch (error.code) {
    case ErrorCode::kUnavailable:
    case ErrorCode::kDeadlineExceeded:
    case ErrorCode::kResourceExhausted:
    case ErrorCode::kCancelled:
    case ErrorCode::kPermissionDenied:  // of the login, which `ldim renew` makes good
      return true;
    default:
      return false;
  }
}

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
  again_at_.reset();
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

bool Fill::anything_due() {
  if (again_at_) {
    if (parts_.clock.boottime() < *again_at_) return false;
    again_at_.reset();
    const std::string trouble = std::move(progress_.trouble);
    progress_ = {};
    progress_.trouble = trouble;
  }
  return !progress_.done && !progress_.no_room;
}

void Fill::run() {
  MutexLock lock(mutex_);
  while (!stop_) {
    const bool due = anything_due();
    lock.unlock();
    const bool go = quiet() && due;
    if (go) step();
    lock.lock();
    if (!go && !stop_)
      changed_.wait_for(lock, kTick, [&]() DIMS_REQUIRES(mutex_) { return stop_; });
  }
}

// What can be had of a step in which something cannot; in pages.
std::uint64_t Fill::piecemeal(PageRange pages) {
  constexpr std::uint64_t kPiecePages = 16;
  std::uint64_t got = 0;
  while (pages.count != 0) {
    const PageRange piece{pages.first, std::min(pages.count, kPiecePages)};
    pages.first += piece.count;
    pages.count -= piece.count;
    if (parts_.reader.ensure(piece, contract::Priority::kPrefetch, FetchWait::kDoNotWait).ok())
      got += piece.count;
  }
  return got;
}

void Fill::step() {
  std::uint64_t at = 0;
  {
    const MutexLock lock(mutex_);
    at = progress_.pages_done;
  }
  bool no_room = false;
  PageRange pages{at, std::min(parts_.disk_pages - at, kStepPages)};
  Status fetched = ok_status();
  const auto stretch = parts_.tree.stretch(at, FetchWait::kDoNotWait);
  if (stretch.ok()) {
    // Large runs of zeros are one step.
    const std::uint64_t stretch_end = stretch->first_page + stretch->page_count;
    const std::uint64_t end = stretch->leaf == nullptr ? stretch_end : at + kStepPages;
    pages.count = std::min(parts_.disk_pages, end) - at;
    if (parts_.cache.stats().free_pages >= kStepRoomPages) {
      fetched = parts_.reader.ensure(pages, contract::Priority::kPrefetch, FetchWait::kDoNotWait);
    } else {  // what is fetched now would push out what the guest has read
      const auto all_here = parts_.reader.all_here(pages);
      no_room = all_here.ok() && !*all_here;
      if (!all_here.ok()) fetched = all_here.error();
    }
  } else {
    fetched = stretch.error();
  }
  if (!fetched.ok() && fetched.error().code == ErrorCode::kNoSpace) no_room = true;
  const bool passed_over = !fetched.ok() && !comes_back(fetched.error());
  const std::uint64_t failed = !passed_over   ? 0
                               : stretch.ok() ? pages.count - piecemeal(pages)
                                              : pages.count;
  const bool onward = !no_room && (fetched.ok() || passed_over);
  const std::uint64_t to = onward ? pages.end() : at;
  const bool at_end = to >= parts_.disk_pages;
  if (at_end) (void)parts_.cache.sync().ok();
  MutexLock lock(mutex_);
  if (progress_.pages_done != at) return;  // restarted meanwhile
  progress_.pages_done = to;
  progress_.no_room = no_room;
  if (passed_over) {
    progress_.pages_failed += failed;
    progress_.trouble = fetched.error().to_string();
  }
  if (at_end && progress_.pages_failed != 0) {
    again_at_ = parts_.clock.boottime() + kAgainAfter;
    spdlog::warn("{} pages of the disk could not be fetched and are tried again later: {}",
                 progress_.pages_failed, progress_.trouble);
  } else if (at_end) {
    progress_.done = true;
    progress_.trouble.clear();
    spdlog::info("the whole disk is in the cache");
  }
  if (!fetched.ok() && !no_room)  // the server went away, or lacks much: not in a tight loop
    changed_.wait_for(lock, kTick, [&]() DIMS_REQUIRES(mutex_) { return stop_; });
}

}  // namespace dims::ldim
