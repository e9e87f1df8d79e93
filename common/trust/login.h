// Login at a server: who I am, proved by a signature over the server's own challenge.
//
// A proof is bound to the challenge (used once), to the server's certificate (so that nobody in
// between can use it elsewhere), to the organisation, to the user's name and to the machine. The
// server keeps no passphrase and no secret that would do.
// Threads: thread-safe. Ownership: values. Errors: verification is kPermissionDenied with one text
// for every reason: unknown user, wrong passphrase, wrong machine are the same to who asks.
#pragma once

#include <optional>

#include "common/trust/org_state.h"

namespace dims::trust {

using LoginNonce = Id<struct LoginNonceTag, 32>;
using SessionToken = Id<struct SessionTokenTag, 32>;  // secret; metadata of every later call

struct LoginContext {
  OrgId org;
  LoginNonce nonce;   // the server's, used once
  Digest server;      // SHA-256 of the server's TLS certificate (DER); zeros on a UNIX socket
  MachineId machine;  // zeros: from no enrolled machine
};

// What the server tells anybody about a name: enough to turn a passphrase into a login key.
struct LoginRecord {
  crypto::Argon2Parameters parameters;
  crypto::Salt salt;
};
// For a name that nobody has: always the same one, and none that could not be true.
LoginRecord unknown_login_record(const Secret32& server_key, const OrgId& org,
                                 std::string_view name);

Signature sign_user_login(const LoginContext& context, std::string_view name,
                          const crypto::SecretSigner& login_key);
Signature sign_machine_login(const LoginContext& context, const crypto::SecretSigner& machine_key);
// With the one-time key of a join line: allows reading the log and Enroll, nothing else.
Signature sign_join_login(const LoginContext& context, const crypto::SecretSigner& join_key);

// `login_key` nullptr: no such user; the same work is done and the same error returned.
Status verify_user_login(const LoginContext& context, std::string_view name,
                         const PublicKey* login_key, const Signature& signature);
// A revoked machine is let in by kRevokedToo alone: to learn what became of it.
enum class MachineStanding : std::uint8_t { kEnrolled, kRevokedToo };
Status verify_machine_login(const OrgState& org, const LoginContext& context,
                            const Signature& signature,
                            MachineStanding standing = MachineStanding::kEnrolled);
Status verify_join_login(const OrgState& org, const LoginContext& context, const PublicKey& key,
                         const Signature& signature);
Error login_refused();

// What the server keeps of a token.
Digest token_hash(const SessionToken& token);

}  // namespace dims::trust
