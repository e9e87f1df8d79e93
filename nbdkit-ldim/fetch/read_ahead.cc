#include "nbdkit-ldim/fetch/read_ahead.h"

#include <algorithm>

namespace dims::ldim {
namespace {

constexpr std::uint64_t kSlackPages = 64;  // parallel readers of one stream arrive out of order
constexpr std::uint64_t kJobPages = 128;   // one job: 512 KiB, so that the threads share a window
constexpr std::size_t kMaxJobs = 64;
constexpr std::uint64_t kForgetAfter = 1024;  // reads without one that continues the stream

}  // namespace

ReadAhead::ReadAhead(BaseReader& reader, std::uint64_t disk_pages, const ReadAheadOptions& options)
    : reader_(reader), disk_pages_(disk_pages), options_(options) {
  for (unsigned i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { run(); });
}

ReadAhead::~ReadAhead() { stop(); }

void ReadAhead::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    jobs_.clear();
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void ReadAhead::on_read(PageRange pages, bool missed) {
  // Reads from the cache pay one load while nobody reads sequentially through absent pages.
  if (!missed && live_streams_.load(std::memory_order_relaxed) == 0) return;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) {
    if (!missed) return;
    lock.lock();
  }
  ++ticks_;
  Stream* oldest = &streams_[0];
  for (Stream& s : streams_) {
    if (s.window != 0 && pages.first + kSlackPages >= s.next &&
        pages.first <= s.next + kSlackPages) {
      s.used = ticks_;
      if (pages.end() <= s.next) return;
      s.next = pages.end();
      // The window grows while reads still miss: the link's delay decides how much must be under
      // way.
      if (missed) s.window = std::min(s.window * 2, options_.max_window_pages);
      s.ahead = std::max(s.ahead, s.next);
      const std::uint64_t goal = std::min(disk_pages_, s.next + s.window);
      while (s.ahead < goal && (goal - s.ahead >= kJobPages || goal == disk_pages_) &&
             jobs_.size() < kMaxJobs) {
        const std::uint64_t count = std::min(kJobPages, goal - s.ahead);
        jobs_.push_back({s.ahead, count});
        s.ahead += count;
        changed_.notify_one();
      }
      return;
    }
    if (s.used < oldest->used) oldest = &s;
  }
  if (!missed) {
    // Streams that nobody follows any more must not cost every cached read a lock.
    if (ticks_ % kForgetAfter == 0) {
      for (Stream& s : streams_) {
        if (s.window == 0 || s.used + kForgetAfter > ticks_) continue;
        s.window = 0;
        live_streams_.fetch_sub(1);
      }
    }
    return;
  }
  if (oldest->window == 0) live_streams_.fetch_add(1);
  *oldest = Stream{pages.end(), pages.end(), options_.first_window_pages, ticks_};
}

void ReadAhead::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    const PageRange job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    pages_asked_ += job.count;
    (void)reader_.ensure(job, contract::Priority::kBoot, FetchWait::kDoNotWait).ok();
    lock.lock();
  }
}

}  // namespace dims::ldim
