// Who is there: challenge, login, logout.
#include "rdim-server/services/access_service.h"

namespace dims::services {

using access::Caller;

Result<v1::LoginReply> AccessService::logged_in(const Result<access::LoginDesk::Done>& done) {
  if (!done.ok()) return done.error();
  v1::LoginReply reply;
  reply.set_token(std::string(as_text(done->token.token.view())));
  reply.set_expires_in_s(static_cast<std::uint64_t>(done->token.expires_in.count()));
  reply.set_user(to_field(done->caller.user));
  to_proto(control().book().position(), reply.mutable_position());
  return reply;
}

AccessService::Unary* AccessService::Challenge(Context* context,
                                               const v1::ChallengeRequest* /*request*/,
                                               v1::ChallengeReply* reply) {
  return run(Rpc::kChallenge, context, [this, reply](const Caller&, const Ticket&) -> Status {
    reply->set_nonce(std::string(as_text(control().desk().challenge().view())));
    reply->set_org(to_field(control().book().org()));
    return ok_status();
  });
}

AccessService::Unary* AccessService::GetLoginRecord(Context* context,
                                                    const v1::GetLoginRecordRequest* request,
                                                    v1::LoginRecord* reply) {
  return run(Rpc::kGetLoginRecord, context,
             [this, request, reply](const Caller&, const Ticket&) -> Status {
               const trust::LoginRecord record = control().desk().login_record(request->name());
               reply->set_salt(std::string(as_text(record.salt.view())));
               reply->set_memory_kib(record.parameters.memory_kib);
               reply->set_passes(record.parameters.passes);
               return ok_status();
             });
}

AccessService::Unary* AccessService::GetRecoveryRecord(Context* context,
                                                       const v1::GetRecoveryRecordRequest* request,
                                                       v1::RecoveryRecord* reply) {
  return run(Rpc::kGetRecoveryRecord, context,
             [this, request, reply](const Caller&, const Ticket& ticket) -> Status {
               DIMS_ASSIGN(const trust::RecoveryRecord record,
                           control().desk().recovery_record(request->name(), ticket.peer));
               reply->set_user(std::string(as_text(record.user.view())));
               reply->set_recovery_key(record.recovery_key.data(), record.recovery_key.size());
               reply->set_secrets(record.secrets.data(), record.secrets.size());
               return ok_status();
             });
}

AccessService::Unary* AccessService::LoginUser(Context* context,
                                               const v1::LoginUserRequest* request,
                                               v1::LoginReply* reply) {
  return run(Rpc::kLoginUser, context,
             [this, request, reply](const Caller&, const Ticket& ticket) -> Status {
               access::LoginDesk::UserLogin login;
               login.name = request->name();
               DIMS_TRY(need_id(request->nonce(), "nonce", login.nonce));
               DIMS_TRY(take_id(request->machine(), "machine id", login.machine));
               DIMS_TRY(need_id(request->signature(), "signature", login.signature));
               DIMS_TRY(take_id(request->machine_signature(), "machine's signature",
                                login.machine_signature));
               DIMS_ASSIGN(*reply, logged_in(control().desk().login_user(login, ticket.peer)));
               return ok_status();
             });
}

AccessService::Unary* AccessService::LoginMachine(Context* context,
                                                  const v1::LoginMachineRequest* request,
                                                  v1::LoginReply* reply) {
  return run(Rpc::kLoginMachine, context,
             [this, request, reply](const Caller&, const Ticket& ticket) -> Status {
               trust::LoginNonce nonce;
               MachineId machine;
               crypto::Signature signature;
               DIMS_TRY(need_id(request->nonce(), "nonce", nonce));
               DIMS_TRY(need_id(request->machine(), "machine id", machine));
               DIMS_TRY(need_id(request->signature(), "signature", signature));
               DIMS_ASSIGN(*reply, logged_in(control().desk().login_machine(
                                       nonce, machine, signature, as_bytes(request->session()),
                                       ticket.peer)));
               return ok_status();
             });
}

AccessService::Unary* AccessService::LoginJoin(Context* context,
                                               const v1::LoginJoinRequest* request,
                                               v1::LoginReply* reply) {
  return run(Rpc::kLoginJoin, context,
             [this, request, reply](const Caller&, const Ticket& ticket) -> Status {
               trust::LoginNonce nonce;
               crypto::PublicKey key;
               crypto::Signature signature;
               DIMS_TRY(need_id(request->nonce(), "nonce", nonce));
               DIMS_TRY(need_id(request->join_key(), "join key", key));
               DIMS_TRY(need_id(request->signature(), "signature", signature));
               DIMS_ASSIGN(*reply, logged_in(control().desk().login_join(nonce, key, signature,
                                                                         ticket.peer)));
               return ok_status();
             });
}

AccessService::Unary* AccessService::Logout(Context* context, const v1::LogoutRequest* /*request*/,
                                            v1::LogoutReply* /*reply*/) {
  return run(Rpc::kLogout, context, [this](const Caller&, const Ticket& ticket) -> Status {
    if (ticket.token) control().tokens().end(*ticket.token);
    return ok_status();
  });
}

}  // namespace dims::services
