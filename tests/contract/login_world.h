// A server in this process and an organisation that its first administrator makes over the wire, as
// the tests of logging in need it. Threads: one owner.
#pragma once

#include "tests/contract/access_world.h"

namespace dims::test {

using namespace dims::trust;  // NOLINT: what these tests speak of

inline constexpr const char* kSecret = "the one-time secret";

// An organisation that its first administrator makes over the wire.
struct LoginWorld {
  AccessWorld world{{}, kSecret};
  SeededRandom random{seed() + 1};
  crypto::SecretSigner root = crypto::SecretSigner::from_seed(crypto::SecretKey::random(random));
  OrgId org = org_of(root.public_key);
  NewUser ann = user("ann", "correct horse");
  std::vector<Bytes> records;
  std::optional<OrgLog> log;

  NewUser user(const std::string& name, const std::string& passphrase) {
    auto made = make_user(org, random.id<UserId>(), name, as_bytes(passphrase), {}, random);
    REQUIRE(made.ok());
    return std::move(*made);
  }
  LoginWorld() {
    const auto first = make_record(org, nullptr, now_s(),
                                   OrgInit{root.public_key, random.id<DomainId>(), "org"}, root);
    auto opened = OrgLog::open(org, {first.bytes});
    REQUIRE(opened.ok());
    log = std::move(*opened);
    records.push_back(first.bytes);
    say(certificate_of(ann.secrets, "ann", Role::kAdministrator), root);
  }
  std::uint64_t now_s() {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::seconds>(world.clock.wall()).count());
  }
  Bytes say(const Body& body, const crypto::SecretSigner& signer) {
    const Position at = log->position();
    const Bytes bytes = make_record(org, &at, now_s(), body, signer).bytes;
    REQUIRE(log->append(bytes, at).ok());
    records.push_back(bytes);
    return bytes;
  }
  grpc::Status init(const std::string& secret) {
    v1::InitOrgRequest request;
    request.set_bootstrap_secret(secret);
    for (const Bytes& record : records) request.add_records(field(record));
    request.set_user_record(field(encode_user_record(ann.record)));
    grpc::ClientContext context;
    v1::InitOrgReply reply;
    return world.people->InitOrg(&context, request, &reply);
  }
  // Tells the server what the log says, as the administrator.
  void tell(const Body& body) {
    v1::AppendLogRequest request;
    const Position at = log->position();
    request.mutable_expected()->set_seq(at.seq);
    request.mutable_expected()->set_hash(field(at.hash.view()));
    request.add_records(field(say(body, ann.secrets.sign)));
    access::Caller caller;
    caller.kind = access::Caller::Kind::kUser;
    caller.user = ann.secrets.user;
    grpc::ClientContext context;
    world.say(context, world.token_of(caller));
    v1::AppendLogReply reply;
    const grpc::Status status = world.people->AppendLog(&context, request, &reply);
    INFO(status.error_message());
    REQUIRE(status.ok());
    REQUIRE(reply.position().seq() == log->position().seq);
  }

  v1::LoginRecord login_record(const std::string& name) {
    v1::GetLoginRecordRequest request;
    request.set_name(name);
    grpc::ClientContext context;
    v1::LoginRecord reply;
    REQUIRE(world.people->GetLoginRecord(&context, request, &reply).ok());
    return reply;
  }
  LoginNonce challenge() {
    grpc::ClientContext context;
    v1::ChallengeReply reply;
    REQUIRE(world.people->Challenge(&context, {}, &reply).ok());
    REQUIRE(reply.org() == field(org.view()));
    return *LoginNonce::from_view(as_bytes(reply.nonce()));
  }
  crypto::SecretSigner login_key(const std::string& name, const std::string& passphrase) {
    const v1::LoginRecord record = login_record(name);
    auto keys =
        passphrase_keys(as_bytes(passphrase), *crypto::Salt::from_view(as_bytes(record.salt())),
                        {record.memory_kib(), record.passes()});
    REQUIRE(keys.ok());
    return std::move(keys->login);
  }
  v1::LoginUserRequest request(const std::string& name, const crypto::SecretSigner& key,
                               const LoginContext& context) {
    v1::LoginUserRequest out;
    out.set_name(name);
    out.set_nonce(field(context.nonce.view()));
    out.set_signature(field(sign_user_login(context, name, key).view()));
    return out;
  }
  LoginContext here() { return {org, challenge(), Digest{}, MachineId{}}; }
  grpc::Status send(const v1::LoginUserRequest& request, v1::LoginReply* reply = nullptr) {
    v1::LoginReply ignored;
    grpc::ClientContext context;
    return world.people->LoginUser(&context, request, reply != nullptr ? reply : &ignored);
  }
  grpc::Status hello(const std::string& token) {
    grpc::ClientContext context;
    world.say(context, token);
    v1::HelloRequest request;
    request.set_protocol(1);
    v1::HelloReply reply;
    return world.dims->Hello(&context, request, &reply);
  }
};

}  // namespace dims::test
