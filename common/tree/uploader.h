// Uploader: brings sealed objects to the server: asks which it lacks, sends those, many in flight.
//
// Threads: add() may be called from many threads; it blocks while too much is in flight
// (max_bytes_in_flight), which is the back-pressure for whoever cuts and seals. Ownership: remote
// outlives it. Order: a node is sent only when everything that was given before it has been
// answered, so whoever gives children before parents has them stored in that order. Errors: the
// first failure is kept and returned by every later add() and by finish(). Durable on return of
// finish(): nothing; the commit that follows makes it so.
#pragma once

#include <atomic>
#include <deque>
#include <set>
#include <thread>
#include <unordered_set>
#include <vector>

#include "common/base/mutex.h"
#include "common/contract/remote.h"

namespace dims::tree {

struct UploadOptions {
  contract::Priority priority = contract::Priority::kWriteBack;
  unsigned threads = 2;
  std::size_t batch_objects = 128;
  std::size_t batch_bytes = kMiB;
  std::size_t max_bytes_in_flight = 16 * kMiB;
  std::size_t max_remembered_ids = 1 << 20;  // of objects this upload has handled, to skip repeats
  std::atomic<std::uint64_t>* arrived = nullptr;  // counts bytes that the server has; borrowed
  const std::atomic<bool>* cancel = nullptr;      // once true nothing more is sent; borrowed
};

struct UploadCounts {
  std::uint64_t objects = 0;   // given
  std::uint64_t repeated = 0;  // equal to one given before
  std::uint64_t present = 0;   // the server had them
  std::uint64_t sent = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t nodes = 0;       // of the objects: tree nodes
  std::uint64_t sent_nodes = 0;  // of the sent
  std::uint64_t sent_node_bytes = 0;
};

class Uploader {
 public:
  Uploader(contract::Remote& remote, const ImageId& image, const UploadOptions& options);
  ~Uploader();

  Status add(format::SealedObject object);
  // Waits until everything given is on the server.
  Status finish();
  UploadCounts counts();

 private:
  struct Item {
    std::uint64_t number = 0;  // in the order given
    format::SealedObject object;
  };
  using Queue = std::deque<Item>;

  void run();
  // What a thread can send now; empty: nothing.
  std::vector<format::SealedObject> take_locked(std::uint64_t* first_number, bool* nodes)
      DIMS_REQUIRES(mutex_);
  static void take_from(Queue& queue, std::uint64_t below, const UploadOptions& options,
                        std::vector<format::SealedObject>& batch);
  Status send(const std::vector<format::SealedObject>& batch, bool nodes);

  contract::Remote& remote_;
  const ImageId image_;
  const UploadOptions options_;

  Mutex mutex_;
  Condition work_;      // there may be a batch to send
  Condition answered_;  // a batch has been answered: there is room, or all is done
  std::uint64_t next_number_ DIMS_GUARDED_BY(mutex_) = 0;
  Queue chunks_ DIMS_GUARDED_BY(mutex_);
  Queue nodes_ DIMS_GUARDED_BY(mutex_);
  std::size_t chunk_bytes_ DIMS_GUARDED_BY(mutex_) = 0;      // in chunks_
  std::size_t bytes_in_flight_ DIMS_GUARDED_BY(mutex_) = 0;  // queued or being sent
  std::multiset<std::uint64_t> sending_
      DIMS_GUARDED_BY(mutex_);  // first number of each batch of chunks on its way
  bool sending_nodes_ DIMS_GUARDED_BY(mutex_) = false;  // one batch of nodes at a time
  unsigned busy_ DIMS_GUARDED_BY(mutex_) = 0;
  bool flushing_ DIMS_GUARDED_BY(mutex_) = false;
  bool stop_ DIMS_GUARDED_BY(mutex_) = false;
  Status failure_ DIMS_GUARDED_BY(mutex_);
  UploadCounts counts_ DIMS_GUARDED_BY(mutex_);
  std::unordered_set<ObjectId, IdHash> seen_ DIMS_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace dims::tree
