// Gate: before every call. What each call needs is one table (gate.cc); a call that is not in it is
// refused, and a test fails.
//
// Threads: thread-safe. Ownership: the access control outlives it. Errors: those of
// AccessControl::check().
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <optional>
#include <span>

#include "rdim-server/access/access_control.h"

namespace dims::services {

enum class Rpc : std::uint8_t {
  // Dims
  kHello,
  kCreateImage,
  kGetImage,
  kListImages,
  kRemoveImage,
  kGetVersion,
  kListVersions,
  kOpenSession,
  kCloseSession,
  kAcquireLease,
  kRenewLease,
  kReleaseLease,
  kCommit,
  kHas,
  kGet,
  kPut,
  kDiff,
  kWatch,
  kStoreInfo,
  kStartCollection,
  kCollectionStatus,
  kCheck,
  kLastChecks,
  kRetention,
  kSetRetention,
  kForgetUnsent,
  // Access
  kChallenge,
  kGetLoginRecord,
  kGetRecoveryRecord,
  kLoginUser,
  kLoginMachine,
  kLoginJoin,
  kLogout,
  kInitOrg,
  kEnroll,
  kGetLog,
  kAppendLog,
  kGetUserRecord,
  kPutUserRecord,
  kPutGrants,
  kGetGrants,
  kPutSession,
  kGetSessions,
  kListUsers,
  kListMachines,
  kReportWipe,
  kAudit,
  kQuota,
};

struct RpcRule {
  Rpc rpc;
  std::string_view method;  // as reflection names it: "dims.v1.Dims.Hello"
  access::Right right;
};
std::span<const RpcRule> rpc_rules();

// Who calls, as the call's metadata says; looked up at every check, for rights may end in between.
struct Ticket {
  std::optional<trust::SessionToken> token;
  access::Peer peer;
};

class Gate {
 public:
  Gate(access::AccessControl& control, const Digest& certificate)
      : control_(control), certificate_(certificate) {}

  Ticket ticket(const grpc::ServerContextBase& context) const;
  access::Caller caller(const Ticket& ticket) {
    return control_.caller_of(ticket.token, ticket.peer.address);
  }
  // Whether there is nobody behind the ticket where somebody must be: his token is over, or this
  // server, started anew, never knew it.
  bool needs_login(const Ticket& ticket) {
    return control_.mode() == access::Mode::kOrganisation &&
           caller(ticket).kind == access::Caller::Kind::kNobody;
  }
  // Says which image the call is about; asked after it is known that somebody is logged in.
  using ImageOf = std::function<Result<ImageId>()>;
  Result<access::Caller> admit(Rpc rpc, const Ticket& ticket, const ImageOf& image_of = {});
  Result<access::Caller> admit(Rpc rpc, const Ticket& ticket, const ImageId& image);
  // For a later part of an answer: rights may have ended, but it is the same request.
  Result<access::Caller> admit_again(Rpc rpc, const Ticket& ticket, const ImageId& image);

  access::AccessControl& control() { return control_; }
  bool open_to_all() const { return control_.mode() == access::Mode::kOnePerson; }

 private:
  Result<access::Caller> admit(Rpc rpc, const Ticket& ticket, const ImageOf& image_of,
                               access::Metering metering);

  access::AccessControl& control_;
  const Digest certificate_;
};

}  // namespace dims::services
