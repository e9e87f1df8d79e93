// Fill: brings what is still absent of the disk into the cache while nobody waits for the link, so
// that the machine can work on without a network.
//
// It goes on only while the server is connected and the guest has found all that it read in the
// cache for a while; it stops when the cache is nearly full. Threads: restart() and progress() from
// any; works on a thread of its own, which stop() ends. Ownership: all parts outlive it. Errors:
// none; what cannot be fetched now is tried again: at once while the server is away, and minutes
// after the rest is here when the server lacks or mangles it. Durable: the cache is synced when it
// is done.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/contract/remote.h"
#include "nbdkit-ldim/fetch/reader.h"

namespace dims::ldim {

struct FillProgress {
  std::uint64_t pages_done = 0;  // of the disk, from its beginning
  bool done = false;
  bool no_room = false;            // the cache is too small for the whole disk
  std::uint64_t pages_failed = 0;  // passed over, tried again later
  std::string trouble;             // why, the last time
};

class Fill {
 public:
  struct Parts {
    contract::Remote& remote;
    BaseReader& reader;
    BaseTree& tree;
    PageCache& cache;
    Clock& clock;
    std::uint64_t disk_pages;
  };
  explicit Fill(const Parts& parts);
  ~Fill();
  Fill(const Fill&) = delete;
  Fill& operator=(const Fill&) = delete;

  void restart();  // the base has moved
  FillProgress progress() const;
  void stop();

 private:
  void run();
  // True when the link is idle: nobody has waited for an absent page for some time.
  bool quiet();
  void step();
  std::uint64_t piecemeal(PageRange pages);
  // Begins anew when what was passed over is due; whether there is anything to do now.
  bool anything_due() DIMS_REQUIRES(mutex_);

  const Parts parts_;
  std::uint64_t misses_seen_ = 0;         // of run()'s thread only
  std::chrono::nanoseconds quiet_since_;  // the same
  std::optional<std::chrono::nanoseconds> again_at_ DIMS_GUARDED_BY(mutex_);  // what failed
  mutable Mutex mutex_;
  Condition changed_;
  FillProgress progress_ DIMS_GUARDED_BY(mutex_);
  bool stop_ DIMS_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace dims::ldim
