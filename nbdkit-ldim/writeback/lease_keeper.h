// LeaseKeeper: holds the right to commit to one image and renews it in time.
//
// Threads: thread-safe; renews on a thread of its own, so that a long upload does not outlive its
// lease. Ownership: remote outlives it. Errors: kUnavailable, kLeaseHeld (with the holder),
// kStaleLease. Durable: nothing; the server keeps leases.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/contract/remote.h"

namespace dims::ldim {

// The sessions of one cache folder have ids that end alike. So a lease that an earlier session of
// this folder left behind is told from that of another folder of this machine.
using FolderTag = std::array<std::uint8_t, 8>;
SessionId new_session(const FolderTag& folder, Random& random);
bool same_folder(const SessionId& a, const SessionId& b);

// An image that is not there, or not for us: where rights are asked for, both are answered alike.
inline bool is_absent(const Error& error) {
  return error.code == ErrorCode::kNotFound || error.code == ErrorCode::kPermissionDenied;
}

class LeaseKeeper {
 public:
  LeaseKeeper(contract::Remote& remote, contract::LeaseRequest request);
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;

  // The lease that we hold; acquires it if we hold none. A lease that an earlier session of this
  // folder holds is ours to take: one process at a time serves a cache folder.
  Result<contract::LeaseGrant> ensure() { return acquire(LeaseAsk::kPlain); }
  // How insistently another holder is asked: not, to send what it has and release, or not at all
  // any more (its lease ends, its unsent writes become a branch).
  enum class LeaseAsk { kPlain, kHandOff, kTakeOver };
  Result<contract::LeaseGrant> acquire(LeaseAsk ask);
  // Forgets a lease that the server called stale.
  void drop();
  // Another image or session from now on (the old lease is released).
  void retarget(const ImageId& image, const SessionId& session);
  // Gives the lease back, if we hold one. Best effort.
  void release();
  // Gives it to the machine that asked: released, and not asked for again for a while, so that the
  // other one gets it.
  void surrender(const std::string& to);
  // What each renewal tells those who wait: the bytes that are still to be sent. May be empty. When
  // it returns, what was set before is asked no more.
  void set_unsent(std::function<std::uint64_t()> unsent);
  void stop();
  std::optional<contract::LeaseGrant> held() const;
  std::string trouble() const;  // last failure to acquire or renew; empty if none

 private:
  void run();

  contract::Remote& remote_;
  mutable Mutex mutex_;
  Condition changed_;
  contract::LeaseRequest request_ DIMS_GUARDED_BY(mutex_);
  std::optional<contract::LeaseGrant> grant_ DIMS_GUARDED_BY(mutex_);
  std::string trouble_ DIMS_GUARDED_BY(mutex_);
  std::string surrendered_to_ DIMS_GUARDED_BY(mutex_);  // empty: to nobody
  std::chrono::steady_clock::time_point yield_until_ DIMS_GUARDED_BY(mutex_){};
  std::function<std::uint64_t()> unsent_ DIMS_GUARDED_BY(mutex_);
  bool asking_ DIMS_GUARDED_BY(mutex_) = false;  // unsent_ is being called
  bool stop_ DIMS_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace dims::ldim
