// Whether the signer of a version record may write that image.
//
// One person with a key file: the key file's key and no other. An organisation: a session key whose
// certificate says that a writer of the image made it; and no version of an old image epoch beyond
// the one at which the next epoch began (so that a removed member and a server that helps him
// cannot go on where he was).
// The parent chain and what this machine knew before are the caller's to check, as before.
// Threads: thread-safe as long as the log is not extended meanwhile. Ownership: borrows the state.
// Errors: kUntrusted; what the certificate source returns; those of check_session().
#pragma once

#include <functional>

#include "common/format/version.h"
#include "common/trust/session.h"

namespace dims::trust {

class SignerPolicy {
 public:
  virtual ~SignerPolicy() = default;
  virtual Status check(const format::VersionRecord& record) = 0;
};

class KeyFileSigner : public SignerPolicy {
 public:
  explicit KeyFileSigner(const PublicKey& key) : key_(key) {}
  Status check(const format::VersionRecord& record) override;

 private:
  PublicKey key_;
};

class OrgSigner : public SignerPolicy {
 public:
  // The encoded certificate of a session key: from the server, or from what is cached.
  using Certificates = std::function<Result<Bytes>(const PublicKey& session_key)>;

  OrgSigner(const OrgState& org, Certificates certificates)
      : org_(org), certificates_(std::move(certificates)) {}
  Status check(const format::VersionRecord& record) override;

 private:
  const OrgState& org_;
  Certificates certificates_;
};

// The part of it that needs no source; the server uses it with the certificate of the committer.
Status check_version_signer(const OrgState& org, const format::VersionRecord& record,
                            const SessionCertificate& certificate);

}  // namespace dims::trust
