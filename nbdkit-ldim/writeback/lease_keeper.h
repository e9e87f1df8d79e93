// LeaseKeeper: holds the right to commit to one image and renews it in time.
//
// Threads: thread-safe; renews on a thread of its own, so that a long upload does not outlive its
// lease. Ownership: remote outlives it. Errors: kUnavailable, kLeaseHeld (with the holder),
// kStaleLease. Durable: nothing; the server keeps leases.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "common/contract/remote.h"

namespace dims::ldim {

class LeaseKeeper {
 public:
  LeaseKeeper(contract::Remote& remote, contract::LeaseRequest request);
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;

  // The lease that we hold; acquires it if we hold none. A lease that this machine holds for an
  // earlier session is ours to take: one process at a time serves a cache folder.
  Result<contract::LeaseGrant> ensure();
  // Forgets a lease that the server called stale.
  void drop();
  // Another image or session from now on (the old lease is released).
  void retarget(const ImageId& image, const SessionId& session);
  // Gives the lease back, if we hold one. Best effort.
  void release();
  void stop();
  std::optional<contract::LeaseGrant> held() const;
  std::string trouble() const;  // last failure to acquire or renew; empty if none

 private:
  void run();

  contract::Remote& remote_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  contract::LeaseRequest request_;
  std::optional<contract::LeaseGrant> grant_;
  std::string trouble_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace dims::ldim
