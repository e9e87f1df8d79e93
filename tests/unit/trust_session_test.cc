// Session certificates and the versions that they vouch for: out of time, for another machine or
// image, by another user, with another's key, after a revocation, of an ended epoch.
#include <catch2/catch.hpp>

#include "common/trust/signer_policy.h"
#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

namespace {

struct SessionFixture {
  explicit SessionFixture(std::uint64_t random_seed = seed())
      : f(random_seed), key(new_signer(f.random)) {
    certificate = make(f.alice, {{f.image, Access::kWrite}, {f.master, Access::kRead}});
  }
  SessionCertificate make(const UserSecrets& user, std::vector<SessionImage> images) {
    return make_session(f.state(), user.user, f.laptop.machine, std::move(images), f.now_s,
                        f.now_s + 3600, key, user.sign);
  }
  SessionUse use(Access need = Access::kWrite) const {
    return {f.laptop.machine, f.image, need, f.now_s};
  }
  format::VersionRecord version() const {
    format::VersionRecord v;
    v.org = f.org;
    v.image = f.image;
    v.image_epoch = 1;
    v.sequence = 7;
    v.machine = f.laptop.machine;
    v.signer = key.public_key;
    v.time_unix_ns = f.now_s * 1'000'000'000;
    return v;
  }
  OrgFixture f;
  crypto::SecretSigner key;
  SessionCertificate certificate;
};

// Of what was changed, by the two keys that vouch for it (docs/formats/session.md).
SessionCertificate signed_again(SessionCertificate c, const crypto::SecretSigner& session,
                                const crypto::SecretSigner& user) {
  const auto without = [&](std::size_t signatures) {
    Bytes bytes = encode_session(c);
    bytes.resize(bytes.size() - signatures * Signature::kBytes);
    return bytes;
  };
  c.proof = session.sign("session-proof", c.org, without(2));
  c.signature = user.sign("session", c.org, without(1));
  return c;
}

}  // namespace

TEST_CASE("session: good for its machine, images and time, and for nothing else") {
  SessionFixture s;
  const OrgState& org = s.f.state();
  MUST(check_session_use(org, s.certificate, s.use()));
  auto use = s.use();
  use.machine = s.f.desk.machine;
  REFUSED(check_session_use(org, s.certificate, use), ErrorCode::kUntrusted);
  use = s.use();
  use.image = s.f.random.id<ImageId>();
  REFUSED(check_session_use(org, s.certificate, use), ErrorCode::kUntrusted);
  use.image = s.f.master;
  REFUSED(check_session_use(org, s.certificate, use), ErrorCode::kUntrusted);  // reads only
  use.need = Access::kRead;
  MUST(check_session_use(org, s.certificate, use));
  use = s.use();
  use.now_unix_s = s.f.now_s - kClockSkew_s;
  MUST(check_session_use(org, s.certificate, use));
  use.now_unix_s = s.f.now_s - kClockSkew_s - 1;
  REFUSED(check_session_use(org, s.certificate, use), ErrorCode::kDeadlineExceeded);
  use.now_unix_s = s.f.now_s + 3600 + kClockSkew_s;
  MUST(check_session_use(org, s.certificate, use));
  use.now_unix_s += 1;
  REFUSED(check_session_use(org, s.certificate, use), ErrorCode::kDeadlineExceeded);
}

TEST_CASE("session: every bent byte and every cut is found") {
  SessionFixture s;
  const Bytes good = encode_session(s.certificate);
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes bent = good;
    bent[i] ^= 0x04;
    const auto decoded = decode_session(bent);
    INFO("byte " << i);
    if (decoded.ok()) CHECK(!check_session(s.f.state(), *decoded).ok());
    CHECK(!decode_session(ByteView(good).first(i)).ok());
  }
  auto twice = s.certificate;
  twice.images.push_back(twice.images.front());
  REFUSED(decode_session(encode_session(twice)), ErrorCode::kCorrupt);
  twice.images.clear();
  REFUSED(decode_session(encode_session(twice)), ErrorCode::kCorrupt);
  twice.images.assign(kSessionImagesMax + 1, {});
  REFUSED(decode_session(encode_session(twice)), ErrorCode::kCorrupt);
}

TEST_CASE("session: nobody certifies more than he has, another's key, or for another") {
  SessionFixture s;
  const OrgState& org = s.f.state();
  REFUSED(check_session(org, s.make(s.f.bob, {{s.f.image, Access::kWrite}})),
          ErrorCode::kUntrusted);
  MUST(check_session(org, s.make(s.f.bob, {{s.f.image, Access::kRead}})));
  // Bob takes the key of Alice's session for his own: he cannot prove it.
  auto stolen = s.make(s.f.bob, {{s.f.image, Access::kRead}});
  const auto other = new_signer(s.f.random);
  stolen = make_session(org, s.f.bob.user, s.f.laptop.machine, {{s.f.image, Access::kRead}},
                        s.f.now_s, s.f.now_s + 60, other, s.f.bob.sign);
  stolen.session_key = s.key.public_key;
  REFUSED(check_session(org, stolen), ErrorCode::kUntrusted);
  // Signed by Bob in Alice's name.
  auto forged = s.certificate;
  forged.signature = s.f.bob.sign.sign("session", s.f.org, encode_session(forged));
  REFUSED(check_session(org, forged), ErrorCode::kUntrusted);
  // Another organisation's, and a log that is behind or another.
  OrgFixture theirs(seed() + 1);
  REFUSED(check_session(theirs.state(), s.certificate), ErrorCode::kUntrusted);
  s.f.say(Policy{}, s.f.admin.sign);
  const auto later = s.make(s.f.alice, {{s.f.image, Access::kWrite}});
  OrgFixture behind(seed());
  REFUSED(check_session(behind.state(), later), ErrorCode::kOtherHistory);
  behind.say(Quota{kEveryone, 1, 1, 1}, behind.admin.sign);
  REFUSED(check_session(behind.state(), later), ErrorCode::kOtherHistory);
}

TEST_CASE("session: a right that is lost ends it now and leaves what was written") {
  using Change = void (*)(OrgFixture&);
  const Change changes[] = {
      [](OrgFixture& f) {
        f.say(UserState{f.alice.user, UserStatus::kDisabled, Role::kUser}, f.admin.sign);
      },
      [](OrgFixture& f) { f.say(MachineRevoke{f.laptop.machine}, f.admin.sign); },
      [](OrgFixture& f) {
        f.say(ImageAcl{f.image, f.alice.user, Access::kRead}, f.admin.sign);
      },
      [](OrgFixture& f) {
        auto renewed = bare_user(f.org, f.random);
        renewed.user = f.alice.user;
        f.say(key_change_of(renewed), f.admin.sign);
      },
  };
  for (const Change change : changes) {
    SessionFixture s;
    change(s.f);
    REFUSED(check_session_use(s.f.state(), s.certificate, s.use()), ErrorCode::kPermissionDenied);
    MUST(check_session(s.f.state(), s.certificate));
    MUST(check_version_signer(s.f.state(), s.version(), s.version().image, s.certificate));
  }
}

TEST_CASE("session: its length is cut to the policy's") {
  SessionFixture s;
  s.f.say(Policy{true, 5, 0, 100, false}, s.f.admin.sign);
  const auto cut = s.make(s.f.alice, {{s.f.image, Access::kWrite}});
  CHECK(cut.to_unix_s == s.f.now_s + 100);
  MUST(check_session(s.f.state(), cut));
  // The policy of its place in the log counts: one that was longer stays good.
  MUST(check_session(s.f.state(), s.certificate));
  // Who makes it himself does not cut it: he signs on a log whose policy he bends.
  OrgFixture bent(seed());
  const auto longest = bent.state().policy().session_max_s;
  const auto make = [&](std::uint64_t lasts) {
    auto generous = bent.state();
    Policy policy = generous.policy();
    policy.session_max_s = 366 * 86400;
    const auto said = bent.make(policy, bent.admin.sign);
    MUST(generous.apply(said));
    auto c =
        make_session(generous, bent.alice.user, bent.laptop.machine, {{bent.image, Access::kWrite}},
                     bent.now_s, bent.now_s + lasts, s.key, bent.alice.sign);
    c.position = bent.state().position();
    return signed_again(c, s.key, bent.alice.sign);
  };
  MUST(check_session(bent.state(), make(longest)));
  REFUSED(check_session(bent.state(), make(longest + 1)), ErrorCode::kUntrusted);
}

TEST_CASE("version: another's, elsewhere, out of time is refused") {
  SessionFixture s;
  const OrgState& org = s.f.state();
  const auto refused = [&](auto change) {
    auto v = s.version();
    change(v);
    REFUSED(check_version_signer(org, v, v.image, s.certificate), ErrorCode::kUntrusted);
  };
  MUST(check_version_signer(org, s.version(), s.f.image, s.certificate));
  MUST(may_commit(org, s.version(), s.f.image, s.certificate));
  refused([&](auto& v) { v.org = {}; });
  refused([&](auto& v) { v.image = s.f.master; });
  refused([&](auto& v) { v.image = s.f.random.template id<ImageId>(); });
  refused([&](auto& v) { v.machine = s.f.desk.machine; });
  refused([&](auto& v) { v.signer = s.f.alice.sign.public_key; });
  refused([&](auto& v) { v.image_epoch = 0; });
  refused([&](auto& v) { v.image_epoch = 2; });
  refused([&](auto& v) { v.time_unix_ns -= (kClockSkew_s + 1) * 1'000'000'000; });
  refused([&](auto& v) { v.time_unix_ns += (3600 + kClockSkew_s + 1) * 1'000'000'000; });

  OrgSigner none(org, s.f.image, [](const PublicKey&) -> Result<Bytes> {
    return make_error(ErrorCode::kNotFound, "no certificate");
  });
  REFUSED(none.check(s.version()), ErrorCode::kNotFound);
  OrgSigner garbage(org, s.f.image, [](const PublicKey&) -> Result<Bytes> { return Bytes(10); });
  REFUSED(garbage.check(s.version()), ErrorCode::kCorrupt);
  REFUSED(KeyFileSigner(s.f.alice.sign.public_key).check(s.version()), ErrorCode::kUntrusted);
}

TEST_CASE("version: after a new epoch a removed writer and a helping server cannot go on") {
  SessionFixture s;
  auto epoch = s.f.epoch(KeyScope::kImage, scope_id(s.f.image), 2);
  auto v = s.version();
  CHECK(head_floor(s.f.state(), s.f.image) == 0);
  epoch.last_sequence = 7;
  epoch.last_version = format::version_id(v);
  s.f.say(UserState{s.f.alice.user, UserStatus::kRemoved, Role::kUser}, s.f.admin.sign);
  s.f.say(epoch, s.f.admin.sign);
  CHECK(head_floor(s.f.state(), s.f.image) == 7);
  CHECK(head_floor(s.f.state(), s.f.master) == 0);
  MUST(check_version_signer(s.f.state(), v, v.image, s.certificate));  // what he had made stays
  v.sequence = 8;
  REFUSED(check_version_signer(s.f.state(), v, v.image, s.certificate), ErrorCode::kUntrusted);
  // Nor another one in the place of the last.
  v.sequence = 7;
  v.root.id = s.f.random.id<ObjectId>();
  REFUSED(check_version_signer(s.f.state(), v, v.image, s.certificate), ErrorCode::kUntrusted);
  v.sequence = 8;
  v.image_epoch = 2;
  REFUSED(check_version_signer(s.f.state(), v, v.image, s.certificate), ErrorCode::kUntrusted);
  // With his old keys he makes a new certificate, backdated to when he had the right.
  auto backdated = s.certificate;
  const auto key = new_signer(s.f.random);
  OrgFixture then(seed());
  backdated =
      make_session(then.state(), s.f.alice.user, s.f.laptop.machine, {{s.f.image, Access::kWrite}},
                   s.f.now_s, s.f.now_s + 3600, key, s.f.alice.sign);
  v.signer = key.public_key;
  for (const std::uint32_t image_epoch : {1u, 2u}) {
    v.image_epoch = image_epoch;
    REFUSED(check_version_signer(s.f.state(), v, v.image, backdated), ErrorCode::kUntrusted);
  }
}

TEST_CASE("version: one of new keys has a number above the last of the old ones") {
  SessionFixture s;
  auto epoch = s.f.epoch(KeyScope::kImage, scope_id(s.f.image), 2);
  auto v = s.version();
  epoch.last_sequence = v.sequence;
  epoch.last_version = format::version_id(v);
  s.f.say(epoch, s.f.alice.sign);
  // A third epoch at the same place: the second one's keys reached nobody.
  epoch = s.f.epoch(KeyScope::kImage, scope_id(s.f.image), 3);
  epoch.last_sequence = v.sequence;
  epoch.last_version = format::version_id(v);
  s.f.say(epoch, s.f.alice.sign);
  MUST(check_version_signer(s.f.state(), v, v.image, s.certificate));
  const auto since = s.make(s.f.alice, {{s.f.image, Access::kWrite}});
  for (const std::uint32_t number : {2u, 3u}) {
    v.image_epoch = number;
    v.sequence = 7;
    REFUSED(check_version_signer(s.f.state(), v, v.image, since), ErrorCode::kUntrusted);
  }
  v.sequence = 8;
  MUST(check_version_signer(s.f.state(), v, v.image, since));
  // Of a branch nobody has signed which was the last.
  v.image = s.f.random.id<ImageId>();
  v.sequence = 2;
  MUST(check_version_signer(s.f.state(), v, s.f.image, since));
}

TEST_CASE("version: keys that were renewed before the first version leave it alone") {
  SessionFixture s;
  s.f.say(s.f.epoch(KeyScope::kImage, scope_id(s.f.image), 2), s.f.alice.sign);
  const auto since = s.make(s.f.alice, {{s.f.image, Access::kWrite}});
  auto v = s.version();
  v.image_epoch = 2;
  v.sequence = 1;
  MUST(check_version_signer(s.f.state(), v, v.image, since));
  v.image_epoch = 1;
  REFUSED(check_version_signer(s.f.state(), v, v.image, s.certificate), ErrorCode::kUntrusted);
}

TEST_CASE("version: a branch longer than its image stays readable after new keys") {
  SessionFixture s;
  auto epoch = s.f.epoch(KeyScope::kImage, scope_id(s.f.image), 2);
  epoch.last_sequence = 7;
  auto v = s.version();
  v.image = s.f.random.id<ImageId>();
  v.sequence = 20;
  MUST(may_commit(s.f.state(), v, s.f.image, s.certificate));
  s.f.say(epoch, s.f.admin.sign);
  MUST(check_version_signer(s.f.state(), v, s.f.image, s.certificate));
  // But nothing new under the old keys, whatever its number.
  for (const std::uint64_t sequence : {3u, 20u}) {
    v.sequence = sequence;
    REFUSED(may_commit(s.f.state(), v, s.f.image, s.certificate), ErrorCode::kUntrusted);
  }
  REFUSED(check_version_signer(s.f.state(), v, s.f.random.id<ImageId>(), s.certificate),
          ErrorCode::kUntrusted);
}
