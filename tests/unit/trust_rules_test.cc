// Who may sign what: the whole product of kinds and signers, stated here a second time.
#include <catch2/catch.hpp>

#include <set>

#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

namespace {

// What a signer would most like to say of each kind: "own" is about himself, his image, his join
// key; "other" about somebody else's.
struct Wishes {
  Body own, other;
};

struct Signer {
  std::string name;
  crypto::SecretSigner key;
  UserId user;  // zero: none
  ImageId image;
  DomainId domain;
};

std::vector<Signer> signers(OrgFixture& f) {
  std::vector<Signer> out;
  const auto add = [&](const std::string& name, const crypto::SecretSigner& key,
                       const UserSecrets* user, const ImageId& image) {
    out.push_back({name, key.clone(), user != nullptr ? user->user : UserId{}, image,
                   user != nullptr ? user->private_domain : DomainId{}});
  };
  add("root", f.root, nullptr, {});
  add("administrator", f.admin.sign, &f.admin, {});
  add("operator", f.oper.sign, &f.oper, {});
  add("image admin", f.alice.sign, &f.alice, f.image);
  add("user", f.bob.sign, &f.bob, {});
  add("machine", f.laptop.sign, nullptr, {});
  add("machine join key", f.machine_join, nullptr, {});
  add("user join key", f.user_join, nullptr, {});
  add("stranger", new_signer(f.random), nullptr, {});
  return out;
}

Wishes wishes(OrgFixture& f, RecordKind kind, const Signer& signer) {
  const auto person = [&](const UserId& id, const std::string& name) {
    auto secrets = bare_user(f.org, f.random);
    if (!id.is_zero()) secrets.user = id;
    return certificate_of(secrets, name, Role::kUser);
  };
  const auto change = [&](const UserId& id) {
    auto secrets = bare_user(f.org, f.random);
    secrets.user = id;
    return key_change_of(secrets);
  };
  const UserId self = signer.user.is_zero() ? f.alice.user : signer.user;
  const UserId somebody = self == f.bob.user ? f.alice.user : f.bob.user;
  const ImageId image = signer.image.is_zero() ? f.random.id<ImageId>() : signer.image;
  switch (kind) {
    case RecordKind::kOrgInit:
      return {OrgInit{signer.key.public_key, f.domain, "mine"},
              OrgInit{f.root.public_key, f.domain, "example"}};
    case RecordKind::kUserCert:
      return {person(f.joining, "dora"), person({}, "eve")};
    case RecordKind::kUserState:
      return {UserState{self, UserStatus::kActive, Role::kAdministrator},
              UserState{somebody, UserStatus::kDisabled, Role::kUser}};
    case RecordKind::kKeyChange:
      return {change(self), change(somebody)};
    case RecordKind::kMachineCert:
      return {make_machine(f.org, "box1", f.random).certificate(),
              make_machine(f.org, "box2", f.random).certificate()};
    case RecordKind::kMachineRevoke:
      return {MachineRevoke{f.laptop.machine}, MachineRevoke{f.desk.machine}};
    case RecordKind::kMachineWipe:
      return {MachineWipe{f.laptop.machine, true}, MachineWipe{f.desk.machine, false}};
    case RecordKind::kJoinKey:
      return {JoinKey{new_signer(f.random).public_key, true, "", Role::kUser, {}, f.now_s + 9},
              JoinKey{new_signer(f.random).public_key, false, "eve", Role::kAdministrator,
                      f.random.id<UserId>(), f.now_s + 9}};
    case RecordKind::kJoinCancel:
      return {JoinCancel{f.machine_join.public_key}, JoinCancel{f.user_join.public_key}};
    case RecordKind::kImageAcl:
      return {ImageAcl{image, self, Access::kAdmin}, ImageAcl{f.master, self, Access::kWrite}};
    case RecordKind::kKeyEpoch: {
      if (!signer.domain.is_zero() && signer.image.is_zero())
        return {f.epoch(KeyScope::kDomain, scope_id(signer.domain), 1),
                f.epoch(KeyScope::kImage, scope_id(f.master), 2)};
      return {f.epoch(KeyScope::kImage, scope_id(f.image), 2),
              f.epoch(KeyScope::kDomain, scope_id(f.domain), 2)};
    }
    case RecordKind::kPolicy:
      return {Policy{}, Policy{}};
    case RecordKind::kQuota:
      return {Quota{self, 0, 0, 0}, Quota{kEveryone, 1, 1, 1}};
  }
  return {Policy{}, Policy{}};
}

// kind -> signers who may say "own", and those who may say "other".
const std::map<RecordKind, std::pair<std::set<std::string>, std::set<std::string>>>& allowed() {
  using Set = std::set<std::string>;
  static const Set top{"root", "administrator"};
  static const Set host{"root", "administrator", "operator"};
  static const std::map<RecordKind, std::pair<Set, Set>> table{
      {RecordKind::kOrgInit, {{}, {}}},
      {RecordKind::kUserCert, {{"root", "administrator", "user join key"}, top}},
      {RecordKind::kUserState, {top, top}},
      {RecordKind::kKeyChange, {{"root", "administrator", "operator", "image admin", "user"}, top}},
      {RecordKind::kMachineCert,
       {{"root", "administrator", "operator", "machine join key"},
        {"root", "administrator", "operator", "machine join key"}}},
      {RecordKind::kMachineRevoke, {host, host}},
      {RecordKind::kMachineWipe, {top, top}},
      {RecordKind::kJoinKey, {host, top}},
      {RecordKind::kJoinCancel, {host, top}},
      {RecordKind::kImageAcl, {{"root", "administrator", "operator", "image admin", "user"}, top}},
      {RecordKind::kKeyEpoch, {{"root", "administrator", "operator", "image admin", "user"}, top}},
      {RecordKind::kPolicy, {top, top}},
      {RecordKind::kQuota, {top, top}},
  };
  return table;
}

}  // namespace

TEST_CASE("rules: every kind by every signer, about his own and about others'") {
  OrgFixture f(seed());
  int said = 0, refused = 0;
  for (const Signer& signer : signers(f)) {
    for (const RecordKind kind : kAllRecordKinds) {
      const Wishes wish = wishes(f, kind, signer);
      for (const bool own : {true, false}) {
        const auto& sets = allowed().at(kind);
        const bool may = (own ? sets.first : sets.second).contains(signer.name);
        INFO(signer.name << " says " << record_kind_name(kind) << (own ? " (own)" : " (other)"));
        const auto record = f.make(own ? wish.own : wish.other, signer.key);
        const Status status = f.state().check(record);
        CHECK(status.ok() == may);
        if (!status.ok()) {
          INFO(status.error().to_string());
          CHECK(status.error().code == ErrorCode::kUntrusted);
        }
        // What is refused changes nothing.
        OrgLog log = *OrgLog::open(f.org, f.records);
        const Position before = log.position();
        CHECK(log.append(record.bytes, before).ok() == may);
        CHECK((log.position() == before) == !may);
        ++(may ? said : refused);
      }
    }
  }
  CHECK(said == 66);
  CHECK(refused == 9 * 13 * 2 - 66);
}

TEST_CASE("rules: the table has no cell for those whom nothing vouches for") {
  for (const RecordKind kind : kAllRecordKinds) {
    CHECK(rule_of(kind, SignerRole::kStranger) == Rule::kNever);
    CHECK(rule_of(kind, SignerRole::kMachine) == Rule::kNever);
    // Whatever an operator or user may say, an administrator may.
    if (rule_of(kind, SignerRole::kOperator) != Rule::kNever) {
      CHECK(rule_of(kind, SignerRole::kAdministrator) != Rule::kNever);
    }
    CHECK(!record_kind_name(kind).empty());
  }
  for (const SignerRole role : kAllSignerRoles) CHECK(!signer_role_name(role).empty());
}

TEST_CASE("rules: a key that was replaced, disabled, removed, revoked or spent says nothing more") {
  OrgFixture f(seed());
  const auto old_key = f.admin.sign.clone();
  auto renewed = f.admin.clone();
  renewed.sign = new_signer(f.random);
  renewed.box = crypto::BoxKey::from_seed(crypto::SecretKey::random(f.random));
  f.say(key_change_of(renewed), f.admin.sign);
  REFUSED(f.state().check(f.make(Policy{}, old_key)), ErrorCode::kUntrusted);
  MUST(f.state().check(f.make(Policy{}, renewed.sign)));

  const ImageAcl own{f.image, f.bob.user, Access::kNone};
  for (const UserStatus status : {UserStatus::kDisabled, UserStatus::kRemoved}) {
    f.say(UserState{f.alice.user, status, Role::kUser}, renewed.sign);
    REFUSED(f.state().check(f.make(own, f.alice.sign)), ErrorCode::kUntrusted);
    CHECK(f.state().access(f.alice.user, f.image) == Access::kNone);
    CHECK(!f.state().may_administer(f.alice.user, f.image));
  }
  f.say(UserState{f.oper.user, UserStatus::kActive, Role::kUser}, renewed.sign);
  REFUSED(f.state().check(f.make(MachineRevoke{f.desk.machine}, f.oper.sign)),
          ErrorCode::kUntrusted);

  f.say(make_machine(f.org, "once", f.random).certificate(), f.machine_join);
  REFUSED(
      f.state().check(f.make(make_machine(f.org, "twice", f.random).certificate(), f.machine_join)),
      ErrorCode::kUntrusted);
  f.say(JoinCancel{f.user_join.public_key}, renewed.sign);
  auto dora = bare_user(f.org, f.random);
  dora.user = f.joining;
  REFUSED(f.state().check(f.make(certificate_of(dora, "dora", Role::kUser), f.user_join)),
          ErrorCode::kUntrusted);
}

TEST_CASE("rules: a join key makes what it was made for and nothing else") {
  OrgFixture f(seed());
  auto dora = bare_user(f.org, f.random);
  dora.user = f.joining;
  const auto refused = [&](const Body& body, const crypto::SecretSigner& key) {
    REFUSED(f.state().check(f.make(body, key)), ErrorCode::kUntrusted);
  };
  refused(certificate_of(dora, "eve", Role::kUser), f.user_join);
  refused(certificate_of(dora, "dora", Role::kAdministrator), f.user_join);
  refused(certificate_of(bare_user(f.org, f.random), "dora", Role::kUser), f.user_join);
  refused(certificate_of(dora, "dora", Role::kUser), f.machine_join);
  refused(make_machine(f.org, "box", f.random).certificate(), f.user_join);
  const auto late = new_signer(f.random);
  f.say(JoinKey{late.public_key, true, "named", Role::kUser, {}, f.now_s + 5}, f.admin.sign);
  refused(make_machine(f.org, "other", f.random).certificate(), late);
  f.now_s += 6;
  refused(make_machine(f.org, "named", f.random).certificate(), late);
  MUST(f.state().check(f.make(certificate_of(dora, "dora", Role::kUser), f.user_join)));
}
