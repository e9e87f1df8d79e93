// Grants in the hands of a malicious server or member.
#include <catch2/catch.hpp>

#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

namespace {

struct Target {
  KeyScope scope;
  ScopeId id;
  std::uint32_t epoch;
};

struct GrantFixture {
  explicit GrantFixture(std::uint64_t random_seed) : f(random_seed) {
    f.say(f.epoch(KeyScope::kImage, scope_id(f.image), 2), f.alice.sign);
    f.say(f.epoch(KeyScope::kDomain, scope_id(f.domain), 2), f.admin.sign);
    f.say(f.epoch(KeyScope::kDomain, scope_id(f.alice.private_domain), 1), f.alice.sign);
    targets = {{KeyScope::kImage, scope_id(f.image), 1},
               {KeyScope::kImage, scope_id(f.image), 2},
               {KeyScope::kImage, scope_id(f.master), 1},
               {KeyScope::kDomain, scope_id(f.domain), 1},
               {KeyScope::kDomain, scope_id(f.domain), 2}};
  }
  Bytes grant(const Target& t, const UserSecrets& to) const {
    const auto made = make_grant(f.state(), t.scope, t.id, t.epoch, f.key_of_epoch(t.id, t.epoch),
                                 to.user, f.admin.user, f.admin.sign);
    if (!made.ok()) FAIL(made.error().to_string());
    return *made;
  }
  OrgFixture f;
  std::vector<Target> targets;
};

// Header, box and signature of a grant, as docs/formats/grant.md says.
constexpr std::size_t kBoxAt = kGrantBytes - kGrantBoxBytes - 64;

}  // namespace

TEST_CASE("grant: each opens for its recipient only, and says which secret it is") {
  const GrantFixture g(seed());
  for (const Target& t : g.targets) {
    const Bytes bytes = g.grant(t, g.f.bob);
    MUST(check_grant(g.f.state(), *decode_grant(bytes)));
    CHECK(open_grant(g.f.state(), bytes, g.f.bob.user, g.f.bob.box)->key() ==
          g.f.key_of_epoch(t.id, t.epoch));
    REFUSED(open_grant(g.f.state(), bytes, g.f.alice.user, g.f.alice.box), ErrorCode::kUntrusted);
    REFUSED(open_grant(g.f.state(), bytes, g.f.bob.user, g.f.alice.box), ErrorCode::kUntrusted);
    REFUSED(open_grant(g.f.state(), bytes, g.f.alice.user, g.f.bob.box), ErrorCode::kUntrusted);
  }
}

TEST_CASE("grant: every bent byte and every cut is found") {
  const GrantFixture g(seed());
  const Bytes good = g.grant(g.targets[0], g.f.bob);
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes bent = good;
    bent[i] ^= 0x01;
    INFO("byte " << i);
    CHECK(!open_grant(g.f.state(), bent, g.f.bob.user, g.f.bob.box).ok());
    CHECK(!decode_grant(ByteView(good).first(i)).ok());
  }
}

TEST_CASE("grant: parts exchanged between recipients, images, epochs, domains are found") {
  const GrantFixture g(seed());
  // A malicious server swaps any part of any two grants; a malicious member who may grant signs
  // the mixture besides. Whole grants given in another's place are refused by what they name.
  for (const Target& a : g.targets) {
    for (const Target& b : g.targets) {
      for (const UserSecrets* to : {&g.f.bob, &g.f.alice}) {
        if (a.id == b.id && a.epoch == b.epoch && to == &g.f.bob) continue;
        const Bytes mine = g.grant(a, g.f.bob), other = g.grant(b, *to);
        Bytes box_moved = mine;
        std::copy(other.begin() + kBoxAt, other.end() - 64, box_moved.begin() + kBoxAt);
        CHECK(!open_grant(g.f.state(), box_moved, g.f.bob.user, g.f.bob.box).ok());
        Bytes tail_moved = mine;
        std::copy(other.begin() + kBoxAt, other.end(), tail_moved.begin() + kBoxAt);
        CHECK(!open_grant(g.f.state(), tail_moved, g.f.bob.user, g.f.bob.box).ok());
        // Signed anew by an administrator: the box itself knows its header.
        const auto sig =
            g.f.admin.sign.sign("grant", g.f.org, ByteView(box_moved).first(kGrantBytes - 64));
        std::copy(sig.bytes.begin(), sig.bytes.end(), box_moved.end() - 64);
        const auto opened = open_grant(g.f.state(), box_moved, g.f.bob.user, g.f.bob.box);
        REQUIRE(!opened.ok());
        CHECK(opened.error().code ==
              (to == &g.f.bob ? ErrorCode::kUntrusted : ErrorCode::kWrongKey));
      }
    }
  }
}

TEST_CASE("grant: who may not grant cannot, and a wrong secret is not passed on") {
  const GrantFixture g(seed());
  const OrgState& s = g.f.state();
  const ScopeId image = scope_id(g.f.image), domain = scope_id(g.f.domain);
  const Secret32 key = g.f.key_of_epoch(image, 2);
  // Bob may read the image, the operator nothing: neither may grant it to anybody else.
  for (const auto& [to, who] : {std::pair(&g.f.oper, &g.f.bob), std::pair(&g.f.bob, &g.f.oper)})
    REFUSED(make_grant(s, KeyScope::kImage, image, 2, key, to->user, who->user, who->sign),
            ErrorCode::kUntrusted);
  // What he has he may seal for himself: for new keys of his.
  const auto anew =
      make_grant(s, KeyScope::kImage, image, 2, key, g.f.bob.user, g.f.bob.user, g.f.bob.sign);
  MUST(anew);
  MUST(open_grant(s, *anew, g.f.bob.user, g.f.bob.box));
  REFUSED(make_grant(s, KeyScope::kImage, image, 2, key, g.f.bob.user, g.f.bob.user, g.f.oper.sign),
          ErrorCode::kUntrusted);
  REFUSED(make_grant(s, KeyScope::kImage, image, 2, Secret32{}, g.f.bob.user, g.f.bob.user,
                     g.f.bob.sign),
          ErrorCode::kWrongKey);
  REFUSED(make_grant(s, KeyScope::kDomain, domain, 2, g.f.key_of_epoch(domain, 2), g.f.bob.user,
                     g.f.alice.user, g.f.alice.sign),
          ErrorCode::kUntrusted);
  // Signed with another's key, or for nobody, or for an epoch that is not.
  REFUSED(
      make_grant(s, KeyScope::kImage, image, 2, key, g.f.bob.user, g.f.alice.user, g.f.bob.sign),
      ErrorCode::kUntrusted);
  REFUSED(make_grant(s, KeyScope::kImage, image, 2, key, UserId{}, g.f.alice.user, g.f.alice.sign),
          ErrorCode::kNotFound);
  REFUSED(
      make_grant(s, KeyScope::kImage, image, 3, key, g.f.bob.user, g.f.alice.user, g.f.alice.sign),
      ErrorCode::kNotFound);
  REFUSED(
      make_grant(s, KeyScope::kImage, image, 1, key, g.f.bob.user, g.f.alice.user, g.f.alice.sign),
      ErrorCode::kWrongKey);
  // A private domain is its owner's to grant, not the administrator's.
  const ScopeId own = scope_id(g.f.alice.private_domain);
  MUST(make_grant(s, KeyScope::kDomain, own, 1, g.f.key_of_epoch(own, 1), g.f.bob.user,
                  g.f.alice.user, g.f.alice.sign));
  REFUSED(make_grant(s, KeyScope::kDomain, own, 1, g.f.key_of_epoch(own, 1), g.f.bob.user,
                     g.f.admin.user, g.f.admin.sign),
          ErrorCode::kUntrusted);
}

TEST_CASE("grant: an administrator who hands out another secret than he announced is found") {
  GrantFixture g(seed());
  // His own log, in which the epoch has another commitment, gives him a grant that fits it.
  OrgFixture lie(seed());
  auto record = lie.epoch(KeyScope::kImage, scope_id(lie.image), 2);
  const Secret32 wrong = lie.random.id<Secret32>();
  record.commitment = epoch_commitment(KeyScope::kImage, scope_id(lie.image), 2, wrong);
  lie.say(record, lie.alice.sign);
  const auto grant = make_grant(lie.state(), KeyScope::kImage, scope_id(lie.image), 2, wrong,
                                lie.bob.user, lie.alice.user, lie.alice.sign);
  MUST(grant);
  MUST(open_grant(lie.state(), *grant, lie.bob.user, lie.bob.box));
  REFUSED(open_grant(g.f.state(), *grant, g.f.bob.user, g.f.bob.box), ErrorCode::kOtherHistory);
}

TEST_CASE("grant: made on a log ahead or on another log, or older than its epoch") {
  GrantFixture g(seed());
  const Target t = g.targets[1];
  const Bytes good = g.grant(t, g.f.bob);
  OrgFixture behind(seed());
  REFUSED(open_grant(behind.state(), good, behind.bob.user, behind.bob.box),
          ErrorCode::kOtherHistory);
  // Backdated to before the epoch, signed by one who could grant then.
  auto decoded = *decode_grant(good);
  decoded.position = {1, g.f.state().hash_at(1)};
  REFUSED(check_grant(g.f.state(), decoded), ErrorCode::kUntrusted);
}

TEST_CASE("grant: to a recipient whose keys have changed it opens no more") {
  GrantFixture g(seed());
  const Bytes old = g.grant(g.targets[0], g.f.bob);
  auto renewed = bare_user(g.f.org, g.f.random);
  renewed.user = g.f.bob.user;
  g.f.say(key_change_of(renewed), g.f.bob.sign);
  REFUSED(open_grant(g.f.state(), old, g.f.bob.user, renewed.box), ErrorCode::kUntrusted);
  MUST(open_grant(g.f.state(), g.grant(g.targets[0], renewed), g.f.bob.user, renewed.box));
  // A granter who is removed: what he granted before stays good, afterwards nothing.
  const auto by_alice = [&] {
    return make_grant(g.f.state(), KeyScope::kImage, scope_id(g.f.image), 2,
                      g.f.key_of_epoch(scope_id(g.f.image), 2), renewed.user, g.f.alice.user,
                      g.f.alice.sign);
  };
  const auto before = by_alice();
  MUST(before);
  g.f.say(UserState{g.f.alice.user, UserStatus::kRemoved, Role::kUser}, g.f.admin.sign);
  MUST(open_grant(g.f.state(), *before, renewed.user, renewed.box));
  REFUSED(by_alice(), ErrorCode::kUntrusted);
  // Nor backdated into a later epoch.
  g.f.say(g.f.epoch(KeyScope::kImage, scope_id(g.f.image), 3), g.f.admin.sign);
  auto backdated = *decode_grant(*before);
  backdated.epoch = 3;
  REFUSED(check_grant(g.f.state(), backdated), ErrorCode::kUntrusted);
}
