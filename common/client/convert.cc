#include "common/client/convert.h"

#include <algorithm>
#include <limits>

namespace dims::client {

using namespace contract;  // NOLINT: this file speaks of nothing else

namespace {

Error bad_answer(const std::string& what) {
  return make_error(ErrorCode::kInternal, "the server's answer cannot be used: " + what,
                    "update the older of client and server");
}

Bytes bytes_of(const std::string& text) {
  const ByteView view = as_bytes(text);
  return {view.begin(), view.end()};
}

// For people to read, on terminals and in logs: a name that would do more there is left out.
std::vector<std::string> names_of(const google::protobuf::RepeatedPtrField<std::string>& names) {
  constexpr std::size_t kMax = 256;
  std::vector<std::string> out;
  for (const std::string& name : names) {
    const bool plain = std::none_of(name.begin(), name.end(), [](char c) {
      const auto byte = static_cast<unsigned char>(c);
      return byte < 0x20 || byte == 0x7f;
    });
    if (plain && !name.empty() && name.size() <= kMax && out.size() < kMax) out.push_back(name);
  }
  return out;
}

std::chrono::milliseconds milliseconds_of(std::uint64_t count) {
  // Bounded, so that adding it to a clock cannot overflow.
  constexpr std::uint64_t kMax = std::uint64_t{1} << 40;
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::min(count, kMax)));
}

}  // namespace

Error bad_id(std::string_view what, std::size_t bytes) {
  return bad_answer("its " + std::string(what) + " has " + std::to_string(bytes) + " bytes");
}

v1::ObjectKey to_proto(const format::ObjectKey& key) {
  v1::ObjectKey out;
  out.set_domain(key.domain.bytes.data(), DomainId::kBytes);
  out.set_id(key.id.bytes.data(), ObjectId::kBytes);
  return out;
}

v1::Priority to_proto(Priority priority) {
  switch (priority) {
    case Priority::kDemand:
      return v1::PRIORITY_DEMAND;
    case Priority::kBoot:
      return v1::PRIORITY_BOOT;
    case Priority::kWriteBack:
      return v1::PRIORITY_WRITE_BACK;
    case Priority::kPrefetch:
      return v1::PRIORITY_PREFETCH;
  }
  return v1::PRIORITY_PREFETCH;
}

v1::CreateImageRequest to_proto(const ImageInfo& image) {
  v1::CreateImageRequest out;
  put_id(image.id, out.mutable_id());
  out.set_name(image.name);
  out.set_image_bytes(image.image_bytes);
  out.mutable_tree()->set_leaf_pages(image.tree.leaf_pages);
  out.mutable_tree()->set_fanout(image.tree.fanout);
  out.mutable_tree()->set_chunk_mean_bytes(image.tree.chunk_mean_bytes);
  put_id(image.domain, out.mutable_domain());
  put_id(image.key_check, out.mutable_key_check());
  put_id(image.origin, out.mutable_origin());
  out.set_conflict_of(image.conflict_of);
  return out;
}

Result<format::ObjectKey> from_proto(const v1::ObjectKey& key) {
  format::ObjectKey out;
  DIMS_TRY(take_id(key.domain(), "object's domain", out.domain));
  DIMS_TRY(take_id(key.id(), "object id", out.id));
  return out;
}

Result<HolderInfo> from_proto(const v1::LeaseHolder& holder) {
  HolderInfo out;
  DIMS_TRY(take_id(holder.machine(), "machine id", out.machine));
  DIMS_TRY(take_id(holder.session(), "session id", out.session));
  out.machine_name = holder.machine_name();
  out.expires_in = milliseconds_of(holder.expires_in_ms());
  out.unsent_bytes = holder.unsent_bytes();
  return out;
}

Result<ImageInfo> from_proto(const v1::Image& image) {
  ImageInfo out;
  DIMS_TRY(take_id(image.id(), "image id", out.id));
  out.name = image.name();
  out.image_bytes = image.image_bytes();
  constexpr std::uint32_t kMax16 = std::numeric_limits<std::uint16_t>::max();
  if (image.tree().leaf_pages() > kMax16 || image.tree().fanout() > kMax16)
    return bad_answer("tree parameters");
  out.tree.leaf_pages = static_cast<std::uint16_t>(image.tree().leaf_pages());
  out.tree.fanout = static_cast<std::uint16_t>(image.tree().fanout());
  out.tree.chunk_mean_bytes = image.tree().chunk_mean_bytes();
  DIMS_TRY(format::check_parameters(out.tree));
  if (out.image_bytes == 0 || out.image_bytes > kMaxImageBytes) return bad_answer("image size");
  DIMS_TRY(take_id(image.domain(), "domain id", out.domain));
  DIMS_TRY(take_id(image.key_check(), "key check", out.key_check));
  DIMS_TRY(take_id(image.head(), "head", out.head));
  out.head_sequence = image.head_sequence();
  DIMS_TRY(take_id(image.origin(), "origin", out.origin));
  out.created_unix_ns = image.created_unix_ns();
  if (image.has_holder()) {
    DIMS_ASSIGN(out.holder, from_proto(image.holder()));
  }
  out.conflict_of = image.conflict_of();
  for (const v1::LeaseHolder& machine : image.unsent()) {
    DIMS_ASSIGN(HolderInfo holder, from_proto(machine));
    out.unsent.push_back(std::move(holder));
  }
  out.branches = names_of(image.branches());
  return out;
}

Result<VersionInfo> from_proto(const v1::Version& version) {
  VersionInfo out;
  out.gone = version.gone();
  DIMS_TRY(take_id(version.id(), "version id", out.id));
  out.record_bytes = bytes_of(version.record());
  DIMS_ASSIGN(out.record, format::decode_version(out.record_bytes));
  if (!(format::version_id(out.record_bytes) == out.id)) {
    return make_error(ErrorCode::kCorrupt,
                      "the record of version " + out.id.short_hex() + " does not have its id",
                      "check the server's store");
  }
  return out;
}

Result<LeaseGrant> from_proto(const v1::Lease& lease) {
  LeaseGrant out;
  DIMS_TRY(take_id(lease.lease(), "lease id", out.lease));
  out.token = lease.token();
  out.term = milliseconds_of(lease.term_ms());
  return out;
}

Result<SessionAnswer> from_proto(const v1::OpenSessionReply& reply) {
  SessionAnswer out;
  DIMS_ASSIGN(out.image, from_proto(reply.image()));
  if (reply.has_newest_of_journal()) {
    format::CommitPoint point;
    DIMS_TRY(take_id(reply.newest_of_journal().journal(), "journal id", point.journal));
    point.epoch = reply.newest_of_journal().epoch();
    DIMS_TRY(take_id(reply.newest_of_journal().digest(), "journal digest", point.digest));
    out.newest_of_journal = point;
  }
  DIMS_TRY(take_id(reply.newest_version(), "version id", out.newest_version));
  return out;
}

Result<CommitAnswer> from_proto(const v1::CommitReply& reply) {
  CommitAnswer out;
  DIMS_TRY(take_id(reply.version(), "version id", out.version));
  out.sequence = reply.sequence();
  out.repeated = reply.repeated();
  for (const v1::ObjectKey& key : reply.missing()) {
    DIMS_ASSIGN(format::ObjectKey missing, from_proto(key));
    out.missing.push_back(missing);
  }
  if (out.missing.empty() && out.version.is_zero()) return bad_answer("a commit without a version");
  return out;
}

Result<DiffPart> from_proto(const v1::DiffReply& reply) {
  DiffPart out;
  if (reply.keys_size() != reply.nodes_size())
    return bad_answer("as many nodes as keys were expected");
  for (int i = 0; i < reply.keys_size(); ++i) {
    DIMS_ASSIGN(format::ObjectKey key, from_proto(reply.keys(i)));
    Bytes node = bytes_of(reply.nodes(i));
    if (!(format::object_id(node) == key.id)) {
      return make_error(ErrorCode::kCorrupt, "tree node " + key.id.short_hex() + " arrived damaged",
                        "walk the new tree instead; if it stays so, check the server's store");
    }
    out.keys.push_back(key);
    out.nodes.push_back(std::move(node));
  }
  for (const v1::ObjectKey& key : reply.removed()) {
    DIMS_ASSIGN(format::ObjectKey removed, from_proto(key));
    out.removed.push_back(removed);
  }
  return out;
}

Result<ServerEvent> from_proto(const v1::Event& event) {
  ServerEvent out;
  switch (event.kind()) {
    case v1::Event::READY:
      out.kind = ServerEvent::Kind::kReady;
      break;
    case v1::Event::NEW_VERSION:
      out.kind = ServerEvent::Kind::kNewVersion;
      break;
    case v1::Event::LEASE_REQUESTED:
      out.kind = ServerEvent::Kind::kLeaseRequested;
      break;
    case v1::Event::LEASE_LOST:
      out.kind = ServerEvent::Kind::kLeaseLost;
      break;
    case v1::Event::REMOVED:
      out.kind = ServerEvent::Kind::kRemoved;
      break;
    case v1::Event::BRANCHES:
      out.kind = ServerEvent::Kind::kBranches;
      break;
    default:
      return bad_answer("an event of an unknown kind");
  }
  DIMS_TRY(take_id(event.image(), "image id", out.image));
  DIMS_TRY(take_id(event.version(), "version id", out.version));
  out.sequence = event.sequence();
  out.hand_off = event.hand_off();
  out.branches = names_of(event.branches());
  if (event.has_who()) {
    DIMS_ASSIGN(out.who, from_proto(event.who()));
  }
  return out;
}

Result<RemoteStoreInfo> from_proto(const v1::StoreInfoReply& reply) {
  RemoteStoreInfo out;
  out.objects = reply.objects();
  out.object_bytes = reply.object_bytes();
  out.disk_bytes = reply.disk_bytes();
  out.images = reply.images();
  out.puts_stored = reply.puts_stored();
  out.puts_present = reply.puts_present();
  out.gets = reply.gets();
  out.bytes_sent = reply.bytes_sent();
  out.bytes_received = reply.bytes_received();
  DIMS_TRY(take_id(reply.generation(), "generation", out.generation));
  return out;
}

}  // namespace dims::client
