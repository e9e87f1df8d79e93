// LeaseKeeper: holds the right to commit to one image, renews it in the background, gives it back.
//
// Threads: one owner; one thread of its own. Ownership: the remote outlives it. Errors: acquire()
// gives kLeaseHeld with the holder's name; status() turns to the first fatal answer of a renewal
// (kStaleLease), while kUnavailable is waited out: the commit decides. Durable: as the server says.
#pragma once

#include <memory>
#include <thread>

#include "common/base/mutex.h"
#include "common/contract/remote.h"
#include "image-tools/transfer/who.h"

namespace dims::transfer {

class LeaseKeeper {
 public:
  static Result<std::unique_ptr<LeaseKeeper>> acquire(contract::Remote& remote,
                                                      const ImageId& image, const Who& who);
  ~LeaseKeeper();  // releases

  const contract::LeaseGrant& grant() const { return grant_; }
  Status status();

 private:
  LeaseKeeper(contract::Remote& remote, const ImageId& image, const contract::LeaseGrant& grant);
  void run();

  contract::Remote& remote_;
  const ImageId image_;
  const contract::LeaseGrant grant_;
  Mutex mutex_;
  Condition changed_;
  bool stop_ DIMS_GUARDED_BY(mutex_) = false;
  Status status_ DIMS_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace dims::transfer
