// The road that works: a log, a user, a grant, a session, a join line.
#include <catch2/catch.hpp>

#include "common/trust/join_line.h"
#include "common/trust/login.h"
#include "common/trust/session.h"
#include "common/trust/signer_policy.h"
#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using dims::test::OrgFixture;

TEST_CASE("log: an organisation from its records, with and without a pin") {
  const OrgFixture f;
  MUST(OrgLog::open(f.org, f.records));
  const Pin pin = f.log->pin();
  CHECK(*decode_pin(encode_pin(pin)) == pin);
  const auto again = OrgLog::open(f.org, f.records, &pin);
  MUST(again);
  CHECK(again->position() == f.log->position());
  CHECK(again->state().user_named("alice")->id == f.alice.user);
  CHECK(again->state().access(f.alice.user, f.image) == Access::kAdmin);
  CHECK(again->state().access(f.bob.user, f.image) == Access::kRead);
  CHECK(again->state().access(f.bob.user, f.master) == Access::kRead);
  CHECK(again->state().access(f.oper.user, f.master) == Access::kWrite);
  CHECK(again->state().access(f.admin.user, f.image) == Access::kNone);
  CHECK(again->state().may_administer(f.admin.user, f.image));
  CHECK(!again->state().may_administer(f.bob.user, f.image));
}

TEST_CASE("join: a line's key certifies the newcomer, once") {
  OrgFixture f;
  JoinLine line;
  line.address = "server.example:7440";
  line.server = f.random.id<Digest>();
  line.org = f.org;
  line.token = make_join_token(f.random);
  line.for_machine = true;
  const auto key = line.join_key();
  f.say(JoinKey{key.public_key, true, "", Role::kUser, {}, f.now_s + 60}, f.oper.sign);
  line.position = f.log->position();
  const auto parsed = parse_join_line(encode_join_line(line));
  MUST(parsed);
  CHECK(parsed->join_key().public_key == key.public_key);
  CHECK(parsed->position == line.position);

  const LoginContext context{f.org, f.random.id<LoginNonce>(), line.server, {}};
  MUST(verify_join_login(f.state(), context, key.public_key,
                         sign_join_login(context, parsed->join_key())));
  const auto tablet = make_machine(f.org, "tablet", f.random);
  f.say(tablet.certificate(), parsed->join_key());
  CHECK(f.state().machine_named("tablet")->id == tablet.machine);
  const auto second = make_machine(f.org, "second", f.random);
  CHECK(f.state().check(f.make(second.certificate(), parsed->join_key())).error().code ==
        ErrorCode::kUntrusted);
}

TEST_CASE("grant: the recipient opens what the granter sealed") {
  const OrgFixture f;
  const ScopeId id = scope_id(f.image);
  const Secret32 secret = f.key_of_epoch(id, 1);
  const auto grant = make_grant(f.state(), KeyScope::kImage, id, 1, secret, f.bob.user,
                                f.alice.user, f.alice.sign);
  MUST(grant);
  CHECK(grant->size() == kGrantBytes);
  const auto opened = open_grant(f.state(), *grant, f.bob.user, f.bob.box);
  MUST(opened);
  CHECK(opened->key() == secret);
}

TEST_CASE("user: passphrase, words, new passphrase, new keys open the same user") {
  SeededRandom random(dims::test::seed());
  OrgFixture f;
  const auto id = random.id<UserId>();
  auto made = make_user(f.org, id, "carol", as_bytes("first passphrase"), {}, random);
  MUST(made);
  f.say(certificate_of(made->secrets, "carol", Role::kUser), f.admin.sign);
  const auto record = decode_user_record(encode_user_record(made->record));
  MUST(record);
  MUST(check_user_record(f.state(), *record));
  const auto keys = passphrase_keys(as_bytes("first passphrase"), record->salt, record->parameters);
  MUST(keys);
  CHECK(keys->login.public_key == record->login_key);
  const auto opened = open_user_record(*record, *keys);
  MUST(opened);
  CHECK(opened->user_key.key() == made->secrets.user_key.key());
  CHECK(opened->private_secret.key() == made->secrets.private_secret.key());

  const auto second = change_passphrase(*record, *opened, as_bytes("second"), {}, random);
  MUST(second);
  CHECK(open_user_record(*second, *keys).error().code == ErrorCode::kWrongKey);
  const auto recovered = recover_user(*second, made->words.text());
  MUST(recovered);
  CHECK(recovered->sign.public_key == made->secrets.sign.public_key);

  auto renewed = renew_user(*second, *recovered, as_bytes("third"), {}, random);
  MUST(renewed);
  f.say(key_change_of(renewed->secrets), f.state().user(id) != nullptr ? recovered->sign : f.root);
  MUST(check_user_record(f.state(), renewed->record));
  CHECK(check_user_record(f.state(), *second).error().code == ErrorCode::kUntrusted);
  CHECK(recover_user(renewed->record, made->words.text()).error().code == ErrorCode::kWrongKey);
}

TEST_CASE("session: a certificate lets its key write versions of its image") {
  OrgFixture f;
  const auto key = crypto::SecretSigner::from_seed(crypto::SecretKey::random(f.random));
  const auto certificate =
      make_session(f.state(), f.alice.user, f.laptop.machine, {{f.image, Access::kWrite}}, f.now_s,
                   f.now_s + 3600, key, f.alice.sign);
  const Bytes bytes = encode_session(certificate);
  const auto decoded = decode_session(bytes);
  MUST(decoded);
  MUST(
      check_session_use(f.state(), *decoded, {f.laptop.machine, f.image, Access::kWrite, f.now_s}));

  format::VersionRecord version;
  version.org = f.org;
  version.image = f.image;
  version.image_epoch = 1;
  version.sequence = 7;
  version.machine = f.laptop.machine;
  version.signer = key.public_key;
  version.time_unix_ns = f.now_s * 1'000'000'000;
  OrgSigner policy(f.state(), f.image, [&](const PublicKey&) -> Result<Bytes> { return bytes; });
  MUST(policy.check(version));
  MUST(KeyFileSigner(key.public_key).check(version));
}

TEST_CASE("login: user and machine prove themselves to this server only") {
  const OrgFixture f;
  SeededRandom random(2);
  const LoginContext context{f.org, random.id<LoginNonce>(), random.id<Digest>(), f.laptop.machine};
  const auto login = crypto::SecretSigner::from_seed(crypto::SecretKey::random(random));
  MUST(verify_user_login(context, "alice", &login.public_key,
                         sign_user_login(context, "alice", login)));
  MUST(verify_machine_login(f.state(), context, sign_machine_login(context, f.laptop.sign)));
}
