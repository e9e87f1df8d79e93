// Login proofs and join lines: replayed, moved to another server, user, machine; and names that
// nobody has.
#include <catch2/catch.hpp>

#include "common/trust/join_line.h"
#include "common/trust/login.h"
#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

namespace {

// The context as it should be, and each of its fields changed.
std::vector<LoginContext> elsewhere(const LoginContext& good, const OrgFixture& f) {
  SeededRandom random(9);
  std::vector<LoginContext> out(5, good);
  out[0].nonce = random.id<LoginNonce>();  // replayed: the server asks for another nonce
  out[1].server = random.id<Digest>();     // relayed by a server in between
  out[2].server = {};
  out[3].machine = f.desk.machine;
  out[4].org = random.id<OrgId>();
  return out;
}

}  // namespace

TEST_CASE("login: a proof is good for one nonce, server, organisation, machine, name") {
  OrgFixture f(seed());
  const LoginContext good{f.org, f.random.id<LoginNonce>(), f.random.id<Digest>(),
                          f.laptop.machine};
  const auto key = new_signer(f.random), other = new_signer(f.random);
  const auto user = sign_user_login(good, "alice", key);
  const auto machine = sign_machine_login(good, f.laptop.sign);
  const auto join = sign_join_login(good, f.machine_join);
  MUST(verify_user_login(good, "alice", &key.public_key, user));
  MUST(verify_machine_login(f.state(), good, machine));
  MUST(verify_join_login(f.state(), good, f.machine_join.public_key, join));
  const auto denied = ErrorCode::kPermissionDenied;
  for (const LoginContext& bad : elsewhere(good, f)) {
    REFUSED(verify_user_login(bad, "alice", &key.public_key, user), denied);
    REFUSED(verify_machine_login(f.state(), bad, machine), denied);
    REFUSED(verify_join_login(f.state(), bad, f.machine_join.public_key, join), denied);
  }
  REFUSED(verify_user_login(good, "bob", &key.public_key, user), denied);
  REFUSED(verify_user_login(good, "alice", &other.public_key, user), denied);
  // One kind of proof is not another.
  const auto& laptop_key = f.laptop.sign.public_key;
  REFUSED(verify_user_login(good, "", &laptop_key, machine), denied);
  REFUSED(verify_machine_login(f.state(), good, sign_join_login(good, f.laptop.sign)), denied);
  REFUSED(verify_join_login(f.state(), good, f.laptop.sign.public_key, machine), denied);
  for (std::size_t i = 0; i < Signature::kBytes; ++i) {
    auto bent = user;
    bent.bytes[i] ^= 0x20;
    CHECK(!verify_user_login(good, "alice", &key.public_key, bent).ok());
  }
}

TEST_CASE("login: revoked machines and spent join keys do not get in") {
  OrgFixture f(seed());
  const LoginContext context{f.org, f.random.id<LoginNonce>(), {}, f.laptop.machine};
  f.say(MachineRevoke{f.laptop.machine}, f.admin.sign);
  const auto proof = sign_machine_login(context, f.laptop.sign);
  REFUSED(verify_machine_login(f.state(), context, proof), ErrorCode::kPermissionDenied);
  // But for learning so; and that is for nobody else, either.
  const auto anyway = MachineStanding::kRevokedToo;
  CHECK(verify_machine_login(f.state(), context, proof, anyway).ok());
  REFUSED(
      verify_machine_login(f.state(), context, sign_machine_login(context, f.desk.sign), anyway),
      ErrorCode::kPermissionDenied);
  f.say(make_machine(f.org, "new", f.random).certificate(), f.machine_join);
  f.say(JoinCancel{f.user_join.public_key}, f.admin.sign);
  for (const auto* key : {&f.machine_join, &f.user_join, &f.alice.sign})
    REFUSED(verify_join_login(f.state(), context, key->public_key, sign_join_login(context, *key)),
            ErrorCode::kPermissionDenied);
}

TEST_CASE("login: an unknown name gets a salt of its own, for ever, and the same refusal") {
  SeededRandom random(seed());
  const auto server_key = random.id<Secret32>(), other_key = random.id<Secret32>();
  const OrgId org = random.id<OrgId>();
  const auto a = unknown_login_record(server_key, org, "nobody");
  CHECK(a.salt == unknown_login_record(server_key, org, "nobody").salt);
  CHECK(a.salt != unknown_login_record(server_key, org, "nobodx").salt);
  CHECK(a.salt != unknown_login_record(other_key, org, "nobody").salt);
  CHECK(a.parameters == crypto::Argon2Parameters{});  // what users have
  const LoginContext context{org, random.id<LoginNonce>(), {}, {}};
  const auto key = new_signer(random);
  const auto proof = sign_user_login(context, "nobody", key);
  const Status unknown = verify_user_login(context, "nobody", nullptr, proof);
  const auto right = new_signer(random).public_key;
  const Status wrong = verify_user_login(context, "nobody", &right, proof);
  REFUSED(unknown, ErrorCode::kPermissionDenied);
  CHECK(unknown.error().to_string() == wrong.error().to_string());
  // Not even a proof by whoever guesses the key that stands for nobody helps: nullptr never passes.
  CHECK(!verify_user_login(context, "", nullptr, Signature{}).ok());
}

TEST_CASE("join line: back and forth; every wrong letter, cut or addition is found") {
  SeededRandom random(seed());
  JoinLine line;
  line.address = "[fe80::1]:7440";
  line.server = random.id<Digest>();
  line.org = random.id<OrgId>();
  line.position = {77, random.id<Digest>()};
  line.token = make_join_token(random);
  const std::string good = encode_join_line(line);
  const auto parsed = parse_join_line("  " + good + "\r\n");
  MUST(parsed);
  CHECK(parsed->address == line.address);
  CHECK(parsed->server == line.server);
  CHECK(parsed->org == line.org);
  CHECK(parsed->position == line.position);
  CHECK(!parsed->for_machine);
  CHECK(parsed->join_key().public_key == line.join_key().public_key);
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char c : {'A', 'z', '0', '-', '#', ' ', '\x7f'}) {
      if (good[i] == c) continue;
      std::string bad = good;
      bad[i] = c;
      INFO(bad);
      const auto other = parse_join_line(bad);
      if (other.ok()) FAIL("letter " << i);
      CHECK((other.error().code == ErrorCode::kInvalidArgument ||
             other.error().code == ErrorCode::kUnsupported));
    }
    CHECK(!parse_join_line(std::string_view(good).substr(0, i)).ok());
  }
  for (const char* more : {"A", "AA", "AAAA", "=", "#"}) CHECK(!parse_join_line(good + more).ok());
  CHECK(parse_join_line(good.substr(0, good.size() - 8)).error().message ==
        "join line: its end is missing");
}

TEST_CASE("join line: the key depends on token and organisation, and shows neither") {
  SeededRandom random(seed());
  JoinLine line;
  line.address = "unix:/run/rdim.sock";
  line.org = random.id<OrgId>();
  line.token = make_join_token(random);
  line.for_machine = true;
  const auto key = line.join_key().public_key;
  CHECK(parse_join_line(encode_join_line(line))->for_machine);
  line.org.bytes[0] ^= 1;
  CHECK(line.join_key().public_key != key);
  line.org.bytes[0] ^= 1;
  line.token.mut()[15] ^= 1;
  CHECK(line.join_key().public_key != key);
}
