// From open keys of a person to the keys of one image: grants opened, a session's key certified.
//
// Threads: free functions. Ownership: values; check_signer of the keys shares the log and the
// certificate source. Errors: kPermissionDenied (no access, or a grant is missing), those of
// trust::open_grant(). Durable: nothing.
#pragma once

#include "common/client/member.h"
#include "common/format/key_file.h"
#include "common/trust/grant.h"
#include "common/trust/session.h"
#include "common/trust/signer_policy.h"

namespace dims::client {

// A person's own grants for a domain or image: from the server, or from what is kept.
using Grants = std::function<Result<std::vector<Bytes>>(trust::KeyScope, const trust::ScopeId&)>;
// Certificates of sessions that signed versions of an image.
using Certificates = std::function<Result<Bytes>(const ImageId&, const trust::PublicKey&)>;

Grants grants_from(AccessClient& access);
Certificates certificates_from(AccessClient& access);

// The secret of one epoch. kPermissionDenied: nobody has granted it (yet).
Result<crypto::SecretKey> epoch_secret(const trust::OrgState& org,
                                       const trust::UserSecrets& secrets, const Grants& grants,
                                       trust::KeyScope scope, const trust::ScopeId& id,
                                       std::uint32_t epoch);

// Whether a version of an image, or of a branch of it, was made by who may write it. `own`: the
// key of this very session, whose certificate nobody need be asked for.
std::function<Status(const format::VersionRecord&)> signer_check(
    std::shared_ptr<const trust::OrgLog> log, const ImageId& image, Certificates certificates,
    const trust::PublicKey& own);

struct ImageWanted {
  ImageId image;
  DomainId domain;  // that its new objects are sealed in
  trust::Access access = trust::Access::kRead;
};

// Keys of an image for one session. For writing, the newest epochs must have been granted.
// `session`: the key that versions are signed with.
Result<format::KeyFile> image_keys(std::shared_ptr<const trust::OrgLog> log,
                                   const trust::UserSecrets& secrets, const Grants& grants,
                                   const Certificates& certificates, const ImageWanted& wanted,
                                   const MachineId& machine, const crypto::SecretSigner& session);

// What wraps a user's local files on a machine.
Secret32 local_key_of(const trust::UserSecrets& secrets);

}  // namespace dims::client
