// A grant: the secret of one epoch of a domain or image, sealed for one member and signed by who
// gave it (docs/formats/grant.md).
//
// The server stores grants and cannot make, open, or exchange them: the header is signed, stands
// hashed inside the box, names the recipient's very key, and the secret must fit the commitment
// that the log holds for that epoch.
// Threads: thread-safe. Ownership: values. Errors of open_grant(): kCorrupt (form), kUntrusted (not
// this recipient's, a granter without the right, a box or secret that does not fit), kWrongKey (the
// box does not open), kOtherHistory (the granter stood on another log), kNotFound (an epoch that
// the log does not know).
#pragma once

#include "common/trust/org_state.h"

namespace dims::trust {

struct Grant {
  OrgId org;
  KeyScope scope = KeyScope::kImage;
  ScopeId id;
  std::uint32_t epoch = 0;
  UserId recipient;
  Digest recipient_key;  // SHA-256 of his box key
  UserId granter;
  Position position;  // of the log, where the granter stood
  Bytes box;
  Signature signature;  // of the granter, type "grant"
};
// Box of {SHA-256 of the header, secret}.
inline constexpr std::size_t kGrantBoxBytes = 32 + 32 + crypto::kBoxOverheadBytes;
inline constexpr std::size_t kGrantBytes = 344;

ScopeId scope_id(const DomainId& domain);
ScopeId scope_id(const ImageId& image);
// What the log says of a secret without telling it.
Digest epoch_commitment(KeyScope scope, const ScopeId& id, std::uint32_t epoch,
                        const Secret32& secret);

// Checks that the log knows recipient and epoch, that the granter may grant, and that the secret is
// the one of that epoch: who sends a grant that would be refused learns it here.
Result<Bytes> make_grant(const OrgState& org, KeyScope scope, const ScopeId& id,
                         std::uint32_t epoch, const Secret32& secret, const UserId& recipient,
                         const UserId& granter, const crypto::SecretSigner& granter_key);
Result<Grant> decode_grant(ByteView bytes);
// All that can be checked without opening: server and recipient.
Status check_grant(const OrgState& org, const Grant& grant);
// The secret. `reader` is who opens it, `key` his box key.
Result<crypto::SecretKey> open_grant(const OrgState& org, ByteView bytes, const UserId& reader,
                                     const crypto::BoxKey& key);

}  // namespace dims::trust
