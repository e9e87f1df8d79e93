#include "rdim-server/services/convert.h"

namespace dims::services {
namespace {

void holder_to_proto(const contract::HolderInfo& holder, v1::LeaseHolder* out) {
  out->set_machine(to_field(holder.machine));
  out->set_machine_name(holder.machine_name);
  out->set_session(to_field(holder.session));
  out->set_expires_in_ms(static_cast<std::uint64_t>(holder.expires_in.count()));
  out->set_unsent_bytes(holder.unsent_bytes);
}

v1::Event::Kind kind_of(contract::ServerEvent::Kind kind) {
  switch (kind) {
    case contract::ServerEvent::Kind::kReady:
      return v1::Event::READY;
    case contract::ServerEvent::Kind::kNewVersion:
      return v1::Event::NEW_VERSION;
    case contract::ServerEvent::Kind::kLeaseRequested:
      return v1::Event::LEASE_REQUESTED;
    case contract::ServerEvent::Kind::kLeaseLost:
      return v1::Event::LEASE_LOST;
    case contract::ServerEvent::Kind::kRemoved:
      return v1::Event::REMOVED;
    case contract::ServerEvent::Kind::kBranches:
      return v1::Event::BRANCHES;
  }
  return v1::Event::READY;
}

Error too_large(std::string_view what, std::uint64_t value) {
  return make_error(ErrorCode::kInvalidArgument,
                    std::string(what) + " " + std::to_string(value) + " is too large");
}

}  // namespace

Error bad_length(std::string_view what, std::size_t bytes) {
  return make_error(
      ErrorCode::kInvalidArgument,
      std::string(what) + " of " + std::to_string(bytes) + " bytes: ids have a fixed length",
      "client and server may be of different versions");
}

void to_proto(const format::ObjectKey& key, v1::ObjectKey* out) {
  out->set_domain(std::string(as_text(key.domain.view())));
  out->set_id(std::string(as_text(key.id.view())));
}

void to_proto(const contract::ImageInfo& image, v1::Image* out) {
  out->set_id(to_field(image.id));
  out->set_name(image.name);
  out->set_image_bytes(image.image_bytes);
  out->mutable_tree()->set_leaf_pages(image.tree.leaf_pages);
  out->mutable_tree()->set_fanout(image.tree.fanout);
  out->mutable_tree()->set_chunk_mean_bytes(image.tree.chunk_mean_bytes);
  out->set_domain(to_field(image.domain));
  out->set_key_check(to_field(image.key_check));
  out->set_head(to_field(image.head));
  out->set_head_sequence(image.head_sequence);
  out->set_origin(to_field(image.origin));
  out->set_created_unix_ns(image.created_unix_ns);
  if (image.holder) holder_to_proto(*image.holder, out->mutable_holder());
  out->set_conflict_of(image.conflict_of);
  for (const contract::HolderInfo& machine : image.unsent) {
    holder_to_proto(machine, out->add_unsent());
  }
  for (const std::string& branch : image.branches) out->add_branches(branch);
}

void to_proto(const contract::VersionInfo& version, v1::Version* out) {
  out->set_id(to_field(version.id));
  out->set_record(std::string(as_text(version.record_bytes)));
}

void to_proto(const contract::LeaseGrant& lease, v1::Lease* out) {
  out->set_lease(to_field(lease.lease));
  out->set_token(lease.token);
  out->set_term_ms(static_cast<std::uint64_t>(lease.term.count()));
}

void to_proto(const contract::SessionAnswer& answer, v1::OpenSessionReply* out) {
  to_proto(answer.image, out->mutable_image());
  if (!answer.newest_of_journal) return;
  v1::CommitPoint* point = out->mutable_newest_of_journal();
  point->set_journal(to_field(answer.newest_of_journal->journal));
  point->set_epoch(answer.newest_of_journal->epoch);
  point->set_digest(std::string(as_text(answer.newest_of_journal->digest.view())));
  out->set_newest_version(to_field(answer.newest_version));
}

void to_proto(const contract::CommitAnswer& answer, v1::CommitReply* out) {
  out->set_version(to_field(answer.version));
  out->set_sequence(answer.sequence);
  out->set_repeated(answer.repeated);
  for (const format::ObjectKey& key : answer.missing) to_proto(key, out->add_missing());
}

void to_proto(const contract::ServerEvent& event, v1::Event* out) {
  out->set_kind(kind_of(event.kind));
  out->set_image(to_field(event.image));
  out->set_version(to_field(event.version));
  out->set_sequence(event.sequence);
  if (event.who) holder_to_proto(*event.who, out->mutable_who());
  out->set_hand_off(event.hand_off);
  for (const std::string& branch : event.branches) out->add_branches(branch);
}

Result<contract::ImageInfo> from_proto(const v1::CreateImageRequest& request) {
  contract::ImageInfo image;
  DIMS_TRY(take_id(request.id(), "image id", image.id));
  image.name = request.name();
  image.image_bytes = request.image_bytes();
  const v1::TreeParameters& tree = request.tree();
  if (tree.leaf_pages() > 0xffff) return too_large("leaf_pages", tree.leaf_pages());
  if (tree.fanout() > 0xffff) return too_large("fanout", tree.fanout());
  image.tree.leaf_pages = static_cast<std::uint16_t>(tree.leaf_pages());
  image.tree.fanout = static_cast<std::uint16_t>(tree.fanout());
  image.tree.chunk_mean_bytes = tree.chunk_mean_bytes();
  DIMS_TRY(take_id(request.domain(), "domain id", image.domain));
  DIMS_TRY(take_id(request.key_check(), "key check", image.key_check));
  DIMS_TRY(take_id(request.origin(), "origin", image.origin));
  image.conflict_of = request.conflict_of();
  return image;
}

Result<contract::SessionRequest> from_proto(const v1::OpenSessionRequest& request) {
  contract::SessionRequest out;
  DIMS_TRY(take_id(request.image(), "image id", out.image));
  DIMS_TRY(take_id(request.session(), "session id", out.session));
  DIMS_TRY(take_id(request.machine(), "machine id", out.machine));
  out.machine_name = request.machine_name();
  out.mode = request.mode();
  DIMS_TRY(take_id(request.base(), "base version", out.base));
  DIMS_TRY(take_id(request.journal(), "journal id", out.journal));
  out.unsent_bytes = request.unsent_bytes();
  return out;
}

Result<contract::LeaseRequest> from_proto(const v1::AcquireLeaseRequest& request) {
  contract::LeaseRequest out;
  DIMS_TRY(take_id(request.image(), "image id", out.image));
  DIMS_TRY(take_id(request.session(), "session id", out.session));
  DIMS_TRY(take_id(request.machine(), "machine id", out.machine));
  out.machine_name = request.machine_name();
  out.take_over = request.take_over();
  out.hand_off = request.hand_off();
  return out;
}

Result<contract::CommitOrder> from_proto(const v1::CommitRequest& request) {
  contract::CommitOrder out;
  DIMS_TRY(take_id(request.image(), "image id", out.image));
  DIMS_TRY(take_id(request.lease(), "lease id", out.lease));
  out.token = request.token();
  DIMS_TRY(take_id(request.parent(), "parent version", out.parent));
  const ByteView record = as_bytes(request.record());
  out.record.assign(record.begin(), record.end());
  return out;
}

Result<contract::LeaseGrant> lease_of(const std::string& lease, std::uint64_t token) {
  contract::LeaseGrant out;
  DIMS_TRY(take_id(lease, "lease id", out.lease));
  out.token = token;
  return out;
}

Result<std::vector<format::ObjectKey>> keys_of(
    const google::protobuf::RepeatedPtrField<v1::ObjectKey>& keys, std::size_t max) {
  if (static_cast<std::size_t>(keys.size()) > max) {
    return make_error(ErrorCode::kInvalidArgument, "a request of " + std::to_string(keys.size()) +
                                                       " objects; at most " + std::to_string(max) +
                                                       " are allowed");
  }
  std::vector<format::ObjectKey> out;
  out.reserve(static_cast<std::size_t>(keys.size()));
  for (const v1::ObjectKey& key : keys) {
    format::ObjectKey& next = out.emplace_back();
    const auto domain = DomainId::from_view(as_bytes(key.domain()));
    const auto id = ObjectId::from_view(as_bytes(key.id()));
    if (!domain) return bad_length("domain id", key.domain().size());
    if (!id) return bad_length("object id", key.id().size());
    next = {*domain, *id};
  }
  return out;
}

}  // namespace dims::services
