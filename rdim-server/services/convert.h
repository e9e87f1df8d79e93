// Wire messages <-> values. Ids are raw bytes; an empty field is a zero id. Threads: free
// functions. Errors: kInvalidArgument for an id of a wrong length.
#pragma once

#include "common/contract/remote.h"

#include "dims/v1/dims.pb.h"

namespace dims::services {

// A zero id becomes an empty field.
template <typename IdType>
std::string to_field(const IdType& id) {
  return id.is_zero() ? std::string() : std::string(as_text(id.view()));
}

Error bad_length(std::string_view what, std::size_t bytes);

template <typename IdType>
Status take_id(const std::string& field, std::string_view what, IdType& out) {
  out = {};
  if (field.empty()) return ok_status();
  const auto id = IdType::from_view(as_bytes(field));
  if (!id) return bad_length(what, field.size());
  out = *id;
  return ok_status();
}

void to_proto(const format::ObjectKey& key, v1::ObjectKey* out);
void to_proto(const contract::ImageInfo& image, v1::Image* out);
void to_proto(const contract::VersionInfo& version, v1::Version* out);
void to_proto(const contract::LeaseGrant& lease, v1::Lease* out);
void to_proto(const contract::SessionAnswer& answer, v1::OpenSessionReply* out);
void to_proto(const contract::CommitAnswer& answer, v1::CommitReply* out);
void to_proto(const contract::ServerEvent& event, v1::Event* out);

Result<contract::ImageInfo> from_proto(const v1::CreateImageRequest& request);
Result<contract::SessionRequest> from_proto(const v1::OpenSessionRequest& request);
Result<contract::LeaseRequest> from_proto(const v1::AcquireLeaseRequest& request);
Result<contract::CommitOrder> from_proto(const v1::CommitRequest& request);
Result<contract::LeaseGrant> lease_of(const std::string& lease, std::uint64_t token);
Result<std::vector<format::ObjectKey>> keys_of(
    const google::protobuf::RepeatedPtrField<v1::ObjectKey>& keys, std::size_t max);

}  // namespace dims::services
