#include "image-tools/transfer/lease_keeper.h"

namespace dims::transfer {

Result<std::unique_ptr<LeaseKeeper>> LeaseKeeper::acquire(contract::Remote& remote,
                                                          const ImageId& image, const Who& who) {
  contract::LeaseRequest request;
  request.image = image;
  request.session = who.session;
  request.machine = who.machine;
  request.machine_name = who.machine_name;
  DIMS_ASSIGN(const contract::LeaseGrant grant, remote.acquire_lease(request));
  return std::unique_ptr<LeaseKeeper>(new LeaseKeeper(remote, image, grant));
}

LeaseKeeper::LeaseKeeper(contract::Remote& remote, const ImageId& image,
                         const contract::LeaseGrant& grant)
    : remote_(remote), image_(image), grant_(grant), thread_([this] { run(); }) {}

LeaseKeeper::~LeaseKeeper() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  // An error changes nothing: a lease that nobody renews expires by itself.
  (void)remote_.release_lease(image_, grant_);
}

Status LeaseKeeper::status() {
  const MutexLock lock(mutex_);
  return status_;
}

void LeaseKeeper::run() {
  const auto pause = std::max(grant_.term / 3, std::chrono::milliseconds(100));
  MutexLock lock(mutex_);
  while (!changed_.wait_for(lock, pause, [&]() DIMS_REQUIRES(mutex_) { return stop_; })) {
    lock.unlock();
    const auto renewed = remote_.renew_lease(image_, grant_);
    lock.lock();
    // Away, or too many requests this minute: the next try may find the lease still there.
    const bool again = !renewed.ok() && (renewed.error().code == ErrorCode::kUnavailable ||
                                         renewed.error().code == ErrorCode::kResourceExhausted);
    if (!renewed.ok() && !again) {
      status_ = renewed.error();
      return;
    }
  }
}

}  // namespace dims::transfer
