#include "rdim-server/catalog/catalog.h"

namespace dims::catalog {
namespace {

using contract::ServerEvent;

std::string seconds_text(std::chrono::milliseconds time) {
  return std::to_string(std::chrono::ceil<std::chrono::seconds>(time).count()) + " s";
}

std::string machine_text(const LeaseRecord& lease) {
  return "machine " +
         (lease.machine_name.empty() ? lease.machine.short_hex() : lease.machine_name) +
         ", session " + lease.session.short_hex();
}

}  // namespace

bool Catalog::lease_is_live(const LiveImage& image) {
  return image.record.lease.held() && clock_.boottime() < image.lease_ends;
}

Error Catalog::held_error(const LiveImage& image) {
  const auto left = seconds_text(holder_of(image).expires_in);
  Error error = make_error(
      ErrorCode::kLeaseHeld, "image '" + image.record.name + "' is in use",
      "end the session there ('ldim session end'), wait until its lease ends, ask for it with "
      "lease=hand-off, or take it with lease=take-over");
  error.holder = machine_text(image.record.lease) + ", for " + left + " more";
  return error;
}

Status Catalog::check_lease(const LiveImage& image, const LeaseId& lease, std::uint64_t token,
                            bool even_expired) {
  const LeaseRecord& held = image.record.lease;
  const bool ours = held.held() && held.lease == lease && image.record.token == token;
  if (ours && (even_expired || lease_is_live(image))) return ok_status();
  Error error = make_error(ErrorCode::kStaleLease,
                           "the lease on image '" + image.record.name + "' " +
                               (ours ? "has expired" : "is no longer yours"),
                           "acquire it again");
  if (!ours && lease_is_live(image)) error.holder = machine_text(held);
  return error;
}

Result<contract::LeaseGrant> Catalog::acquire_lease(const contract::LeaseRequest& request) {
  DIMS_TRY(check_machine_name(request.machine_name));
  if (request.session.is_zero()) {
    return make_error(ErrorCode::kInvalidArgument, "a lease needs a session");
  }
  const auto term = std::chrono::duration_cast<std::chrono::milliseconds>(options_.lease_term);
  DIMS_ASSIGN(const ImagePtr image, live(request.image));
  std::lock_guard lock(image->mutex);
  if (image->removed) return make_error(ErrorCode::kNotFound, "the image was removed");
  const LeaseRecord& held = image->record.lease;
  if (held.held() && held.session == request.session && held.machine == request.machine) {
    // Its own, perhaps expired and taken by nobody, or the first answer was lost.
    image->lease_ends = clock_.boottime() + options_.lease_term;
    return contract::LeaseGrant{held.lease, image->record.token, term};
  }
  ServerEvent event;
  event.image = request.image;
  event.hand_off = request.hand_off;
  event.who = contract::HolderInfo{request.machine, request.machine_name, request.session, term};
  if (lease_is_live(*image) && !request.take_over) {
    event.kind = ServerEvent::Kind::kLeaseRequested;
    events_.announce(event, held.session);
    return held_error(*image);
  }
  const LeaseRecord former = held;
  ImageRecord next = image->record;
  next.lease = {random_.id<LeaseId>(), request.machine, request.machine_name, request.session};
  ++next.token;
  if (former.held() && !(former.machine == request.machine)) {
    note_unsent(next, {former.machine, former.machine_name, former.session, image->unsent_bytes,
                       static_cast<std::uint64_t>(clock_.wall().count())});
  }
  catalog::forget_unsent(next, request.machine);  // a holder is named as such
  DIMS_TRY(save(*image, std::move(next)));
  image->lease_ends = clock_.boottime() + options_.lease_term;
  image->unsent_bytes = 0;
  if (former.held()) {
    event.kind = ServerEvent::Kind::kLeaseLost;
    events_.announce(event, former.session);
  }
  return contract::LeaseGrant{image->record.lease.lease, image->record.token, term};
}

Result<contract::LeaseGrant> Catalog::renew_lease(const ImageId& id,
                                                  const contract::LeaseGrant& lease) {
  DIMS_ASSIGN(const ImagePtr image, live(id));
  std::lock_guard lock(image->mutex);
  DIMS_TRY(check_lease(*image, lease.lease, lease.token, true));
  image->unsent_bytes = lease.unsent_bytes;
  image->lease_ends = clock_.boottime() + options_.lease_term;
  return contract::LeaseGrant{
      lease.lease, lease.token,
      std::chrono::duration_cast<std::chrono::milliseconds>(options_.lease_term)};
}

Status Catalog::release_lease(const ImageId& id, const contract::LeaseGrant& lease) {
  const auto found = live(id);
  if (!found.ok()) return found.error();
  LiveImage& image = **found;
  std::lock_guard lock(image.mutex);
  if (!image.record.lease.held()) return ok_status();  // the first answer was lost
  DIMS_TRY(check_lease(image, lease.lease, lease.token, true));
  ImageRecord next = image.record;
  next.lease = {};
  return save(image, std::move(next));
}

}  // namespace dims::catalog
