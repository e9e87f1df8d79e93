// ReadAhead: notices sequential reads and fetches what comes next, many chunks in flight.
//
// Threads: on_read() may be called from any thread and never blocks; the work runs on its own
// threads. Ownership: the reader outlives it. Units: pages. Errors: swallowed (the read itself will
// meet them).
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "nbdkit-ldim/fetch/reader.h"

namespace dims::ldim {

struct ReadAheadOptions {
  unsigned threads = 4;
  std::uint64_t first_window_pages = 64;  // 256 KiB
  std::uint64_t max_window_pages = 2048;  // 8 MiB: 1.3 s of a 50 Mbit/s link
};

class ReadAhead {
 public:
  ReadAhead(BaseReader& reader, std::uint64_t disk_pages, const ReadAheadOptions& options);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // A guest has read these pages; missed: some had to be fetched.
  void on_read(PageRange pages, bool missed);
  void stop();
  std::uint64_t pages_asked() const { return pages_asked_.load(); }

 private:
  struct Stream {
    std::uint64_t next = 0;    // the page that a sequential reader reads next
    std::uint64_t ahead = 0;   // fetched or asked for up to here
    std::uint64_t window = 0;  // 0: the slot is free
    std::uint64_t used = 0;    // for replacing the oldest
  };
  void run();

  BaseReader& reader_;
  const std::uint64_t disk_pages_;
  const ReadAheadOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<Stream, 8> streams_;
  std::uint64_t ticks_ = 0;
  std::deque<PageRange> jobs_;
  bool stop_ = false;
  std::atomic<unsigned> live_streams_{0};
  std::atomic<std::uint64_t> pages_asked_{0};
  std::vector<std::thread> threads_;
};

}  // namespace dims::ldim
