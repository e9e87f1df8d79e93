// BaseReader: reads pages of the base version: zeros from the tree, present pages from the cache,
// absent ones from the server.
//
// Threads: all methods are thread-safe. Ownership: what it is made of outlives it. Units: see each
// method. Errors: as the fetcher's; an `out` that was not filled is zeroed. Durable: nothing.
#pragma once

#include <functional>

#include "nbdkit-ldim/cache/page_cache.h"
#include "nbdkit-ldim/fetch/base_tree.h"
#include "nbdkit-ldim/fetch/fetcher.h"

namespace dims::ldim {

struct ReadCounters {
  std::atomic<std::uint64_t> pages_hit{0};     // served from the cache
  std::atomic<std::uint64_t> pages_missed{0};  // had to be fetched for a read that waited
  std::atomic<std::uint64_t> pages_zero{0};
  std::atomic<std::uint64_t> reads_missed{0};  // reads that waited for an absent page
};

// What of the base version is here (see BaseReader::presence).
struct Presence {
  std::uint64_t pages_mapped = 0;   // pages that are not zero
  std::uint64_t pages_present = 0;  // of them, in the cache
  std::uint64_t pages_damaged = 0;  // found damaged by this check (and dropped)
  bool tree_complete = false;       // every node of the tree is here
};

class BaseReader {
 public:
  BaseReader(BaseTree& tree, PageCache& cache, Fetcher& fetcher);

  // Any alignment; `range` lies within the disk. missed (may be null) tells whether the server was
  // asked.
  Status read(ByteRange range, std::uint8_t* out, FetchWait wait, bool* missed);
  // Brings absent chunks of a page range into the cache.
  Status ensure(PageRange pages, contract::Priority priority, FetchWait wait);
  // Whether ensure() would have nothing to do. Without the server.
  Result<bool> all_here(PageRange pages);
  // Walks the base tree without the server. verify: opens every page, not only looks it up.
  Result<Presence> presence(bool verify);

  BaseTree& tree() { return tree_; }
  const ReadCounters& counters() const { return counters_; }

 private:
  struct Missing {
    std::uint64_t page = 0;  // on the disk
    std::uint32_t count = 0;
    std::uint32_t first_in_chunk = 0;
    std::uint8_t* out = nullptr;
    ObjectId object;
  };
  Status read_pages(PageRange pages, std::uint8_t* out, FetchWait wait, bool* missed);
  Status collect(PageRange pages, std::uint8_t* out, FetchWait wait, std::vector<Missing>& missing);
  Status fetch_missing(const std::vector<Missing>& missing, contract::Priority priority,
                       FetchWait wait);

  BaseTree& tree_;
  PageCache& cache_;
  Fetcher& fetcher_;
  ReadCounters counters_;
};

}  // namespace dims::ldim
