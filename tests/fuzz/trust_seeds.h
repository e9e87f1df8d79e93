// A small organisation for the fuzz targets of common/trust: its log, two users, a machine.
#pragma once

#include <cstdlib>

#include "common/crypto/aead.h"
#include "common/crypto/hash.h"
#include "common/trust/grant.h"
#include "common/trust/machine_file.h"
#include "common/trust/org_log.h"
#include "common/trust/user_record.h"
#include "tests/fuzz/fuzz_input.h"

namespace dims::fuzz {

struct SmallOrg {
  SeededRandom random{1};
  crypto::SecretSigner root = signer();
  OrgId org = trust::org_of(root.public_key);
  DomainId domain = random.id<DomainId>();
  trust::UserSecrets admin = user(), member = user();
  trust::MachineFile machine = trust::make_machine(org, "laptop", random);
  ImageId image = random.id<ImageId>();
  Secret32 secret = random.id<Secret32>();
  std::vector<Bytes> records;
  std::optional<trust::OrgLog> log;

  static SmallOrg& get() {
    static SmallOrg org;
    return org;
  }
  crypto::SecretSigner signer() {
    return crypto::SecretSigner::from_seed(crypto::SecretKey::random(random));
  }
  trust::UserSecrets user() {
    return {org,
            random.id<trust::UserId>(),
            crypto::SecretKey::random(random),
            signer(),
            crypto::BoxKey::from_seed(crypto::SecretKey::random(random)),
            random.id<DomainId>(),
            crypto::SecretKey::random(random)};
  }
  trust::LogRecord make(const trust::Body& body, const crypto::SecretSigner& by) const {
    const trust::Position at = log->position();
    return trust::make_record(org, &at, 1000, body, by);
  }

 private:
  SmallOrg() {
    using namespace trust;
    records = {
        make_record(org, nullptr, 1000, OrgInit{root.public_key, domain, "org"}, root).bytes};
    log = *OrgLog::open(org, records);
    const ScopeId id = scope_id(image);
    for (const Body& body :
         {Body(certificate_of(admin, "admin", Role::kAdministrator)),
          Body(certificate_of(member, "member", Role::kUser)), Body(machine.certificate()),
          Body(ImageAcl{image, member.user, Access::kWrite}),
          Body(KeyEpoch{KeyScope::kImage,
                        id,
                        1,
                        epoch_commitment(KeyScope::kImage, id, 1, secret),
                        0,
                        {}})}) {
      const LogRecord record = make(body, root);
      if (!log->append(record.bytes, log->position()).ok()) std::abort();
      records.push_back(record.bytes);
    }
  }
};

inline Bytes with_kind(std::uint8_t kind, ByteView bytes) {
  Bytes out{kind};
  out.insert(out.end(), bytes.begin(), bytes.end());
  return out;
}

inline void same(const Bytes& made, ByteView given) {
  if (!std::equal(made.begin(), made.end(), given.begin(), given.end())) std::abort();
}

}  // namespace dims::fuzz
