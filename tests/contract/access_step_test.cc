// What a user's records and the log say is written in one step: the server dies, or its disk is
// full, at any write.
#include "tests/contract/login_world.h"

namespace dims::test {
namespace {

// A store opened again after the server has died: what it says of that user fits.
struct Reopened {
  std::unique_ptr<access::AccessControl> control;
  const User* user = nullptr;
  std::optional<UserRecord> record;

  Reopened(AccessWorld& world, const UserId& id) {
    auto opened = access::AccessControl::open(world.refs, world.clock, world.random, {});
    REQUIRE(opened.ok());
    control = std::move(*opened);
    control->book().with([&](const OrgState& org) { user = org.user(id); });
    if (const auto bytes = control->people().user_record(id); bytes.ok()) {
      auto decoded = decode_user_record(*bytes);
      REQUIRE(decoded.ok());
      record = std::move(*decoded);
    }
  }
  void check_record() {
    REQUIRE(record);
    CHECK(control->book().with(
        [&](const OrgState& org) { return check_user_record(org, *record).ok(); }));
  }
};

struct StepWorld : LoginWorld {
  DomainId private_domain = ann.secrets.private_domain;
  ScopeId scope = scope_id(private_domain);
  Secret32 secret = random.id<Secret32>();

  StepWorld() {
    REQUIRE(init(kSecret).ok());
    KeyEpoch epoch;
    epoch.scope = KeyScope::kDomain;
    epoch.id = scope;
    epoch.epoch = 1;
    epoch.commitment = epoch_commitment(KeyScope::kDomain, scope, 1, secret);
    tell(epoch);
    v1::PutGrantsRequest request;
    request.add_grants(field(grant_for(log->state(), ann.secrets)));
    grpc::ClientContext context;
    world.say(context, token_of_ann());
    v1::PutGrantsReply reply;
    REQUIRE(world.people->PutGrants(&context, request, &reply).ok());
  }
  std::string token_of_ann() {
    access::Caller caller;
    caller.kind = access::Caller::Kind::kUser;
    caller.user = ann.secrets.user;
    return world.token_of(caller);
  }
  Bytes grant_for(const OrgState& state, const UserSecrets& to) {
    const auto made =
        make_grant(state, KeyScope::kDomain, scope, 1, secret, to.user, to.user, to.sign);
    REQUIRE(made.ok());
    return *made;
  }
  v1::PutUserRecordRequest new_keys(const NewUser& made) {
    v1::PutUserRecordRequest request;
    request.set_record(field(encode_user_record(made.record)));
    const Position at = log->position();
    request.mutable_expected()->set_seq(at.seq);
    request.mutable_expected()->set_hash(field(at.hash.view()));
    const LogRecord change =
        make_record(org, &at, now_s(), key_change_of(made.secrets), ann.secrets.sign);
    request.add_log_records(field(change.bytes));
    OrgState next = log->state();
    REQUIRE(next.apply(change).ok());
    request.add_grants(field(grant_for(next, made.secrets)));
    return request;
  }
  grpc::Status put(const v1::PutUserRecordRequest& request) {
    grpc::ClientContext context;
    world.say(context, token_of_ann());
    v1::PutUserRecordReply reply;
    return world.people->PutUserRecord(&context, request, &reply);
  }
  NewUser renewed() {
    auto made = renew_user(ann.record, ann.secrets, as_bytes("another horse"), {}, random);
    REQUIRE(made.ok());
    return std::move(*made);
  }
  // Whoever has these keys has the secret.
  bool opens(access::AccessControl& control, const UserSecrets& keys) {
    const auto grants = control.people().grants(keys.user, KeyScope::kDomain, scope);
    REQUIRE(grants.ok());
    REQUIRE(grants->size() == 1);
    return control.book().with([&](const OrgState& state) {
      const auto opened = open_grant(state, grants->front(), keys.user, keys.box);
      return opened.ok() && opened->key() == secret;
    });
  }
};

}  // namespace

TEST_CASE("step: new keys, their record and their grants are there together, or the old ones are") {
  bool done = false;
  for (int writes = 0; !done; ++writes) {
    StepWorld w;
    const NewUser made = w.renewed();
    const v1::PutUserRecordRequest request = w.new_keys(made);
    w.world.refs.writes_left = writes;
    done = w.put(request).ok();
    w.world.refs.writes_left = -1;
    Reopened again(w.world, w.ann.secrets.user);
    INFO(writes << " writes");
    again.check_record();
    const bool fresh = again.user->keys.sign_key == made.secrets.sign.public_key;
    CHECK(fresh == done);
    CHECK(w.opens(*again.control, fresh ? made.secrets : w.ann.secrets));
    CHECK(!w.opens(*again.control, fresh ? w.ann.secrets : made.secrets));
    REQUIRE(writes < 10);
  }
}

TEST_CASE("step: a request whose answer was lost is answered again, once it is done") {
  StepWorld w;
  const NewUser made = w.renewed();
  const v1::PutUserRecordRequest request = w.new_keys(made);
  REQUIRE(w.put(request).ok());
  const Position end = w.world.control->book().position();
  REQUIRE(w.put(request).ok());
  CHECK(w.world.control->book().position() == end);
  // Another one for the same place is not it, and neither is one that goes on after it.
  CHECK(w.put(w.new_keys(w.renewed())).error_code() == grpc::StatusCode::ABORTED);
  v1::PutUserRecordRequest longer = request;
  longer.add_log_records(request.log_records(0));
  CHECK(!w.put(longer).ok());
  CHECK(w.world.control->book().position() == end);
  Reopened again(w.world, w.ann.secrets.user);
  again.check_record();
  CHECK(w.opens(*again.control, made.secrets));
}

TEST_CASE("step: the grants of one call are there together, or none is") {
  bool done = false;
  for (int writes = 0; !done; ++writes) {
    StepWorld w;
    NewUser bob = w.user("bob", "staple battery");
    w.tell(certificate_of(bob.secrets, "bob", Role::kUser));
    KeyEpoch epoch;
    epoch.scope = KeyScope::kDomain;
    epoch.id = w.scope;
    epoch.epoch = 2;
    epoch.commitment = epoch_commitment(KeyScope::kDomain, w.scope, 2, w.secret);
    w.tell(epoch);
    v1::PutGrantsRequest request;
    for (const UserId& to : {bob.secrets.user, w.ann.secrets.user}) {
      const auto made = make_grant(w.log->state(), KeyScope::kDomain, w.scope, 2, w.secret, to,
                                   w.ann.secrets.user, w.ann.secrets.sign);
      REQUIRE(made.ok());
      request.add_grants(field(*made));
    }
    grpc::ClientContext context;
    w.world.say(context, w.token_of_ann());
    v1::PutGrantsReply reply;
    w.world.refs.writes_left = writes;
    done = w.world.people->PutGrants(&context, request, &reply).ok();
    w.world.refs.writes_left = -1;
    auto& people = w.world.control->people();
    CHECK(people.grants(bob.secrets.user, KeyScope::kDomain, w.scope)->size() == (done ? 1 : 0));
    CHECK(people.grants(w.ann.secrets.user, KeyScope::kDomain, w.scope)->size() == (done ? 2 : 1));
    REQUIRE(writes < 10);
  }
}

TEST_CASE("step: grants beside new keys are the user's own, for himself") {
  StepWorld w;
  NewUser bob = w.user("bob", "staple battery");
  w.tell(certificate_of(bob.secrets, "bob", Role::kUser));
  const NewUser made = w.renewed();
  v1::PutUserRecordRequest request = w.new_keys(made);
  // For bob, by ann's new keys: she may grant it, and not here.
  OrgState next = w.log->state();
  REQUIRE(next.apply(*decode_record(as_bytes(request.log_records(0)))).ok());
  const auto other = make_grant(next, KeyScope::kDomain, w.scope, 1, w.secret, bob.secrets.user,
                                made.secrets.user, made.secrets.sign);
  REQUIRE(other.ok());
  request.add_grants(field(*other));
  CHECK(w.put(request).error_code() == grpc::StatusCode::PERMISSION_DENIED);
  // Without new keys there is a call for them.
  request = w.new_keys(made);
  request.clear_log_records();
  CHECK(w.put(request).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  Reopened again(w.world, w.ann.secrets.user);
  again.check_record();
  CHECK(w.opens(*again.control, w.ann.secrets));
}

TEST_CASE("step: a newcomer and his record are there together, or his join line is still good") {
  bool done = false;
  for (int writes = 0; !done; ++writes) {
    StepWorld w;
    const crypto::SecretSigner join =
        crypto::SecretSigner::from_seed(crypto::SecretKey::random(w.random));
    JoinKey line{join.public_key,       false,           "bob", Role::kUser,
                 w.random.id<UserId>(), w.now_s() + 3600};
    w.tell(line);
    access::Caller caller;
    caller.kind = access::Caller::Kind::kJoin;
    caller.join_key = join.public_key;
    const auto enroll = [&](const Position& at) {
      auto made = make_user(w.org, line.user, "bob", as_bytes("staple battery"), {}, w.random);
      REQUIRE(made.ok());
      v1::EnrollRequest request;
      request.mutable_expected()->set_seq(at.seq);
      request.mutable_expected()->set_hash(field(at.hash.view()));
      request.set_record(field(make_record(w.org, &at, w.now_s(),
                                           certificate_of(made->secrets, "bob", Role::kUser), join)
                                   .bytes));
      request.set_user_record(field(encode_user_record(made->record)));
      grpc::ClientContext context;
      w.world.say(context, w.world.token_of(caller));
      v1::AppendLogReply reply;
      return w.world.people->Enroll(&context, request, &reply).ok();
    };
    w.world.refs.writes_left = writes;
    done = enroll(w.log->position());
    w.world.refs.writes_left = -1;
    INFO(writes << " writes");
    {
      Reopened again(w.world, line.user);
      CHECK((again.user != nullptr) == done);
      CHECK(again.record.has_value() == done);
      if (done) again.check_record();
    }
    // With keys of his own again: the first ones were forgotten with the program that made them.
    if (!done) CHECK(enroll(w.log->position()));
    REQUIRE(writes < 10);
  }
}

TEST_CASE("step: an organisation is there whole, or can be made again") {
  bool done = false;
  for (int writes = 0; !done; ++writes) {
    LoginWorld w;
    w.world.refs.writes_left = writes;
    done = w.init(kSecret).ok();
    w.world.refs.writes_left = -1;
    if (!done) {
      w.ann = w.user("ann", "correct horse");
      w.records.resize(1);
      auto opened = OrgLog::open(w.org, w.records);
      REQUIRE(opened.ok());
      w.log = std::move(*opened);
      w.say(certificate_of(w.ann.secrets, "ann", Role::kAdministrator), w.root);
      CHECK(w.init(kSecret).ok());
    }
    Reopened again(w.world, w.ann.secrets.user);
    again.check_record();
    REQUIRE(writes < 10);
  }
}

}  // namespace dims::test
