// Wire messages <-> values. Ids are raw bytes; a zero id is an empty field. Threads: free
// functions. Errors: kInternal for an id of a wrong length or a record that does not fit the answer
// it came in.
#pragma once

#include "common/contract/remote.h"

#include "dims/v1/dims.pb.h"

namespace dims::client {

template <typename IdType>
void put_id(const IdType& id, std::string* out) {
  if (id.is_zero()) {
    out->clear();
  } else {
    out->assign(as_text(id.view()));
  }
}

Error bad_id(std::string_view what, std::size_t bytes);

// Empty is zero.
template <typename IdType>
Status take_id(const std::string& bytes, std::string_view what, IdType& out) {
  out = {};
  if (bytes.empty()) return ok_status();
  const auto id = IdType::from_view(as_bytes(bytes));
  if (!id) return bad_id(what, bytes.size());
  out = *id;
  return ok_status();
}

// Domain and id in full, also when zero.
v1::ObjectKey to_proto(const format::ObjectKey& key);
v1::Priority to_proto(contract::Priority priority);
v1::CreateImageRequest to_proto(const contract::ImageInfo& image);

Result<format::ObjectKey> from_proto(const v1::ObjectKey& key);
Result<contract::HolderInfo> from_proto(const v1::LeaseHolder& holder);
Result<contract::ImageInfo> from_proto(const v1::Image& image);
// Decodes the record and checks its structure, its signature and its id. It may be of another
// image: a branch shows the versions of its origin.
Result<contract::VersionInfo> from_proto(const v1::Version& version);
Result<contract::LeaseGrant> from_proto(const v1::Lease& lease);
Result<contract::SessionAnswer> from_proto(const v1::OpenSessionReply& reply);
Result<contract::CommitAnswer> from_proto(const v1::CommitReply& reply);
Result<contract::DiffPart> from_proto(const v1::DiffReply& reply);
Result<contract::ServerEvent> from_proto(const v1::Event& event);
Result<contract::RemoteStoreInfo> from_proto(const v1::StoreInfoReply& reply);

}  // namespace dims::client
