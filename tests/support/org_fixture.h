// An organisation for tests: its log with an administrator, an operator, two users, two machines
// and two images, and all their keys, from a seed. No passphrases are stretched here: it is quick.
#pragma once

#include <catch2/catch.hpp>

#include <map>

#include "common/crypto/hash.h"
#include "common/trust/grant.h"
#include "common/trust/machine_file.h"
#include "common/trust/org_log.h"
#include "common/trust/user_record.h"

namespace dims::test {

// A user's keys without a record or passphrase.
inline trust::UserSecrets bare_user(const OrgId& org, Random& random) {
  return {org,
          random.id<trust::UserId>(),
          crypto::SecretKey::random(random),
          crypto::SecretSigner::from_seed(crypto::SecretKey::random(random)),
          crypto::BoxKey::from_seed(crypto::SecretKey::random(random)),
          random.id<DomainId>(),
          crypto::SecretKey::random(random)};
}

struct OrgFixture {
  explicit OrgFixture(std::uint64_t seed = 1, std::uint64_t now_unix_s = 1'800'000'000);

  // Appends what must be taken; returns its position.
  trust::Position say(const trust::Body& body, const crypto::SecretSigner& signer) {
    const auto record = make(body, signer);
    const Status status = log->append(record.bytes, log->position());
    if (!status.ok()) FAIL(status.error().to_string());
    records.push_back(record.bytes);
    return log->position();
  }
  trust::LogRecord make(const trust::Body& body, const crypto::SecretSigner& signer) const {
    const trust::Position at = log->position();
    return trust::make_record(org, &at, now_s, body, signer);
  }
  const trust::OrgState& state() const { return log->state(); }
  Secret32 key_of_epoch(const trust::ScopeId& id, std::uint32_t epoch) const {
    return crypto::prf(epoch_seed, "test-epoch", {id.view(), ByteView(epoch_bytes(epoch))});
  }
  trust::KeyEpoch epoch(trust::KeyScope scope, const trust::ScopeId& id,
                        std::uint32_t number) const {
    return {scope, id, number, trust::epoch_commitment(scope, id, number, key_of_epoch(id, number)),
            0,     {}};
  }
  static Bytes epoch_bytes(std::uint32_t epoch) {
    return Bytes(4, static_cast<std::uint8_t>(epoch));
  }

  SeededRandom random;
  std::uint64_t now_s;
  crypto::SecretSigner root;
  OrgId org;
  DomainId domain;
  Secret32 epoch_seed;
  std::optional<trust::OrgLog> log;
  std::vector<Bytes> records;

  trust::UserSecrets admin, oper, alice, bob;
  trust::MachineFile laptop, desk;
  crypto::SecretSigner machine_join, user_join;  // open one-time keys
  trust::UserId joining;                         // whom user_join may make: 'dora'
  ImageId image;                                 // alice: admin, bob: read
  ImageId master;                                // everyone: read, oper: write
};

inline OrgFixture::OrgFixture(std::uint64_t seed, std::uint64_t now_unix_s)
    : random(seed),
      now_s(now_unix_s),
      root(crypto::SecretSigner::from_seed(crypto::SecretKey::random(random))),
      org(trust::org_of(root.public_key)),
      domain(random.id<DomainId>()),
      epoch_seed(random.id<Secret32>()),
      admin(bare_user(org, random)),
      oper(bare_user(org, random)),
      alice(bare_user(org, random)),
      bob(bare_user(org, random)),
      laptop(trust::make_machine(org, "laptop", random)),
      desk(trust::make_machine(org, "desk", random)),
      machine_join(crypto::SecretSigner::from_seed(crypto::SecretKey::random(random))),
      user_join(crypto::SecretSigner::from_seed(crypto::SecretKey::random(random))),
      joining(random.id<trust::UserId>()),
      image(random.id<ImageId>()),
      master(random.id<ImageId>()) {
  using namespace trust;
  const auto first =
      make_record(org, nullptr, now_s, OrgInit{root.public_key, domain, "example"}, root);
  auto opened = OrgLog::open(org, {first.bytes});
  if (!opened.ok()) FAIL(opened.error().to_string());
  log = std::move(*opened);
  records = {first.bytes};
  say(certificate_of(admin, "admin", Role::kAdministrator), root);
  say(epoch(KeyScope::kDomain, scope_id(domain), 1), admin.sign);
  say(certificate_of(oper, "oper", Role::kOperator), admin.sign);
  say(certificate_of(alice, "alice", Role::kUser), admin.sign);
  say(certificate_of(bob, "bob", Role::kUser), admin.sign);
  say(laptop.certificate(), admin.sign);
  say(desk.certificate(), oper.sign);
  say(ImageAcl{image, alice.user, Access::kAdmin}, alice.sign);
  say(ImageAcl{image, bob.user, Access::kRead}, alice.sign);
  say(epoch(KeyScope::kImage, scope_id(image), 1), alice.sign);
  say(ImageAcl{master, kEveryone, Access::kRead}, admin.sign);
  say(ImageAcl{master, oper.user, Access::kWrite}, admin.sign);
  say(epoch(KeyScope::kImage, scope_id(master), 1), admin.sign);
  say(JoinKey{machine_join.public_key, true, "", Role::kUser, {}, now_s + 3600}, oper.sign);
  say(JoinKey{user_join.public_key, false, "dora", Role::kUser, joining, now_s + 3600}, admin.sign);
}

}  // namespace dims::test
