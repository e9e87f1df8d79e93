// Logging in: with the right passphrase, once, here; and everything that is not that.
#include "tests/contract/login_world.h"

using namespace dims;
using namespace dims::test;
using namespace dims::trust;

TEST_CASE("an organisation is made once, by who has the secret") {
  LoginWorld w;
  int used = 0;
  w.world.control->on_init([&used] { ++used; });
  CHECK(w.init("another secret").error_code() == grpc::StatusCode::PERMISSION_DENIED);
  CHECK(w.init("").error_code() == grpc::StatusCode::PERMISSION_DENIED);
  CHECK(used == 0);
  // A record that is not its signer's to make, and nothing is kept of the rest.
  auto good = w.records;
  w.records.back()[w.records.back().size() - 1] ^= 1;
  CHECK(!w.init(kSecret).ok());
  CHECK(!w.world.control->book().exists());
  w.records = good;
  w.world.clock.advance(std::chrono::seconds(kRecordSkew_s + 1));
  CHECK(w.init(kSecret).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  w.world.clock.advance(-std::chrono::seconds(kRecordSkew_s + 1));
  const grpc::Status made = w.init(std::string(kSecret) + "\n");
  INFO(made.error_message());
  REQUIRE(made.ok());
  CHECK(used == 1);
  CHECK(w.init(kSecret).error_code() == grpc::StatusCode::PERMISSION_DENIED);
  CHECK(used == 1);
  // Another start of the server: the secret's file may still be there, and is of no use.
  const auto again =
      access::AccessControl::open(w.world.refs, w.world.clock, w.random,
                                  access::bootstrap_digest(as_bytes(std::string(kSecret))));
  REQUIRE(again.ok());
  CHECK((*again)->mode() == access::Mode::kOrganisation);
  CHECK((*again)->book().position() == w.log->position());
  CHECK((*again)->people().login_facts(w.ann.secrets.user).has_value());
}

TEST_CASE("a login is good here, now, once and for its user") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  const auto key = w.login_key("ann", "correct horse");
  const auto context = w.here();
  const auto request = w.request("ann", key, context);
  v1::LoginReply reply;
  REQUIRE(w.send(request, &reply).ok());
  CHECK(reply.user() == field(w.ann.secrets.user.view()));
  CHECK(w.hello(reply.token()).ok());
  CHECK(!w.hello("").ok());
  CHECK(!w.hello(std::string(32, 'x')).ok());

  CHECK(w.send(request).error_code() == grpc::StatusCode::PERMISSION_DENIED);  // again
  auto other = w.here();
  other.server = w.random.id<Digest>();  // meant for another server
  CHECK(!w.send(w.request("ann", key, other)).ok());
  other = w.here();
  other.org = w.random.id<OrgId>();
  CHECK(!w.send(w.request("ann", key, other)).ok());
  other = w.here();
  other.nonce = w.random.id<LoginNonce>();  // nobody asked this
  CHECK(!w.send(w.request("ann", key, other)).ok());
  other = w.here();
  w.world.clock.advance(std::chrono::seconds(61));
  CHECK(!w.send(w.request("ann", key, other)).ok());  // too late
  auto machine = w.request("ann", key, w.here());
  machine.set_machine(std::string(16, 'm'));  // that is not enrolled
  CHECK(!w.send(machine).ok());

  // Out of time; logged out.
  w.world.clock.advance(std::chrono::hours(12));
  CHECK(!w.hello(reply.token()).ok());
  REQUIRE(w.send(w.request("ann", key, w.here()), &reply).ok());
  {
    grpc::ClientContext call;
    w.world.say(call, reply.token());
    v1::LogoutReply out;
    REQUIRE(w.world.people->Logout(&call, {}, &out).ok());
  }
  CHECK(!w.hello(reply.token()).ok());
}

TEST_CASE("an unknown user is like a wrong passphrase") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  const auto wrong_key = w.login_key("ann", "wrong");
  const auto wrong = w.send(w.request("ann", wrong_key, w.here()));
  const v1::LoginRecord known = w.login_record("ann"), nobody = w.login_record("zoe");
  CHECK(nobody.salt().size() == known.salt().size());
  CHECK(nobody.salt() != known.salt());
  CHECK(nobody.memory_kib() == known.memory_kib());
  CHECK(nobody.passes() == known.passes());
  CHECK(w.login_record("zoe").salt() == nobody.salt());
  CHECK(w.login_record("zoe2").salt() != nobody.salt());
  const auto unknown = w.send(w.request("zoe", w.login_key("zoe", "wrong"), w.here()));
  CHECK(wrong.error_code() == grpc::StatusCode::PERMISSION_DENIED);
  CHECK(unknown.error_code() == wrong.error_code());
  CHECK(unknown.error_message() == wrong.error_message());
  CHECK(unknown.error_details() == wrong.error_details());
}

TEST_CASE("ten guesses a minute, whoever is meant, and nobody is told more") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  const auto key = w.login_key("ann", "correct horse");
  const auto guess = crypto::SecretSigner::from_seed(crypto::SecretKey::random(w.random));
  for (const std::string& name : {std::string("ann"), std::string("zoe")}) {
    w.world.clock.advance(std::chrono::minutes(2));
    for (std::size_t i = 0; i < access::kGuessesPerMinute; ++i) {
      CHECK(w.send(w.request(name, guess, w.here())).error_code() ==
            grpc::StatusCode::PERMISSION_DENIED);
    }
    const auto refused = w.send(w.request(name, guess, w.here()));
    CHECK(refused.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    CHECK(refused.error_message() == "too many logins were tried");
    // Not even the right one; and from here nobody else's either.
    CHECK(!w.send(w.request("ann", key, w.here())).ok());
    CHECK(w.send(w.request("another", guess, w.here())).error_code() ==
          grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  w.world.clock.advance(std::chrono::seconds(61));
  CHECK(w.send(w.request("ann", key, w.here())).ok());
}

TEST_CASE("who is disabled or revoked is out at once, and stays out") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  NewUser bob = w.user("bob", "battery staple");
  const auto laptop = make_machine(w.org, "laptop", w.random);
  w.tell(certificate_of(bob.secrets, "bob", Role::kOperator));
  w.tell(laptop.certificate());
  REQUIRE(w.world.control->people().put_user(bob.record).ok());
  const auto key = w.login_key("bob", "battery staple");
  auto context = w.here();
  context.machine = laptop.machine;
  auto request = w.request("bob", key, context);
  request.set_machine(field(laptop.machine.view()));
  CHECK(!w.send(request).ok());  // the machine has not signed
  context.nonce = w.challenge();
  request = w.request("bob", key, context);
  request.set_machine(field(laptop.machine.view()));
  request.set_machine_signature(field(sign_machine_login(context, laptop.sign).view()));
  v1::LoginReply on_laptop, elsewhere, machine;
  REQUIRE(w.send(request, &on_laptop).ok());
  REQUIRE(w.send(w.request("bob", key, w.here()), &elsewhere).ok());
  const auto machine_login = [&](v1::LoginReply* reply) {
    LoginContext mine = w.here();
    mine.machine = laptop.machine;
    v1::LoginMachineRequest out;
    out.set_nonce(field(mine.nonce.view()));
    out.set_machine(field(laptop.machine.view()));
    out.set_signature(field(sign_machine_login(mine, laptop.sign).view()));
    grpc::ClientContext call;
    return w.world.people->LoginMachine(&call, out, reply);
  };
  REQUIRE(machine_login(&machine).ok());
  for (const auto* one : {&on_laptop, &elsewhere, &machine}) CHECK(w.hello(one->token()).ok());
  w.tell(MachineRevoke{laptop.machine});
  CHECK(!w.hello(on_laptop.token()).ok());
  CHECK(!w.hello(machine.token()).ok());
  CHECK(w.hello(elsewhere.token()).ok());
  // The machine alone is let in to learn what became of it, and no more than that.
  v1::LoginReply again;
  REQUIRE(machine_login(&again).ok());
  CHECK(!w.hello(again.token()).ok());
  const auto last_record = [&](const std::string& token) {
    grpc::ClientContext call;
    w.world.say(call, token);
    v1::GetLogRequest from;
    const auto reader = w.world.people->GetLog(&call, from);
    v1::GetLogReply part;
    std::uint64_t records = 0;
    while (reader->Read(&part)) records += static_cast<std::uint64_t>(part.records_size());
    CHECK(reader->Finish().ok());
    CHECK(part.end().seq() == records - 1);
    return records - 1;
  };
  const std::uint64_t revoked_at = last_record(elsewhere.token());
  w.tell(Policy{});  // no business of that machine's
  CHECK(last_record(elsewhere.token()) == revoked_at + 1);
  CHECK(last_record(again.token()) == revoked_at);
  CHECK(last_record(machine.token()) == revoked_at);
  w.tell(MachineWipe{laptop.machine, true});
  CHECK(last_record(again.token()) == revoked_at + 2);
  const auto report = [&](const std::string& token) {
    grpc::ClientContext call;
    w.world.say(call, token);
    v1::ReportWipeRequest done;
    done.set_wiped_seq(revoked_at + 2);
    v1::ReportWipeReply ok;
    return w.world.people->ReportWipe(&call, done, &ok);
  };
  CHECK(report(again.token()).ok());
  CHECK(report(again.token()).ok());  // said twice, noted once
  CHECK(w.world.control->people().seen_machine(laptop.machine).wiped_seq == revoked_at + 2);
  w.tell(UserState{bob.secrets.user, UserStatus::kDisabled, Role::kOperator});
  CHECK(!w.hello(elsewhere.token()).ok());
  CHECK(!w.send(w.request("bob", key, w.here())).ok());

  // All of it can be read.
  const auto entries = w.world.control->audit().read(0, 100);
  REQUIRE(entries.ok());
  std::map<std::string, int> seen;
  for (const auto& entry : *entries) ++seen[entry.what];
  CHECK(seen["init-org"] == 1);
  CHECK(seen["login"] == 2);
  CHECK(seen["login-machine"] == 1);
  CHECK(seen["login-revoked-machine"] == 1);
  CHECK(seen["wiped"] == 1);
  CHECK(seen["login-refused"] == 2);
  CHECK(seen["machine-revoke"] == 1);
  CHECK(seen["user-state"] == 1);
}

TEST_CASE("the root key lets its holder in as a join line does, to make an administrator") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  const auto let_in = [&](const crypto::SecretSigner& key, v1::LoginReply& reply) {
    const LoginContext context = w.here();
    v1::LoginJoinRequest request;
    request.set_nonce(field(context.nonce.view()));
    request.set_join_key(field(key.public_key.view()));
    request.set_signature(field(sign_join_login(context, key).view()));
    grpc::ClientContext call;
    return w.world.people->LoginJoin(&call, request, &reply).ok();
  };
  v1::LoginReply reply;
  CHECK(!let_in(crypto::SecretSigner::from_seed(crypto::SecretKey::random(w.random)), reply));
  CHECK(!let_in(w.ann.secrets.sign, reply));
  REQUIRE(let_in(w.root, reply));
  CHECK(!w.hello(reply.token()).ok());  // no member
  const NewUser bob = w.user("bob", "staple battery");
  const Position at = w.log->position();
  const auto enroll = [&](const crypto::SecretSigner& signer) {
    v1::EnrollRequest request;
    request.mutable_expected()->set_seq(at.seq);
    request.mutable_expected()->set_hash(field(at.hash.view()));
    request.set_record(
        field(make_record(w.org, &at, w.now_s(),
                          certificate_of(bob.secrets, "bob", Role::kAdministrator), signer)
                  .bytes));
    request.set_user_record(field(encode_user_record(bob.record)));
    grpc::ClientContext call;
    w.world.say(call, reply.token());
    v1::AppendLogReply done;
    return w.world.people->Enroll(&call, request, &done).ok();
  };
  CHECK(!enroll(w.ann.secrets.sign));  // another's word, with the root key's token
  REQUIRE(enroll(w.root));
  CHECK(w.world.control->book().with(
      [&](const OrgState& org) { return org.is_administrator(bob.secrets.user); }));
}
