#include "nbdkit-ldim/writeback/lease_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace dims::ldim {

SessionId new_session(const FolderTag& folder, Random& random) {
  auto session = random.id<SessionId>();
  std::copy(folder.rbegin(), folder.rend(), session.bytes.rbegin());
  return session;
}

bool same_folder(const SessionId& a, const SessionId& b) {
  return std::equal(a.bytes.end() - std::tuple_size_v<FolderTag>, a.bytes.end(),
                    b.bytes.end() - std::tuple_size_v<FolderTag>);
}

LeaseKeeper::LeaseKeeper(contract::Remote& remote, contract::LeaseRequest request)
    : remote_(remote), request_(std::move(request)), thread_([this] { run(); }) {}

LeaseKeeper::~LeaseKeeper() { stop(); }

void LeaseKeeper::stop() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<contract::LeaseGrant> LeaseKeeper::acquire(LeaseAsk ask) {
  contract::LeaseRequest request;
  {
    const MutexLock lock(mutex_);
    if (grant_) return *grant_;
    if (!surrendered_to_.empty() && std::chrono::steady_clock::now() < yield_until_) {
      Error error = make_error(ErrorCode::kLeaseHeld, "the image was handed to another machine");
      error.holder = surrendered_to_;
      return error;
    }
    surrendered_to_.clear();
    request = request_;
  }
  request.hand_off = ask != LeaseAsk::kPlain;
  request.take_over = ask == LeaseAsk::kTakeOver;
  auto grant = remote_.acquire_lease(request);
  if (!grant.ok() && grant.error().code == ErrorCode::kLeaseHeld) {
    const auto image = remote_.get_image(request.image);
    if (image.ok() && image->holder && image->holder->machine == request.machine &&
        same_folder(image->holder->session, request.session)) {
      request.take_over = true;
      grant = remote_.acquire_lease(request);
    }
  }
  const MutexLock lock(mutex_);
  if (!grant.ok()) {
    trouble_ = grant.error().to_string();
    return grant;
  }
  trouble_.clear();
  if (request.image == request_.image) grant_ = *grant;
  changed_.notify_all();
  return grant;
}

void LeaseKeeper::drop() {
  const MutexLock lock(mutex_);
  grant_.reset();
}

void LeaseKeeper::retarget(const ImageId& image, const SessionId& session) {
  release();
  const MutexLock lock(mutex_);
  request_.image = image;
  request_.session = session;
  surrendered_to_.clear();
}

void LeaseKeeper::surrender(const std::string& to) {
  constexpr std::chrono::seconds kYield{30};
  {
    const MutexLock lock(mutex_);
    surrendered_to_ = to.empty() ? "another machine" : to;
    yield_until_ = std::chrono::steady_clock::now() + kYield;
  }
  release();
}

void LeaseKeeper::set_unsent(std::function<std::uint64_t()> unsent) {
  MutexLock lock(mutex_);
  changed_.wait(lock, [&]() DIMS_REQUIRES(mutex_) { return !asking_; });
  unsent_ = std::move(unsent);
}

void LeaseKeeper::release() {
  std::optional<contract::LeaseGrant> grant;
  ImageId image;
  {
    const MutexLock lock(mutex_);
    grant.swap(grant_);
    image = request_.image;
  }
  if (grant) (void)remote_.release_lease(image, *grant).ok();
}

std::optional<contract::LeaseGrant> LeaseKeeper::held() const {
  const MutexLock lock(mutex_);
  return grant_;
}

std::string LeaseKeeper::trouble() const {
  const MutexLock lock(mutex_);
  return trouble_;
}

void LeaseKeeper::run() {
  MutexLock lock(mutex_);
  while (!stop_) {
    if (!grant_) {
      changed_.wait(lock, [&]() DIMS_REQUIRES(mutex_) { return stop_ || grant_.has_value(); });
      continue;
    }
    const auto pause =
        std::max<std::chrono::milliseconds>(grant_->term / 3, std::chrono::milliseconds(50));
    if (changed_.wait_for(lock, pause, [&]() DIMS_REQUIRES(mutex_) { return stop_ || !grant_; }))
      continue;
    contract::LeaseGrant grant = *grant_;
    const ImageId image = request_.image;
    const auto unsent = unsent_;
    asking_ = true;
    lock.unlock();
    if (unsent) grant.unsent_bytes = unsent();
    lock.lock();
    asking_ = false;
    lock.unlock();
    changed_.notify_all();
    const auto renewed = remote_.renew_lease(image, grant);
    lock.lock();
    if (!grant_ || !(grant_->lease == grant.lease)) continue;
    if (renewed.ok()) {
      grant_ = *renewed;
      trouble_.clear();
      continue;
    }
    trouble_ = renewed.error().to_string();
    // Unreachable: keep it, the server may renew it later. Stale: somebody else may hold it now.
    // Not there any more: the branch was resolved, or the right to it was taken away.
    const ErrorCode code = renewed.error().code;
    if (code == ErrorCode::kStaleLease || code == ErrorCode::kLeaseHeld ||
        is_absent(renewed.error())) {
      spdlog::warn("the lease was lost: {}", trouble_);
      grant_.reset();
    }
  }
}

}  // namespace dims::ldim
