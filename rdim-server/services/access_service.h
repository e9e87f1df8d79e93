// AccessService: the wire contract (proto/dims/v1/access.proto) over access/. Translates; who may
// call what is the gate's.
//
// Threads: gRPC calls it from its threads; the work is done on the executors. Ownership: the
// context outlives it. Errors: an ErrorDetail in the status of every failed call.
#pragma once

#include "rdim-server/services/gated_call.h"

#include "dims/v1/access.grpc.pb.h"

namespace dims::services {

class AccessService : public v1::Access::CallbackService {
 public:
  explicit AccessService(ServiceContext& context) : context_(context) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;

  // login_calls.cc
  Unary* Challenge(Context* context, const v1::ChallengeRequest* request,
                   v1::ChallengeReply* reply) override;
  Unary* GetLoginRecord(Context* context, const v1::GetLoginRecordRequest* request,
                        v1::LoginRecord* reply) override;
  Unary* GetRecoveryRecord(Context* context, const v1::GetRecoveryRecordRequest* request,
                           v1::RecoveryRecord* reply) override;
  Unary* LoginUser(Context* context, const v1::LoginUserRequest* request,
                   v1::LoginReply* reply) override;
  Unary* LoginMachine(Context* context, const v1::LoginMachineRequest* request,
                      v1::LoginReply* reply) override;
  Unary* LoginJoin(Context* context, const v1::LoginJoinRequest* request,
                   v1::LoginReply* reply) override;
  Unary* Logout(Context* context, const v1::LogoutRequest* request,
                v1::LogoutReply* reply) override;
  // log_calls.cc
  Unary* InitOrg(Context* context, const v1::InitOrgRequest* request,
                 v1::InitOrgReply* reply) override;
  Unary* Enroll(Context* context, const v1::EnrollRequest* request,
                v1::AppendLogReply* reply) override;
  grpc::ServerWriteReactor<v1::GetLogReply>* GetLog(Context* context,
                                                    const v1::GetLogRequest* request) override;
  Unary* AppendLog(Context* context, const v1::AppendLogRequest* request,
                   v1::AppendLogReply* reply) override;
  Unary* GetUserRecord(Context* context, const v1::GetUserRecordRequest* request,
                       v1::UserRecordReply* reply) override;
  Unary* PutUserRecord(Context* context, const v1::PutUserRecordRequest* request,
                       v1::PutUserRecordReply* reply) override;
  // people_calls.cc
  Unary* PutGrants(Context* context, const v1::PutGrantsRequest* request,
                   v1::PutGrantsReply* reply) override;
  Unary* GetGrants(Context* context, const v1::GetGrantsRequest* request,
                   v1::GetGrantsReply* reply) override;
  Unary* PutSession(Context* context, const v1::PutSessionRequest* request,
                    v1::PutSessionReply* reply) override;
  Unary* GetSessions(Context* context, const v1::GetSessionsRequest* request,
                     v1::GetSessionsReply* reply) override;
  Unary* ListUsers(Context* context, const v1::ListUsersRequest* request,
                   v1::ListUsersReply* reply) override;
  Unary* ListMachines(Context* context, const v1::ListMachinesRequest* request,
                      v1::ListMachinesReply* reply) override;
  Unary* ReportWipe(Context* context, const v1::ReportWipeRequest* request,
                    v1::ReportWipeReply* reply) override;
  grpc::ServerWriteReactor<v1::AuditReply>* Audit(Context* context,
                                                  const v1::AuditRequest* request) override;
  Unary* Quota(Context* context, const v1::QuotaRequest* request, v1::QuotaReply* reply) override;

 private:
  template <typename Body>
  Unary* run(Rpc rpc, Context* context, Body body, Gate::ImageOf image_of = {}) {
    return gated_call(context_, context_.calls, context, rpc, std::move(image_of), std::move(body));
  }
  access::AccessControl& control() { return context_.gate.control(); }
  Result<v1::LoginReply> logged_in(const Result<access::LoginDesk::Done>& done);
  // Bytes in the user's private domain.
  Result<std::uint64_t> stored_for(const trust::UserId& user);
  // New keys of an image must name its head: what came after it would be nobody's.
  Status check_epochs(const std::vector<trust::LogRecord>& records);
  void audit_records(const access::Caller& caller, const std::vector<trust::LogRecord>& records);
  Result<trust::Position> append_log(const access::Caller& caller, const trust::Position& expected,
                                     const std::vector<Bytes>& records,
                                     const access::OrgBook::Also& also);

  ServiceContext& context_;
};

inline std::vector<Bytes> bytes_of(const google::protobuf::RepeatedPtrField<std::string>& fields) {
  std::vector<Bytes> out;
  for (const std::string& field : fields) out.emplace_back(field.begin(), field.end());
  return out;
}
// Unlike take_id(): the field must be there.
template <typename IdType>
Status need_id(const std::string& field, std::string_view what, IdType& out) {
  const auto id = IdType::from_view(as_bytes(field));
  if (!id) return bad_length(what, field.size());
  out = *id;
  return ok_status();
}
void to_proto(const trust::Position& position, v1::LogPosition* out);
Result<trust::Position> from_proto(const v1::LogPosition& position);

}  // namespace dims::services
