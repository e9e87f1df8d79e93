// Logging in: from a name and a passphrase to open keys and a token.
//
// The server is believed nothing: Argon2's parameters have a floor, the log must go on from what is
// known, the user's record must be signed by the key that the log has for him, and opens only if it
// is this organisation's and his. Threads: free functions. Ownership: Member owns its keys; they
// are wiped with it. Errors: kPermissionDenied (wrong name or passphrase), kResourceExhausted (too
// many tries), kUntrusted, kOtherHistory, kUnavailable. Durable: nothing.
#pragma once

#include "common/client/org_folder.h"
#include "common/trust/machine_file.h"
#include "common/trust/user_record.h"

namespace dims::client {

// Where to log in, and from where.
struct LoginPlace {
  std::string server;
  KnownServers known_servers;
  OrgId org;  // zero: whichever the server has; the passphrase shows if it is right
  std::vector<Bytes> records;                   // of the log, known before
  const trust::MachineFile* machine = nullptr;  // enrolled; borrowed
};

// A person who is logged in.
struct Member {
  std::string name;
  trust::UserSecrets secrets;
  trust::PassphraseKeys keys;
  trust::UserRecord record;
  trust::OrgLog log;
  Digest server;  // fingerprint of its certificate; zeros on a UNIX socket
  std::shared_ptr<LoginToken> token;
  std::unique_ptr<AccessClient> access;

  const trust::OrgState& org() const { return log.state(); }
  // Reads what is new, so that the next record fits.
  Status refresh();
  // Appends, all or nothing; once more on what is new if somebody was faster. `make` says what is
  // to be said on the log as it is then; nothing is appended if it says nothing.
  using Make = std::function<Result<std::vector<trust::Body>>(const trust::OrgState&)>;
  Status append(const Make& make);
  // The same signed by the organisation's root key or another's.
  Status append(const crypto::SecretSigner& signer, const Make& make);
};

Result<Member> login_user(const LoginPlace& place, const std::string& name, ByteView passphrase);
// With keys that are open already.
Result<Member> resume_member(const LoginPlace& place, const std::string& name,
                             trust::UserSecrets secrets, trust::PassphraseKeys keys,
                             std::optional<Token> token);

// A login of its own for every renewal.
LoginToken::Renew user_login(const LoginPlace& place, std::string name,
                             const crypto::SecretSigner& login_key);
// `certificate` empty: the machine for itself.
LoginToken::Renew machine_login(const LoginPlace& place, Bytes certificate);
LoginToken::Renew join_login(const LoginPlace& place, const crypto::SecretSigner& join_key);

std::uint64_t unix_now_s(Clock& clock = system_clock());

}  // namespace dims::client
