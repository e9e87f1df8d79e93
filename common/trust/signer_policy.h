// Whether the signer of a version record may write that image.
//
// One person with a key file: the key file's key and no other. An organisation: a session key whose
// certificate says that a writer of the image made it; and no version of an old image epoch beyond
// the one at which the next epoch began, nor another in the place of that one, nor of an epoch that
// began after the certificate or after that number (so that a removed member, or who has stolen an
// old key, and a server that helps him cannot go on). One of an old epoch with a lower number has
// the right place only if the chain of parents leads from a head to it: a head is none below
// head_floor(), and who takes an older one looks at the chain.
// A conflict branch has the access list and the epochs of the image that it branched from, but
// numbers of its own: which of its versions were the last of an old epoch nobody has signed.
// Reading takes all of them; may_commit() takes none under an old epoch. The parent chain and what
// this machine knew before are the caller's to check, as before. Threads: thread-safe as long as
// the log is not extended meanwhile. Ownership: borrows the state. Errors: kUntrusted; what the
// certificate source returns; those of check_session().
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

  // `listed`: as below.
  OrgSigner(const OrgState& org, const ImageId& listed, Certificates certificates)
      : org_(org), listed_(listed), certificates_(std::move(certificates)) {}
  Status check(const format::VersionRecord& record) override;

 private:
  const OrgState& org_;
  ImageId listed_;
  Certificates certificates_;
};

// The part of it that needs no source. `listed`: the image whose access list and epochs count, the
// record's own or the one that it branched from.
Status check_version_signer(const OrgState& org, const format::VersionRecord& record,
                            const ImageId& listed, const SessionCertificate& certificate);

// The number of the version that the log names as the last under old keys: the image's head is none
// below it. 0: none is named.
std::uint64_t head_floor(const OrgState& org, const ImageId& image);

// Whether it may become a version now: for the server, with the certificate of the committer.
Status may_commit(const OrgState& org, const format::VersionRecord& record, const ImageId& listed,
                  const SessionCertificate& certificate);

}  // namespace dims::trust
