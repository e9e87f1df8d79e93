// Uploader: brings sealed objects to the server: asks which it lacks, sends those, many in flight.
//
// Threads: add() may be called from many threads; it blocks while too much is in flight
// (max_bytes_in_flight), which is the back-pressure for whoever cuts and seals. Ownership: remote
// outlives it. Errors: the first failure is kept and returned by every later add() and by finish(). Durable on return
// of finish(): nothing; the commit that follows makes it so.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

#include "common/contract/remote.h"

namespace dims::tree {

struct UploadOptions {
  contract::Priority priority = contract::Priority::kWriteBack;
  unsigned threads = 2;
  std::size_t batch_objects = 128;
  std::size_t batch_bytes = kMiB;
  std::size_t max_bytes_in_flight = 16 * kMiB;
  std::size_t max_remembered_ids = 1 << 20;  // of objects this upload has handled, to skip repeats
};

struct UploadCounts {
  std::uint64_t objects = 0;        // given
  std::uint64_t repeated = 0;       // equal to one given before
  std::uint64_t present = 0;        // the server had them
  std::uint64_t sent = 0;
  std::uint64_t sent_bytes = 0;
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
  void run();
  Status send(std::vector<format::SealedObject>& batch);

  contract::Remote& remote_;
  const ImageId image_;
  const UploadOptions options_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<format::SealedObject> queue_;
  std::size_t queued_bytes_ = 0;
  std::size_t bytes_in_flight_ = 0;  // queued or being sent
  unsigned busy_ = 0;
  bool flushing_ = false;
  bool stop_ = false;
  Status failure_;
  UploadCounts counts_;
  std::unordered_set<ObjectId, IdHash> seen_;
  std::vector<std::thread> threads_;
};

}  // namespace dims::tree
