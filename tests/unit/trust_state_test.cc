// What must hold of a record whoever signs it, and what the log says of the past.
#include <catch2/catch.hpp>

#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

TEST_CASE("state: what makes no sense is refused even from an administrator") {
  OrgFixture f(seed());
  const auto refused = [&](const Body& body, ErrorCode code) {
    INFO(record_kind_name(kind_of(body)));
    REFUSED(f.state().check(f.make(body, f.admin.sign)), code);
  };
  const UserId nobody = f.random.id<UserId>();
  const auto exists = ErrorCode::kAlreadyExists, missing = ErrorCode::kNotFound,
             senseless = ErrorCode::kInvalidArgument;
  refused(certificate_of(bare_user(f.org, f.random), "alice", Role::kUser), exists);
  for (const char* name : {"", "-x", ".x", "a b", "a/b", "\xc3\xa4"}) CHECK(!is_valid_name(name));
  CHECK(!is_valid_name(std::string(65, 'a')));
  auto zero = bare_user(f.org, f.random);
  zero.user = {};
  refused(certificate_of(zero, "zero", Role::kUser), senseless);
  auto taken = bare_user(f.org, f.random);
  taken.user = f.bob.user;
  refused(certificate_of(taken, "taken", Role::kUser), exists);
  taken = bare_user(f.org, f.random);
  taken.private_domain = f.bob.private_domain;
  refused(certificate_of(taken, "taken", Role::kUser), exists);
  taken.private_domain = f.domain;
  refused(certificate_of(taken, "taken", Role::kUser), exists);
  taken = bare_user(f.org, f.random);
  taken.box = f.bob.box.clone();
  refused(certificate_of(taken, "taken", Role::kUser), exists);

  refused(UserState{nobody, UserStatus::kActive, Role::kUser}, missing);
  auto change = bare_user(f.org, f.random);
  refused(key_change_of(change), missing);
  auto machine = make_machine(f.org, "laptop", f.random);
  refused(machine.certificate(), exists);
  machine.name = "new";
  machine.machine = f.desk.machine;
  refused(machine.certificate(), exists);
  machine.machine = {};
  refused(machine.certificate(), senseless);
  refused(MachineRevoke{f.random.id<MachineId>()}, missing);
  refused(MachineWipe{f.random.id<MachineId>(), true}, missing);
  const PublicKey fresh = new_signer(f.random).public_key;
  refused(JoinKey{fresh, true, "", Role::kUser, {}, f.now_s}, senseless);
  refused(JoinKey{fresh, true, "", Role::kOperator, {}, f.now_s + 1}, senseless);
  refused(JoinKey{fresh, true, "", Role::kUser, nobody, f.now_s + 1}, senseless);
  refused(JoinKey{fresh, false, "", Role::kUser, nobody, f.now_s + 1}, senseless);
  refused(JoinKey{fresh, false, "new", Role::kUser, {}, f.now_s + 1}, exists);
  refused(JoinKey{fresh, false, "new", Role::kUser, f.bob.user, f.now_s + 1}, exists);
  refused(JoinKey{fresh, false, "bob", Role::kUser, nobody, f.now_s + 1}, exists);
  refused(JoinKey{f.bob.sign.public_key, true, "", Role::kUser, {}, f.now_s + 1}, exists);
  refused(JoinKey{{}, true, "", Role::kUser, {}, f.now_s + 1}, senseless);
  refused(JoinCancel{fresh}, missing);
  refused(ImageAcl{{}, f.bob.user, Access::kRead}, senseless);
  refused(ImageAcl{f.image, nobody, Access::kRead}, missing);
  refused(ImageAcl{f.image, kEveryone, Access::kAdmin}, senseless);
  refused(f.epoch(KeyScope::kImage, scope_id(f.random.id<ImageId>()), 1), missing);
  refused(f.epoch(KeyScope::kImage, scope_id(f.image), 1), ErrorCode::kConflict);
  refused(f.epoch(KeyScope::kImage, scope_id(f.image), 3), ErrorCode::kConflict);
  refused(KeyEpoch{KeyScope::kImage, scope_id(f.image), 2, {}, 0, {}}, senseless);
  auto versioned = f.epoch(KeyScope::kDomain, scope_id(f.domain), 2);
  versioned.last_sequence = 1;
  refused(versioned, senseless);
  refused(Policy{true, 65, 0, 3600, false}, senseless);
  refused(Policy{true, 5, 0, 59, false}, senseless);
  refused(Quota{nobody, 0, 0, 0}, missing);

  f.say(MachineRevoke{f.desk.machine}, f.admin.sign);
  refused(MachineRevoke{f.desk.machine}, senseless);
  f.say(UserState{f.bob.user, UserStatus::kRemoved, Role::kUser}, f.admin.sign);
  refused(UserState{f.bob.user, UserStatus::kActive, Role::kUser}, senseless);
  refused(ImageAcl{f.image, f.bob.user, Access::kRead}, senseless);
  auto back = bare_user(f.org, f.random);
  back.user = f.bob.user;
  refused(key_change_of(back), missing);
  // His name is free, his id and keys are not.
  f.say(certificate_of(bare_user(f.org, f.random), "bob", Role::kUser), f.admin.sign);
}

TEST_CASE("state: the last administrator stays, but for the root key") {
  OrgFixture f(seed());
  for (const auto& [status, role] : {std::pair{UserStatus::kDisabled, Role::kAdministrator},
                                     std::pair{UserStatus::kRemoved, Role::kAdministrator},
                                     std::pair{UserStatus::kActive, Role::kUser}}) {
    REFUSED(f.state().check(f.make(UserState{f.admin.user, status, role}, f.admin.sign)),
            ErrorCode::kPermissionDenied);
    MUST(f.state().check(f.make(UserState{f.admin.user, status, role}, f.root)));
  }
  f.say(UserState{f.alice.user, UserStatus::kActive, Role::kAdministrator}, f.admin.sign);
  f.say(UserState{f.admin.user, UserStatus::kRemoved, Role::kUser}, f.admin.sign);
  CHECK(f.state().is_administrator(f.alice.user));
  CHECK(!f.state().is_administrator(f.admin.user));
}

TEST_CASE("state: whoever makes an image owns it, and nobody takes it over") {
  OrgFixture f(seed());
  const ImageId mine = f.random.id<ImageId>();
  REFUSED(f.state().check(f.make(ImageAcl{mine, f.alice.user, Access::kAdmin}, f.bob.sign)),
          ErrorCode::kUntrusted);
  REFUSED(f.state().check(f.make(ImageAcl{mine, f.bob.user, Access::kWrite}, f.bob.sign)),
          ErrorCode::kUntrusted);
  f.say(ImageAcl{mine, f.bob.user, Access::kAdmin}, f.bob.sign);
  REFUSED(f.state().check(f.make(ImageAcl{mine, f.alice.user, Access::kAdmin}, f.alice.sign)),
          ErrorCode::kUntrusted);
  // Not even after its list is empty again.
  f.say(ImageAcl{mine, f.bob.user, Access::kNone}, f.bob.sign);
  CHECK(f.state().image_list(mine).empty());
  for (const auto* who : {&f.alice, &f.bob})
    REFUSED(f.state().check(f.make(ImageAcl{mine, who->user, Access::kAdmin}, who->sign)),
            ErrorCode::kUntrusted);
  MUST(f.state().check(f.make(ImageAcl{mine, f.bob.user, Access::kAdmin}, f.admin.sign)));
}

TEST_CASE("state: the past stays what it was") {
  OrgFixture f(seed());
  const std::uint64_t before = f.log->position().seq;
  const auto old_keys = f.state().user(f.bob.user)->keys.sign_key;
  f.say(ImageAcl{f.image, f.bob.user, Access::kWrite}, f.alice.sign);
  const std::uint64_t writer = f.log->position().seq;
  auto renewed = bare_user(f.org, f.random);
  renewed.user = f.bob.user;
  f.say(key_change_of(renewed), f.bob.sign);
  const std::uint64_t changed = f.log->position().seq;
  f.say(UserState{f.bob.user, UserStatus::kDisabled, Role::kUser}, f.admin.sign);
  const OrgState& s = f.state();
  CHECK(s.access_at(f.bob.user, f.image, before) == Access::kRead);
  CHECK(s.access_at(f.bob.user, f.image, writer) == Access::kWrite);
  CHECK(s.access(f.bob.user, f.image) == Access::kNone);
  CHECK(s.access_at(f.bob.user, f.image, 0) == Access::kNone);
  CHECK(s.keys_at(f.bob.user, writer)->sign_key == old_keys);
  CHECK(s.keys_at(f.bob.user, changed)->sign_key == renewed.sign.public_key);
  CHECK(!s.keys_at(f.bob.user, 0));
  CHECK(s.was_active(f.bob.user, changed));
  CHECK(!s.is_active(f.bob.user));
  CHECK(s.user_of_key(old_keys)->id == f.bob.user);
  CHECK(s.role_of(old_keys) == SignerRole::kStranger);
  CHECK(s.hash_at(before).is_zero() == false);
  CHECK(s.hash_at(10'000).is_zero());
}

TEST_CASE("state: lists, quotas and wipes say what the records said") {
  OrgFixture f(seed());
  CHECK(f.state().users().size() == 4);
  CHECK(f.state().machines().size() == 2);
  CHECK(f.state().joins().size() == 2);
  CHECK(f.state().image_list(f.master).size() == 2);
  CHECK(f.state().images_of(f.bob.user).size() == 2);
  CHECK(f.state().quota(f.bob.user).bytes == 0);
  f.say(Quota{kEveryone, 10, 11, 12}, f.admin.sign);
  f.say(Quota{f.bob.user, 20, 21, 22}, f.admin.sign);
  CHECK(f.state().quota(f.alice.user).bytes == 10);
  CHECK(f.state().quota(f.bob.user).images == 21);

  CHECK(!wipe_due(f.state(), f.laptop));
  f.say(MachineWipe{f.laptop.machine, true}, f.admin.sign);
  const auto due = wipe_due(f.state(), f.laptop);
  REQUIRE(due);
  CHECK(due->spare_unsent);
  CHECK(!wipe_due(f.state(), f.desk));
  f.laptop.obeyed_wipe_seq = due->seq;  // once is enough, a replay changes nothing
  CHECK(!wipe_due(f.state(), f.laptop));
  f.say(MachineWipe{f.laptop.machine, false}, f.admin.sign);
  CHECK(!wipe_due(f.state(), f.laptop)->spare_unsent);
}

TEST_CASE("state: keys are due once somebody has lost a right, until the next epoch") {
  OrgFixture f(seed());
  std::uint32_t of_image = 1, of_domain = 1;
  const auto image_due = [&] { return f.state().image_keys_due(f.image); };
  const auto domain_due = [&] { return f.state().domain_keys_due(f.domain, {f.image, f.master}); };
  const auto renew = [&] {
    f.say(f.epoch(KeyScope::kImage, scope_id(f.image), ++of_image), f.alice.sign);
    f.say(f.epoch(KeyScope::kDomain, scope_id(f.domain), ++of_domain), f.admin.sign);
    CHECK(!image_due());
    CHECK(!domain_due());
  };
  const auto list = [&](const UserId& user, Access access) {
    f.say(ImageAcl{f.image, user, access}, f.alice.sign);
  };
  const auto state = [&](const UserSecrets& user, UserStatus status, Role role) {
    f.say(UserState{user.user, status, role}, f.admin.sign);
  };
  CHECK(!image_due());
  CHECK(!domain_due());

  // More is no loss.
  list(f.bob.user, Access::kWrite);
  CHECK(!image_due());
  CHECK(!domain_due());
  list(f.bob.user, Access::kRead);
  CHECK(image_due());
  CHECK(domain_due());
  renew();
  list(f.bob.user, Access::kNone);
  CHECK(image_due());
  CHECK(!domain_due());  // he wrote nothing
  renew();

  // Everyone's line: who has one of his own loses nothing.
  list(kEveryone, Access::kRead);
  list(f.bob.user, Access::kRead);
  list(f.oper.user, Access::kRead);
  list(f.admin.user, Access::kRead);
  list(kEveryone, Access::kNone);
  CHECK(!image_due());
  list(kEveryone, Access::kWrite);
  list(kEveryone, Access::kRead);
  CHECK(image_due());
  CHECK(domain_due());
  renew();

  // Disabled is not removed.
  state(f.bob, UserStatus::kDisabled, Role::kUser);
  CHECK(!image_due());
  state(f.bob, UserStatus::kActive, Role::kUser);
  CHECK(!image_due());
  state(f.bob, UserStatus::kDisabled, Role::kUser);
  state(f.bob, UserStatus::kRemoved, Role::kUser);
  CHECK(image_due());
  CHECK(!domain_due());
  renew();
  CHECK(f.state().image_keys_due(f.master));  // everyone read it, he too
  f.say(f.epoch(KeyScope::kImage, scope_id(f.master), 2), f.admin.sign);
  CHECK(!f.state().image_keys_due(f.master));

  // An operator writes the organisation's domain; below that one who may write an image in it does.
  state(f.oper, UserStatus::kActive, Role::kUser);
  CHECK(!domain_due());  // the master
  CHECK(f.state().domain_keys_due(f.domain, {f.image}));
  f.say(ImageAcl{f.master, f.oper.user, Access::kRead}, f.admin.sign);
  CHECK(domain_due());
  renew();

  // Other keys of who administers it, and of nobody else.
  const auto renewed = [&](UserSecrets& user) {
    auto fresh = bare_user(f.org, f.random);
    fresh.user = user.user;
    f.say(key_change_of(fresh), user.sign);
    user.sign = fresh.sign.clone();
  };
  renewed(f.oper);
  CHECK(!image_due());
  CHECK(!domain_due());
  renewed(f.alice);
  CHECK(image_due());
  CHECK(!domain_due());
  renew();
  renewed(f.admin);
  CHECK(!image_due());
  CHECK(domain_due());
  renew();
  // With escrow an administrator has had every key; without it, his role alone gives him none.
  const auto boss = bare_user(f.org, f.random);
  f.say(certificate_of(boss, "boss", Role::kAdministrator), f.admin.sign);
  f.say(f.epoch(KeyScope::kDomain, scope_id(f.domain), ++of_domain), f.admin.sign);
  state(boss, UserStatus::kActive, Role::kUser);
  CHECK(!image_due());
  state(boss, UserStatus::kActive, Role::kAdministrator);
  Policy policy = f.state().policy();
  policy.escrow = true;
  f.say(policy, f.admin.sign);
  CHECK(!image_due());
  state(boss, UserStatus::kRemoved, Role::kAdministrator);
  CHECK(image_due());
  renew();

  CHECK(!f.state().image_keys_due(f.random.id<ImageId>()));
  CHECK(!f.state().domain_keys_due(f.random.id<DomainId>(), {}));
}
