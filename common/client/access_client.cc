#include "common/client/access_client.h"

#include <algorithm>

#include "common/client/calls.h"
#include "common/client/channel.h"
#include "common/client/convert.h"
#include "common/client/grpc_status.h"
#include "common/client/token_carrier.h"

#include "dims/v1/access.grpc.pb.h"

namespace dims::client {
namespace {

using AccessStub = v1::Access::Stub;

std::string text(ByteView bytes) { return std::string(as_text(bytes)); }
Bytes bytes(const std::string& text) {
  const ByteView view = as_bytes(text);
  return {view.begin(), view.end()};
}
template <typename Field>
std::vector<Bytes> list(const Field& field) {
  std::vector<Bytes> out;
  for (const std::string& one : field) out.push_back(bytes(one));
  return out;
}
template <typename Field>
void put_all(const std::vector<Bytes>& list, Field* field) {
  for (const Bytes& one : list) field->Add(text(one));
}

template <typename Reply>
Status done(const Result<Reply>& reply) {
  return reply.ok() ? ok_status() : Status(reply.error());
}

v1::LogPosition to_proto(const trust::Position& position) {
  v1::LogPosition out;
  out.set_seq(position.seq);
  out.set_hash(text(position.hash.view()));
  return out;
}
Result<trust::Position> from_proto(const v1::LogPosition& position) {
  trust::Position out;
  out.seq = position.seq();
  DIMS_TRY(take_id(position.hash(), "log hash", out.hash));
  return out;
}
Result<LoginAnswer> from_proto(const v1::LoginReply& reply) {
  LoginAnswer out;
  DIMS_TRY(take_id(reply.token(), "token", out.token.token));
  // Bounded, so that adding it to a clock cannot overflow.
  constexpr std::uint64_t kLongestS = 7 * 24 * 3600;
  out.token.lasts = std::chrono::seconds(
      static_cast<std::int64_t>(std::min<std::uint64_t>(reply.expires_in_s(), kLongestS)));
  DIMS_TRY(take_id(reply.user(), "user", out.user));
  DIMS_ASSIGN(out.position, from_proto(reply.position()));
  return out;
}

class GrpcAccess final : public AccessClient {
 public:
  explicit GrpcAccess(const Endpoint& endpoint)
      : address_(endpoint.address),
        pin_(endpoint.pin),
        token_(endpoint.token),
        stub_(v1::Access::NewStub(make_channel(endpoint))) {}

  Result<trust::LoginContext> challenge() override {
    DIMS_ASSIGN(const v1::ChallengeReply reply,
                call(&AccessStub::Challenge, v1::ChallengeRequest()));
    trust::LoginContext out;
    DIMS_TRY(take_id(reply.nonce(), "nonce", out.nonce));
    DIMS_TRY(take_id(reply.org(), "organisation", out.org));
    if (pin_) {
      const auto server = pin_->accepted();
      if (!server) return make_error(ErrorCode::kInternal, "no certificate was looked at");
      out.server = *server;
    }
    return out;
  }

  Result<trust::LoginRecord> login_record(const std::string& name) override {
    v1::GetLoginRecordRequest request;
    request.set_name(name);
    DIMS_ASSIGN(const v1::LoginRecord reply, call(&AccessStub::GetLoginRecord, request));
    trust::LoginRecord out;
    DIMS_TRY(take_id(reply.salt(), "salt", out.salt));
    out.parameters = {reply.memory_kib(), reply.passes()};
    return out;
  }

  Result<trust::RecoveryRecord> recovery_record(const OrgId& org,
                                                const std::string& name) override {
    v1::GetRecoveryRecordRequest request;
    request.set_name(name);
    DIMS_ASSIGN(const v1::RecoveryRecord reply, call(&AccessStub::GetRecoveryRecord, request));
    trust::RecoveryRecord out;
    out.org = org;
    DIMS_TRY(take_id(reply.user(), "user", out.user));
    const auto take = [](const std::string& field, auto& into) {
      if (field.size() != into.size()) return false;
      std::copy(field.begin(), field.end(), into.begin());
      return true;
    };
    if (!take(reply.recovery_key(), out.recovery_key) || !take(reply.secrets(), out.secrets))
      return make_error(ErrorCode::kCorrupt, "the server's recovery record has a wrong length");
    return out;
  }

  Result<LoginAnswer> login_user(const trust::LoginContext& context, const std::string& name,
                                 const trust::Signature& signature,
                                 const trust::Signature& machine_signature) override {
    v1::LoginUserRequest request;
    request.set_name(name);
    request.set_nonce(text(context.nonce.view()));
    request.set_machine(text(context.machine.view()));
    request.set_signature(text(signature.view()));
    if (!context.machine.is_zero()) request.set_machine_signature(text(machine_signature.view()));
    DIMS_ASSIGN(const v1::LoginReply reply, call(&AccessStub::LoginUser, request));
    return from_proto(reply);
  }

  Result<LoginAnswer> login_machine(const trust::LoginContext& context,
                                    const trust::Signature& signature,
                                    ByteView certificate) override {
    v1::LoginMachineRequest request;
    request.set_nonce(text(context.nonce.view()));
    request.set_machine(text(context.machine.view()));
    request.set_signature(text(signature.view()));
    request.set_session(text(certificate));
    DIMS_ASSIGN(const v1::LoginReply reply, call(&AccessStub::LoginMachine, request));
    return from_proto(reply);
  }

  Result<LoginAnswer> login_join(const trust::LoginContext& context, const trust::PublicKey& key,
                                 const trust::Signature& signature) override {
    v1::LoginJoinRequest request;
    request.set_nonce(text(context.nonce.view()));
    request.set_join_key(text(key.view()));
    request.set_signature(text(signature.view()));
    DIMS_ASSIGN(const v1::LoginReply reply, call(&AccessStub::LoginJoin, request));
    return from_proto(reply);
  }

  Status logout() override { return done(call(&AccessStub::Logout, v1::LogoutRequest())); }

  Result<trust::Position> init_org(ByteView bootstrap_secret, const std::vector<Bytes>& records,
                                   ByteView user_record,
                                   const std::vector<Bytes>& grants) override {
    v1::InitOrgRequest request;
    request.set_bootstrap_secret(text(bootstrap_secret));
    put_all(records, request.mutable_records());
    request.set_user_record(text(user_record));
    put_all(grants, request.mutable_grants());
    DIMS_ASSIGN(const v1::InitOrgReply reply, call(&AccessStub::InitOrg, request));
    return from_proto(reply.position());
  }

  Result<trust::Position> enroll(const trust::Position& expected, ByteView record,
                                 ByteView user_record) override {
    v1::EnrollRequest request;
    *request.mutable_expected() = to_proto(expected);
    request.set_record(text(record));
    request.set_user_record(text(user_record));
    DIMS_ASSIGN(const v1::AppendLogReply reply, call(&AccessStub::Enroll, request));
    return from_proto(reply.position());
  }

  Result<LogPage> get_log(std::uint64_t from_seq) override {
    v1::GetLogRequest request;
    request.set_from_seq(from_seq);
    LogPage out;
    Status bad = ok_status();
    DIMS_TRY(
        (stream<v1::GetLogReply>(&AccessStub::GetLog, request, [&](const v1::GetLogReply& part) {
          for (Bytes& one : list(part.records())) out.records.push_back(std::move(one));
          const auto end = from_proto(part.end());
          if (end.ok())
            out.end = *end;
          else
            bad = end.error();
        })));
    DIMS_TRY(bad);
    return out;
  }

  Status follow_log(std::uint64_t from_seq, const LogSink& sink) override {
    v1::GetLogRequest request;
    request.set_from_seq(from_seq);
    request.set_follow(true);
    grpc::ClientContext context;
    const CallRegistry::Scope scope(calls_, context);
    const auto reader = stub_->GetLog(&context, request);
    v1::GetLogReply part;
    bool wanted = true;
    while (wanted && reader->Read(&part)) {
      LogPage page{list(part.records()), {}};
      const auto end = from_proto(part.end());
      if (end.ok()) page.end = *end;
      wanted = end.ok() && sink(page);
      if (!wanted) context.TryCancel();
    }
    const grpc::Status status = reader->Finish();
    if (!wanted || status.ok()) return ok_status();
    return failed(status);
  }

  Result<trust::Position> append_log(const trust::Position& expected,
                                     const std::vector<Bytes>& records) override {
    v1::AppendLogRequest request;
    *request.mutable_expected() = to_proto(expected);
    put_all(records, request.mutable_records());
    DIMS_ASSIGN(const v1::AppendLogReply reply, call(&AccessStub::AppendLog, request));
    return from_proto(reply.position());
  }

  Result<Bytes> user_record(const trust::UserId& user) override {
    v1::GetUserRecordRequest request;
    put_id(user, request.mutable_user());
    DIMS_ASSIGN(const v1::UserRecordReply reply, call(&AccessStub::GetUserRecord, request));
    return bytes(reply.record());
  }

  Status put_user_record(ByteView record, const trust::Position& expected,
                         const std::vector<Bytes>& log_records,
                         const std::vector<Bytes>& grants) override {
    v1::PutUserRecordRequest request;
    request.set_record(text(record));
    if (!log_records.empty()) *request.mutable_expected() = to_proto(expected);
    put_all(log_records, request.mutable_log_records());
    put_all(grants, request.mutable_grants());
    return done(call(&AccessStub::PutUserRecord, request));
  }

  Status put_grants(const std::vector<Bytes>& grants) override {
    v1::PutGrantsRequest request;
    put_all(grants, request.mutable_grants());
    return done(call(&AccessStub::PutGrants, request));
  }

  Result<std::vector<Bytes>> grants(trust::KeyScope scope, ByteView id,
                                    const trust::UserId& recipient) override {
    v1::GetGrantsRequest request;
    request.set_scope(static_cast<std::uint32_t>(scope));
    request.set_id(text(id));
    put_id(recipient, request.mutable_recipient());
    DIMS_ASSIGN(const v1::GetGrantsReply reply, call(&AccessStub::GetGrants, request));
    return list(reply.grants());
  }

  Status put_session(ByteView certificate) override {
    v1::PutSessionRequest request;
    request.set_certificate(text(certificate));
    return done(call(&AccessStub::PutSession, request));
  }

  Result<std::vector<Bytes>> sessions(const ImageId& image,
                                      const std::vector<trust::PublicKey>& keys) override {
    v1::GetSessionsRequest request;
    put_id(image, request.mutable_image());
    for (const trust::PublicKey& key : keys) request.add_session_keys(text(key.view()));
    DIMS_ASSIGN(const v1::GetSessionsReply reply, call(&AccessStub::GetSessions, request));
    std::vector<Bytes> out = list(reply.certificates());
    out.resize(keys.size());
    return out;
  }

  Result<std::vector<SeenUser>> list_users() override {
    DIMS_ASSIGN(const v1::ListUsersReply reply,
                call(&AccessStub::ListUsers, v1::ListUsersRequest()));
    std::vector<SeenUser> out;
    for (const auto& one : reply.users()) {
      SeenUser& user = out.emplace_back();
      DIMS_TRY(take_id(one.user(), "user", user.user));
      DIMS_TRY(take_id(one.last_machine(), "machine", user.last_machine));
      user.last_login_unix_s = one.last_login_unix_s();
      user.used_bytes = one.used_bytes();
      user.images = one.images();
    }
    return out;
  }

  Result<std::vector<SeenMachine>> list_machines() override {
    DIMS_ASSIGN(const v1::ListMachinesReply reply,
                call(&AccessStub::ListMachines, v1::ListMachinesRequest()));
    std::vector<SeenMachine> out;
    for (const auto& one : reply.machines()) {
      SeenMachine& machine = out.emplace_back();
      DIMS_TRY(take_id(one.machine(), "machine", machine.machine));
      machine.last_seen_unix_s = one.last_seen_unix_s();
      machine.last_address = one.last_address();
      machine.wiped_seq = one.wiped_seq();
    }
    return out;
  }

  Status report_wipe(std::uint64_t seq) override {
    v1::ReportWipeRequest request;
    request.set_wiped_seq(seq);
    return done(call(&AccessStub::ReportWipe, request));
  }

  Result<std::vector<AuditLine>> audit(std::uint64_t since_unix_s, std::uint32_t limit,
                                       const trust::UserId& user) override {
    v1::AuditRequest request;
    request.set_since_unix_s(since_unix_s);
    request.set_limit(limit);
    put_id(user, request.mutable_user());
    std::vector<AuditLine> out;
    Status bad = ok_status();
    DIMS_TRY((stream<v1::AuditReply>(&AccessStub::Audit, request, [&](const v1::AuditReply& part) {
      for (const auto& one : part.entries()) {
        AuditLine& line = out.emplace_back();
        line.number = one.number();
        line.time_unix_s = one.time_unix_s();
        line.what = one.what();
        line.detail = one.detail();
        line.address = one.address();
        for (const Status& taken : {take_id(one.user(), "user", line.user),
                                    take_id(one.machine(), "machine", line.machine),
                                    take_id(one.image(), "image", line.image)})
          if (!taken.ok()) bad = taken;
      }
    })));
    DIMS_TRY(bad);
    return out;
  }

  Result<QuotaUse> quota(const trust::UserId& user) override {
    v1::QuotaRequest request;
    put_id(user, request.mutable_user());
    DIMS_ASSIGN(const v1::QuotaReply reply, call(&AccessStub::Quota, request));
    return QuotaUse{reply.used_bytes(), reply.limit_bytes(), reply.images(), reply.limit_images()};
  }

  void shutdown() override { calls_.cancel_all(); }

 private:
  Error failed(const grpc::Status& status) {
    if (calls_.down()) return make_error(ErrorCode::kCancelled, "the connection was shut down");
    return from_grpc(status, address_);
  }

  template <typename Request, typename Reply>
  Result<Reply> call(grpc::Status (AccessStub::*method)(grpc::ClientContext*, const Request&,
                                                        Reply*),
                     const Request& request) {
    for (int attempt = 1;; ++attempt) {
      grpc::ClientContext context;
      const CallRegistry::Scope scope(calls_, context);
      Reply reply;
      const grpc::Status status = ((*stub_).*method)(&context, request, &reply);
      if (status.ok()) return reply;
      // The server has forgotten the login (it was restarted, say): once more with another.
      if (!status.error_message().starts_with(kLoginEnded) || attempt == 2) return failed(status);
    }
  }

  template <typename Reply, typename Request, typename Sink>
  Status stream(std::unique_ptr<grpc::ClientReader<Reply>> (AccessStub::*method)(
                    grpc::ClientContext*, const Request&),
                const Request& request, const Sink& sink) {
    for (int attempt = 1;; ++attempt) {
      grpc::ClientContext context;
      const CallRegistry::Scope scope(calls_, context);
      const auto reader = ((*stub_).*method)(&context, request);
      Reply reply;
      std::size_t bytes = 0;
      while (bytes <= kListBytesMax && reader->Read(&reply)) {
        sink(reply);
        bytes += reply.ByteSizeLong();
      }
      if (bytes > kListBytesMax) context.TryCancel();
      const grpc::Status status = reader->Finish();
      if (bytes > kListBytesMax) return endless_list("records", address_);
      if (status.ok()) return ok_status();
      // Refused before anything was sent.
      if (!status.error_message().starts_with(kLoginEnded) || attempt == 2) return failed(status);
    }
  }

  const std::string address_;
  const std::shared_ptr<ServerPin> pin_;
  const std::shared_ptr<LoginToken> token_;
  CallRegistry calls_;
  std::unique_ptr<AccessStub> stub_;
};

}  // namespace

Result<std::unique_ptr<AccessClient>> AccessClient::connect(const std::string& address,
                                                            const KnownServers& known,
                                                            std::shared_ptr<LoginToken> token) {
  DIMS_ASSIGN(Endpoint endpoint, parse_endpoint(address, known));
  endpoint.token = std::move(token);
  return std::unique_ptr<AccessClient>(std::make_unique<GrpcAccess>(endpoint));
}

}  // namespace dims::client
