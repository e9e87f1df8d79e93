#include "rdim-server/services/gate.h"

#include <algorithm>
#include <iterator>

namespace dims::services {
namespace {

using access::Right;

// What each call needs, and nothing else says it. Calls that can be about several images name them
// one by one (Watch, the streams); what they need is needed for each.
constexpr RpcRule kRules[] = {
    {Rpc::kHello, "dims.v1.Dims.Hello", Right::kMember},
    {Rpc::kCreateImage, "dims.v1.Dims.CreateImage", Right::kUser},  // and new_image.cc
    {Rpc::kGetImage, "dims.v1.Dims.GetImage", Right::kImageSee},
    {Rpc::kListImages, "dims.v1.Dims.ListImages", Right::kMember},  // those that he may see
    {Rpc::kRemoveImage, "dims.v1.Dims.RemoveImage", Right::kImageAdmin},
    {Rpc::kGetVersion, "dims.v1.Dims.GetVersion", Right::kImageSee},
    {Rpc::kListVersions, "dims.v1.Dims.ListVersions", Right::kImageSee},
    {Rpc::kOpenSession, "dims.v1.Dims.OpenSession", Right::kImageRead},
    {Rpc::kCloseSession, "dims.v1.Dims.CloseSession", Right::kImageRead},
    {Rpc::kAcquireLease, "dims.v1.Dims.AcquireLease", Right::kImageWrite},
    {Rpc::kRenewLease, "dims.v1.Dims.RenewLease", Right::kImageWrite},
    {Rpc::kReleaseLease, "dims.v1.Dims.ReleaseLease", Right::kImageWrite},
    {Rpc::kCommit, "dims.v1.Dims.Commit", Right::kImageWrite},
    {Rpc::kHas, "dims.v1.Dims.Has", Right::kImageWrite},
    {Rpc::kGet, "dims.v1.Dims.Get", Right::kImageRead},
    {Rpc::kPut, "dims.v1.Dims.Put", Right::kImageWrite},
    {Rpc::kDiff, "dims.v1.Dims.Diff", Right::kImageRead},
    {Rpc::kWatch, "dims.v1.Dims.Watch", Right::kImageRead},
    {Rpc::kStoreInfo, "dims.v1.Dims.StoreInfo", Right::kOperator},
    {Rpc::kStartCollection, "dims.v1.Dims.StartCollection", Right::kOperator},
    {Rpc::kCollectionStatus, "dims.v1.Dims.CollectionStatus", Right::kOperator},
    {Rpc::kCheck, "dims.v1.Dims.Check", Right::kOperator},
    {Rpc::kLastChecks, "dims.v1.Dims.LastChecks", Right::kOperator},
    {Rpc::kRetention, "dims.v1.Dims.Retention", Right::kImageSee},
    {Rpc::kSetRetention, "dims.v1.Dims.Retention", Right::kImageAdmin},  // with `change`
    {Rpc::kForgetUnsent, "dims.v1.Dims.ForgetUnsent", Right::kImageAdmin},

    {Rpc::kChallenge, "dims.v1.Access.Challenge", Right::kOpen},
    {Rpc::kGetLoginRecord, "dims.v1.Access.GetLoginRecord", Right::kOpen},
    {Rpc::kGetRecoveryRecord, "dims.v1.Access.GetRecoveryRecord", Right::kOpen},
    {Rpc::kLoginUser, "dims.v1.Access.LoginUser", Right::kOpen},
    {Rpc::kLoginMachine, "dims.v1.Access.LoginMachine", Right::kOpen},
    {Rpc::kLoginJoin, "dims.v1.Access.LoginJoin", Right::kOpen},
    {Rpc::kLogout, "dims.v1.Access.Logout", Right::kOpen},  // whoever has the token may end it
    {Rpc::kInitOrg, "dims.v1.Access.InitOrg", Right::kOpen},
    {Rpc::kEnroll, "dims.v1.Access.Enroll", Right::kJoinOnly},
    {Rpc::kGetLog, "dims.v1.Access.GetLog", Right::kJoin},
    {Rpc::kAppendLog, "dims.v1.Access.AppendLog", Right::kUserHimself},
    {Rpc::kGetUserRecord, "dims.v1.Access.GetUserRecord", Right::kUserHimself},
    {Rpc::kPutUserRecord, "dims.v1.Access.PutUserRecord", Right::kUserHimself},
    {Rpc::kPutGrants, "dims.v1.Access.PutGrants", Right::kUserHimself},
    {Rpc::kGetGrants, "dims.v1.Access.GetGrants", Right::kUser},
    {Rpc::kPutSession, "dims.v1.Access.PutSession", Right::kUser},
    {Rpc::kGetSessions, "dims.v1.Access.GetSessions", Right::kImageSee},
    {Rpc::kListUsers, "dims.v1.Access.ListUsers", Right::kOperator},
    {Rpc::kListMachines, "dims.v1.Access.ListMachines", Right::kOperator},
    {Rpc::kReportWipe, "dims.v1.Access.ReportWipe", Right::kMachine},
    {Rpc::kAudit, "dims.v1.Access.Audit", Right::kUser},  // his own; all for administrators
    {Rpc::kQuota, "dims.v1.Access.Quota", Right::kUser},
};

constexpr bool in_order() {
  for (std::size_t i = 0; i < std::size(kRules); ++i) {
    if (static_cast<std::size_t>(kRules[i].rpc) != i) return false;
  }
  return true;
}
static_assert(in_order(), "one line a call, in the order of Rpc");

constexpr const char* kTokenKey = "dims-token-bin";

// gRPC writes an IPv6 address's brackets as a URI does: "ipv6:%5B::1%5D:7400".
std::string readable(std::string peer) {
  for (const auto& [coded, plain] : {std::pair("%5B", "["), std::pair("%5D", "]")}) {
    if (const auto at = peer.find(coded); at != std::string::npos) peer.replace(at, 3, plain);
  }
  return peer;
}

// What Access can do without an organisation.
bool needs_organisation(Rpc rpc) {
  return rpc > Rpc::kChallenge && rpc != Rpc::kInitOrg && rpc != Rpc::kLogout;
}

bool is_about_image(Right right) {
  return right == Right::kImageSee || right == Right::kImageRead || right == Right::kImageWrite ||
         right == Right::kImageAdmin;
}

}  // namespace

std::span<const RpcRule> rpc_rules() { return kRules; }

Ticket Gate::ticket(const grpc::ServerContextBase& context) const {
  Ticket out;
  out.peer.address = readable(context.peer());
  if (!out.peer.address.starts_with("unix:")) out.peer.server = certificate_;
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kTokenKey);
  if (found != metadata.end()) {
    out.token = trust::SessionToken::from_view(
        as_bytes(std::string_view(found->second.data(), found->second.size())));
  }
  return out;
}

Result<access::Caller> Gate::admit(Rpc rpc, const Ticket& ticket, const ImageOf& image_of) {
  return admit(rpc, ticket, image_of, access::Metering::kRequest);
}

Result<access::Caller> Gate::admit_again(Rpc rpc, const Ticket& ticket, const ImageId& image) {
  return admit(
      rpc, ticket, [&image]() -> Result<ImageId> { return image; }, access::Metering::kPart);
}

Result<access::Caller> Gate::admit(Rpc rpc, const Ticket& ticket, const ImageOf& image_of,
                                   access::Metering metering) {
  if (needs_organisation(rpc) && control_.mode() != access::Mode::kOrganisation) {
    return make_error(ErrorCode::kNotFound, "this server has no organisation",
                      "'rdim-server init' and 'rdim init-org' make one");
  }
  const Right right = kRules[static_cast<std::size_t>(rpc)].right;
  access::Caller who = caller(ticket);
  ImageId image;
  if (is_about_image(right) && who.kind != access::Caller::Kind::kNobody) {
    if (!image_of) return access::denied();
    DIMS_ASSIGN(image, image_of());
  }
  DIMS_TRY(control_.check(who, right, image, metering));
  return who;
}

Result<access::Caller> Gate::admit(Rpc rpc, const Ticket& ticket, const ImageId& image) {
  return admit(rpc, ticket, [&image]() -> Result<ImageId> { return image; });
}

}  // namespace dims::services
