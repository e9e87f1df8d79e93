// Short words of the trust tests.
#pragma once

#include <catch2/catch.hpp>

#include "tests/support/org_fixture.h"
#include "tests/support/seed.h"

#define MUST(expr)                                                \
  do {                                                            \
    const auto& must_status = (expr);                             \
    if (!must_status.ok()) FAIL(must_status.error().to_string()); \
  } while (0)

// That it fails, and as what.
#define REFUSED(expr, wanted)                                                       \
  do {                                                                              \
    const auto& refused_status = (expr);                                            \
    if (refused_status.ok()) FAIL("accepted: " #expr);                              \
    INFO(refused_status.error().to_string());                                       \
    CHECK(error_code_name(refused_status.error().code) == error_code_name(wanted)); \
    CHECK(!refused_status.error().message.empty());                                 \
  } while (0)

namespace dims::test {

// Signs anything as anybody: what a malicious member or server can put together.
inline trust::LogRecord forge(const OrgId& org, const trust::Position& after, std::uint64_t time,
                              const trust::Body& body, const crypto::SecretSigner& signer) {
  return trust::make_record(org, &after, time, body, signer);
}

inline crypto::SecretSigner new_signer(Random& random) {
  return crypto::SecretSigner::from_seed(crypto::SecretKey::random(random));
}

// One good body of each kind that may follow the fixture's log, and who may sign it.
struct Saying {
  trust::Body body;
  const crypto::SecretSigner* signer;
};
inline std::vector<Saying> one_of_each(OrgFixture& f) {
  using namespace trust;
  // Newcomers' secrets are not needed after their certificates are made.
  const auto newcomer = bare_user(f.org, f.random);
  auto renewed = f.bob.clone();
  renewed.sign = new_signer(f.random);
  renewed.box = crypto::BoxKey::from_seed(crypto::SecretKey::random(f.random));
  const auto tablet = make_machine(f.org, "tablet", f.random);
  return {
      {certificate_of(newcomer, "newcomer", Role::kUser), &f.admin.sign},
      {UserState{f.oper.user, UserStatus::kActive, Role::kOperator}, &f.admin.sign},
      {key_change_of(renewed), &f.bob.sign},
      {tablet.certificate(), &f.oper.sign},
      {MachineRevoke{f.desk.machine}, &f.oper.sign},
      {MachineWipe{f.laptop.machine, true}, &f.admin.sign},
      {JoinKey{new_signer(f.random).public_key, true, "", Role::kUser, {}, f.now_s + 60},
       &f.oper.sign},
      {JoinCancel{f.machine_join.public_key}, &f.oper.sign},
      {ImageAcl{f.image, f.bob.user, Access::kWrite}, &f.alice.sign},
      {f.epoch(KeyScope::kImage, scope_id(f.image), 2), &f.alice.sign},
      {Policy{}, &f.admin.sign},
      {Quota{f.bob.user, 1, 2, 3}, &f.admin.sign},
  };
}

}  // namespace dims::test
