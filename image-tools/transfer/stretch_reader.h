// StretchReader: the front half of an import. Reads a source in aligned stretches, cuts each into
// chunks, seals them and hands them to the uploader, on several threads; gives the extents back in
// disk order.
//
// A stretch is 4 MiB, aligned, and is cut by itself, whatever part of it is holes: equal disks are
// cut alike. Memory: one stretch a thread, and the uploader's window. Threads: run() blocks its
// caller, on whose thread the sink runs; the worker threads end before it returns. Ownership:
// everything outlives it. Errors: the first of source, uploader, sink, or kCancelled.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/page_buffer.h"
#include "common/tree/cutter.h"
#include "common/tree/editor.h"
#include "common/tree/uploader.h"
#include "image-tools/media/source.h"
#include "image-tools/transfer/progress.h"

namespace dims::transfer {

inline constexpr std::uint64_t kStretchBytes = 4 * kMiB;

struct StretchOptions {
  unsigned threads = 2;
  bool compress = true;
};

// What the threads counted; chunks include repeats.
struct StretchCounts {
  std::atomic<std::uint64_t> read_bytes{0};
  std::atomic<std::uint64_t> data_bytes{0};
  std::atomic<std::uint64_t> chunks{0};
  std::atomic<std::uint64_t> sealed_bytes{0};
};

class StretchReader {
 public:
  // Pages of the disk that were looked at, and what lies there; the rest of them is zeros. Pages
  // that lie in no stretch are holes of the source.
  struct Stretch {
    PageRange pages;
    std::vector<tree::PlacedExtent> extents;
  };
  using Sink = std::function<Status(const Stretch& stretch)>;

  StretchReader(media::Source& source, const format::DomainKey& key, const tree::Cutter& cutter,
                tree::Uploader& uploader, const StretchOptions& options, Progress& progress);

  Status run(const Sink& sink);
  const StretchCounts& counts() const { return counts_; }

 private:
  struct Plan {
    std::uint64_t number = 0;
    std::uint64_t offset = 0;
    std::vector<ByteRange> data;
  };

  void work();
  // The next stretch with data; nullopt at the end. Under mutex_.
  Result<std::optional<Plan>> plan_locked() DIMS_REQUIRES(mutex_);
  Status read(const Plan& plan, MutByteView buffer);
  Result<Stretch> seal(const Plan& plan, ByteView buffer);
  void fail(const Error& error);

  media::Source& source_;
  const format::DomainKey& key_;
  const tree::Cutter& cutter_;
  tree::Uploader& uploader_;
  const StretchOptions options_;
  Progress& progress_;
  StretchCounts counts_;

  Mutex mutex_;
  Condition changed_;
  std::uint64_t planned_ DIMS_GUARDED_BY(mutex_) = 0;    // stretches given out
  std::uint64_t consumed_ DIMS_GUARDED_BY(mutex_) = 0;   // stretches that the sink has seen
  std::uint64_t plan_from_ DIMS_GUARDED_BY(mutex_) = 0;  // bytes
  bool planned_all_ DIMS_GUARDED_BY(mutex_) = false;
  std::map<std::uint64_t, Stretch> done_ DIMS_GUARDED_BY(mutex_);
  std::optional<Error> failure_ DIMS_GUARDED_BY(mutex_);
};

}  // namespace dims::transfer
