#include "tests/sim/sim_server.h"

#include <cstdlib>

namespace dims::sim {

SimServer::SimServer(SimClock& clock, std::uint64_t seed)
    : clock_(clock), random_(seed), objects_(clock), generation_(random_.id<GenerationId>()) {
  restart();
}

void SimServer::restart() {
  catalog::CatalogOptions options;
  options.lease_term = kLeaseTerm;
  const std::unique_lock nobody_calls(life_);
  auto opened = catalog::Catalog::open(objects_, refs_, generation_, clock_, random_, options);
  if (!opened.ok()) std::abort();
  catalog_ = std::move(opened).value();
  const std::lock_guard lock(mutex_);
  for (auto& [image, held] : held_) held.ends = clock_.boottime() + kLeaseTerm;
}

Result<contract::LeaseGrant> SimServer::acquire_lease(const contract::LeaseRequest& request) {
  const std::lock_guard lock(mutex_);
  auto grant = catalog_->acquire_lease(request);
  if (!grant.ok()) return grant;
  Held& held = held_[request.image];
  if (grant->token < held.token) violations_.push_back("a fencing token went backwards");
  if (grant->token == held.token && !(grant->lease == held.lease))
    violations_.push_back("two leases have one fencing token");
  if (grant->token > held.token && held.held && clock_.boottime() < held.ends && !request.take_over)
    violations_.push_back("a lease was given away before it had ended");
  held = {grant->lease, grant->token, clock_.boottime() + kLeaseTerm, true};
  return grant;
}

Result<contract::LeaseGrant> SimServer::renew_lease(const ImageId& image,
                                                    const contract::LeaseGrant& lease) {
  const std::lock_guard lock(mutex_);
  auto grant = catalog_->renew_lease(image, lease);
  if (!grant.ok()) return grant;
  Held& held = held_[image];
  if (!held.held || held.token != lease.token)
    violations_.push_back("a lease that is no longer held was renewed");
  held.ends = clock_.boottime() + kLeaseTerm;
  return grant;
}

Status SimServer::release_lease(const ImageId& image, const contract::LeaseGrant& lease) {
  const std::lock_guard lock(mutex_);
  const Status released = catalog_->release_lease(image, lease);
  Held& held = held_[image];
  if (released.ok() && held.token == lease.token && held.lease == lease.lease) held.held = false;
  return released;
}

Result<contract::CommitAnswer> SimServer::commit(const contract::CommitOrder& order) {
  const std::lock_guard lock(mutex_);
  const auto before = catalog_->get_image(order.image);
  auto answer = catalog_->commit(order);
  const auto after = catalog_->get_image(order.image);
  if (!answer.ok() && answer.error().code == ErrorCode::kStaleLease) ++stale_refused_;
  const bool moved = before.ok() && after.ok() && !(before->head == after->head);
  if (!moved) return answer;
  ++accepted_;
  if (!answer.ok() || answer->repeated || !answer->missing.empty())
    violations_.push_back("the head moved by a commit that was not accepted");
  if (!(before->head == order.parent))
    violations_.push_back("a commit was accepted whose parent was not the head");
  const auto found = held_.find(order.image);
  if (found == held_.end() || !found->second.held || found->second.token != order.token ||
      !(found->second.lease == order.lease))
    violations_.push_back("a commit was accepted with a stale token");
  else if (clock_.boottime() >= found->second.ends)
    violations_.push_back("a commit was accepted under a lease that had ended");
  return answer;
}

std::vector<std::string> SimServer::violations() {
  const std::lock_guard lock(mutex_);
  return violations_;
}

}  // namespace dims::sim
