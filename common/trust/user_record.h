// A user's record: what the server keeps for him so that a passphrase opens his keys on any machine
// (docs/formats/user-record.md). And the keys themselves, once open.
//
//   M = Argon2id(passphrase, salt)   A = KDF(M,1): login key   W = KDF(M,2): wraps U
//   U, random, wraps his signing seed, box seed and private domain secret. Twelve recovery words
//   wrap U a second time. A new passphrase wraps U again and nothing else.
//
// The server sees salt, parameters and the login's public key. It cannot exchange parts of the
// record: the user has signed it, and his key stands in the organisation's log.
// Threads: values. Ownership: secrets are moved. Errors: kWrongKey (passphrase or words),
// kUntrusted (weak parameters; a record that its user did not sign), kCorrupt, kUnsupported.
#pragma once

#include "common/base/clock.h"
#include "common/trust/org_state.h"
#include "common/trust/words.h"

namespace dims::trust {

// Everything that a passphrase opens. Wiped when it goes; a session keeps less (session.h).
struct UserSecrets {
  OrgId org;
  UserId user;
  crypto::SecretKey user_key;  // U
  crypto::SecretSigner sign;
  crypto::BoxKey box;
  DomainId private_domain;
  crypto::SecretKey private_secret;  // of epoch 1; later epochs come as grants to oneself

  UserSecrets clone() const;
  UserKeys keys() const { return {sign.public_key, box.public_key}; }
};

inline constexpr std::size_t kWrappedKeyBytes = 32 + 40;
inline constexpr std::size_t kWrappedSecretsBytes = 32 + 32 + 16 + 32 + 40;
inline constexpr std::size_t kUserRecordBytes = 548;

struct UserRecord {
  OrgId org;
  UserId user;
  std::string name;
  std::uint64_t generation = 0;  // counts rewritings; a client refuses to go back
  crypto::Argon2Parameters parameters;
  crypto::Salt salt;
  PublicKey login_key;
  std::array<std::uint8_t, kWrappedKeyBytes> user_key{};      // XC(W, U)
  std::array<std::uint8_t, kWrappedSecretsBytes> secrets{};   // XC(PRF(U), seeds and secret)
  std::array<std::uint8_t, kWrappedKeyBytes> recovery_key{};  // XC(R, U); zeros: no words
  Signature signature;                                        // type "user-record"

  bool has_recovery() const { return !is_all_zero(recovery_key); }
};

Bytes encode_user_record(const UserRecord& record);
// Form only; check_user_record() says whose it is.
Result<UserRecord> decode_user_record(ByteView bytes);
// That it is signed by the user whom the log knows under this id and name.
Status check_user_record(const OrgState& org, const UserRecord& record);

// What a passphrase yields for one salt.
struct PassphraseKeys {
  crypto::SecretKey wrap;      // W
  crypto::SecretSigner login;  // from A
};
// Refuses weak parameters before it looks at the passphrase.
Result<PassphraseKeys> passphrase_keys(ByteView passphrase, const crypto::Salt& salt,
                                       const crypto::Argon2Parameters& parameters);

struct NewUser {
  UserSecrets secrets;
  UserRecord record;
  crypto::SecretBytes words;  // show once, keep nowhere
};
Result<NewUser> make_user(const OrgId& org, const UserId& user, const std::string& name,
                          ByteView passphrase, const crypto::Argon2Parameters& parameters,
                          Random& random);
// The log's certificate of these keys, with its proof.
UserCert certificate_of(const UserSecrets& secrets, const std::string& name, Role role);

// kWrongKey for a wrong passphrase. A record whose parts do not belong together is kUntrusted.
Result<UserSecrets> open_user_record(const UserRecord& record, const PassphraseKeys& keys);
Result<UserSecrets> recover_user(const UserRecord& record, std::string_view words);

// What the server gives to anybody who asks for a name, for who has nothing but his twelve words.
// 132 bits open it; nothing in it helps to guess a passphrase. It is signed by nobody: who has
// opened it logs in with the key that he found, and then checks the whole record.
struct RecoveryRecord {
  OrgId org;
  UserId user;
  std::array<std::uint8_t, kWrappedKeyBytes> recovery_key{};
  std::array<std::uint8_t, kWrappedSecretsBytes> secrets{};
};
// nullopt: the user has no words.
std::optional<RecoveryRecord> recovery_record_of(const UserRecord& record);
// For a name that nobody has: always the same one.
RecoveryRecord unknown_recovery_record(const Secret32& server_key, const OrgId& org,
                                       std::string_view name);
Result<UserSecrets> recover_user(const RecoveryRecord& record, std::string_view words);

// The next generation of the record. The words stay good.
Result<UserRecord> change_passphrase(const UserRecord& record, const UserSecrets& secrets,
                                     ByteView passphrase,
                                     const crypto::Argon2Parameters& parameters, Random& random);
// New words; the old ones open nothing in the new record.
crypto::SecretBytes renew_words(UserRecord& record, const UserSecrets& secrets, Random& random);
// After a compromise: new U, seeds, words and passphrase; the private domain keeps its old secret
// for what is there (its new epoch is the caller's to announce and to grant).
Result<NewUser> renew_user(const UserRecord& record, const UserSecrets& secrets,
                           ByteView passphrase, const crypto::Argon2Parameters& parameters,
                           Random& random);
// The log's record of that change, with its proof.
KeyChange key_change_of(const UserSecrets& renewed);

// 112 bytes that hold all secrets, and back: for stores that seal them again (offline_store.h).
crypto::SecretBytes pack_secrets(const UserSecrets& secrets);
Result<UserSecrets> unpack_secrets(const OrgId& org, const UserId& user,
                                   const crypto::SecretKey& user_key, ByteView packed);

}  // namespace dims::trust
