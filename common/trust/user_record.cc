#include "common/trust/user_record.h"

#include <algorithm>

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/crypto/hash.h"

namespace dims::trust {
namespace {

constexpr std::uint32_t kMagic = 0x31525355;  // "USR1"
constexpr std::size_t kSignedBytes = kUserRecordBytes - Signature::kBytes;

Bytes encode_signed_part(const UserRecord& u) {
  Bytes out;
  out.reserve(kUserRecordBytes);
  Writer w(out);
  w.u32(kMagic);
  w.u16(1);
  w.u16(0);
  w.id(u.org);
  w.id(u.user);
  w.u64(u.generation);
  w.u32(u.parameters.memory_kib);
  w.u32(u.parameters.passes);
  w.id(u.salt);
  w.id(u.login_key);
  w.raw(u.user_key);
  w.raw(u.secrets);
  w.raw(u.recovery_key);
  w.u8(static_cast<std::uint8_t>(u.name.size()));
  w.raw(as_bytes(u.name));
  w.pad_to(kSignedBytes);
  return out;
}

// What each wrapped part is bound to. The words must survive new passphrases, so they bind less.
Bytes key_ad(const UserRecord& u) {
  Bytes ad;
  Writer w(ad);
  w.raw(as_bytes("dims/user-key/1"));
  w.id(u.org);
  w.id(u.user);
  w.u64(u.generation);
  w.u32(u.parameters.memory_kib);
  w.u32(u.parameters.passes);
  w.id(u.salt);
  return ad;
}
Bytes plain_ad(std::string_view label, const UserRecord& u) {
  Bytes ad;
  Writer w(ad);
  w.raw(as_bytes(label));
  w.id(u.org);
  w.id(u.user);
  return ad;
}

template <std::size_t N>
void put(std::array<std::uint8_t, N>& field, const Bytes& wrapped) {
  std::copy_n(wrapped.begin(), N, field.begin());
}

crypto::SecretKey secrets_key(const crypto::SecretKey& user_key) {
  return crypto::secret_prf(user_key.key(), "user-secrets", {});
}

crypto::SecretKey words_key(ByteView entropy, const OrgId& org, const UserId& user) {
  crypto::SecretKey padded;
  std::copy(entropy.begin(), entropy.end(), padded.mut().begin());
  return crypto::secret_prf(padded.key(), "recovery", {org.view(), user.view()});
}

void sign_record(UserRecord& record, const UserSecrets& secrets) {
  record.signature = secrets.sign.sign("user-record", record.org, encode_signed_part(record));
}

// Salt, login key and both wraps, for one passphrase.
Status wrap_for(UserRecord& record, const UserSecrets& secrets, ByteView passphrase,
                const crypto::Argon2Parameters& parameters, Random& random) {
  record.parameters = parameters;
  const auto drawn = random.id<Digest>();
  const Digest salt = crypto::sha256(
      {as_bytes("dims/salt/1"), record.org.view(), as_bytes(record.name), drawn.view()});
  record.salt = *crypto::Salt::from_view(salt.view().first(crypto::kSaltBytes));
  auto keys = passphrase_keys(passphrase, record.salt, parameters);
  if (!keys.ok()) return keys.error();
  record.login_key = keys->login.public_key;
  put(record.user_key,
      crypto::wrap(keys->wrap.key(), key_ad(record), secrets.user_key.view(), random));
  put(record.secrets,
      crypto::wrap(secrets_key(secrets.user_key).key(), plain_ad("dims/user-secrets/1", record),
                   pack_secrets(secrets).view(), random));
  return ok_status();
}

// Without a look at the record's signature.
Result<UserSecrets> open_parts(const UserRecord& record, const crypto::SecretBytes& user_key) {
  const auto key = crypto::SecretKey::from_view(user_key.view());
  if (!key) return make_error(ErrorCode::kCorrupt, "user record: its key has a wrong length");
  const auto packed = crypto::unwrap_secret(
      secrets_key(*key).key(), plain_ad("dims/user-secrets/1", record), record.secrets);
  if (!packed)
    return make_error(ErrorCode::kUntrusted, "user record: its parts do not belong together",
                      "the server gives out a damaged or forged record");
  return unpack_secrets(record.org, record.user, *key, packed->view());
}

Result<UserSecrets> open_with(const UserRecord& record, const crypto::SecretBytes& user_key) {
  auto secrets = open_parts(record, user_key);
  if (!secrets.ok()) return secrets.error();
  if (!crypto::verify(secrets->sign.public_key, "user-record", record.org,
                      encode_signed_part(record), record.signature))
    return make_error(ErrorCode::kUntrusted, "user record: its signature is wrong",
                      "the server gives out a damaged or forged record");
  return secrets;
}

Result<NewUser> build(UserRecord record, UserSecrets secrets, ByteView passphrase,
                      const crypto::Argon2Parameters& parameters, Random& random) {
  DIMS_TRY(wrap_for(record, secrets, passphrase, parameters, random));
  crypto::SecretBytes words = renew_words(record, secrets, random);
  return NewUser{std::move(secrets), std::move(record), std::move(words)};
}

}  // namespace

UserSecrets UserSecrets::clone() const {
  return {org,         user,           user_key.clone(),      sign.clone(),
          box.clone(), private_domain, private_secret.clone()};
}

Bytes encode_user_record(const UserRecord& record) {
  Bytes out = encode_signed_part(record);
  Writer(out).id(record.signature);
  return out;
}

Result<UserRecord> decode_user_record(ByteView bytes) {
  Reader r(bytes);
  UserRecord u;
  if (bytes.size() != kUserRecordBytes || r.u32() != kMagic)
    return make_error(ErrorCode::kCorrupt, "user record: not a user record, or cut short");
  if (r.u16() != 1)
    return make_error(ErrorCode::kUnsupported, "user record of an unknown format",
                      "update this program");
  const bool reserved = r.u16() != 0;
  const auto take = [&r](auto& field) {
    const ByteView part = r.raw(field.size());
    std::copy(part.begin(), part.end(), field.begin());
  };
  u.org = r.id<OrgId>();
  u.user = r.id<UserId>();
  u.generation = r.u64();
  u.parameters.memory_kib = r.u32();
  u.parameters.passes = r.u32();
  u.salt = r.id<crypto::Salt>();
  u.login_key = r.id<PublicKey>();
  take(u.user_key);
  take(u.secrets);
  take(u.recovery_key);
  const std::size_t name_bytes = r.u8();
  if (name_bytes > kNameBytesMax)
    return make_error(ErrorCode::kCorrupt, "user record: its name is too long");
  u.name = std::string(as_text(r.raw(name_bytes)));
  const ByteView pad = r.raw(kSignedBytes - r.position());
  u.signature = r.id<Signature>();
  if (reserved || !is_all_zero(pad) || !r.at_end() || !is_valid_name(u.name))
    return make_error(ErrorCode::kCorrupt, "user record: malformed");
  return u;
}

Status check_user_record(const OrgState& org, const UserRecord& record) {
  const User* const user = org.user(record.user);
  if (record.org == org.org() && user != nullptr && user->name == record.name &&
      crypto::verify(user->keys.sign_key, "user-record", record.org, encode_signed_part(record),
                     record.signature))
    return ok_status();
  return make_error(
      ErrorCode::kUntrusted,
      "user record of '" + record.name + "': not signed by the user whom the log knows",
      "the server gives out another's record, or one from before new keys");
}

Result<PassphraseKeys> passphrase_keys(ByteView passphrase, const crypto::Salt& salt,
                                       const crypto::Argon2Parameters& parameters) {
  auto master = crypto::stretch(passphrase, salt, parameters);
  if (!master.ok()) return master.error();
  return PassphraseKeys{crypto::secret_kdf(master->key(), 2),
                        crypto::SecretSigner::from_seed(crypto::secret_kdf(master->key(), 1))};
}

Result<NewUser> make_user(const OrgId& org, const UserId& user, const std::string& name,
                          ByteView passphrase, const crypto::Argon2Parameters& parameters,
                          Random& random) {
  DIMS_TRY(check_name("the user's name", name));
  UserSecrets secrets{org,
                      user,
                      crypto::SecretKey::random(random),
                      crypto::SecretSigner::from_seed(crypto::SecretKey::random(random)),
                      crypto::BoxKey::from_seed(crypto::SecretKey::random(random)),
                      random.id<DomainId>(),
                      crypto::SecretKey::random(random)};
  UserRecord record;
  record.org = org;
  record.user = user;
  record.name = name;
  record.generation = 1;
  return build(std::move(record), std::move(secrets), passphrase, parameters, random);
}

UserCert certificate_of(const UserSecrets& secrets, const std::string& name, Role role) {
  UserCert cert{secrets.user, name, role, secrets.keys(), secrets.private_domain, {}};
  prove(cert, secrets.org, secrets.sign);
  return cert;
}

KeyChange key_change_of(const UserSecrets& renewed) {
  KeyChange change{renewed.user, renewed.keys(), {}};
  prove(change, renewed.org, renewed.sign);
  return change;
}

Result<UserSecrets> open_user_record(const UserRecord& record, const PassphraseKeys& keys) {
  auto user_key = crypto::unwrap_secret(keys.wrap.key(), key_ad(record), record.user_key);
  if (!user_key)
    return make_error(ErrorCode::kWrongKey, "wrong user name or passphrase", "try again");
  return open_with(record, std::move(*user_key));
}

namespace {

Result<crypto::SecretBytes> key_by_words(const UserRecord& record, std::string_view words) {
  auto entropy = parse_words(words);
  if (!entropy.ok()) return entropy.error();
  if (!record.has_recovery())
    return make_error(ErrorCode::kNotFound, "there are no recovery words for this user");
  auto user_key = crypto::unwrap_secret(words_key(entropy->view(), record.org, record.user).key(),
                                        plain_ad("dims/recovery/1", record), record.recovery_key);
  if (!user_key)
    return make_error(ErrorCode::kWrongKey, "these recovery words are not this user's",
                      "words are good until new ones are printed, or new keys are made");
  return std::move(*user_key);
}

// Bytes that look like a wrapped key and open with nothing.
template <std::size_t N>
void fill_for_nobody(const Secret32& key, std::array<std::uint8_t, N>& out) {
  std::uint8_t number = 0;
  for (std::size_t at = 0; at < N; ++number) {
    const Secret32 block = crypto::prf(key, "block", {ByteView(&number, 1)});
    const std::size_t count = std::min(N - at, Secret32::kBytes);
    std::copy_n(block.bytes.begin(), count, out.begin() + static_cast<std::ptrdiff_t>(at));
    at += count;
  }
}

}  // namespace

Result<UserSecrets> recover_user(const UserRecord& record, std::string_view words) {
  DIMS_ASSIGN(const crypto::SecretBytes user_key, key_by_words(record, words));
  return open_with(record, user_key);
}

std::optional<RecoveryRecord> recovery_record_of(const UserRecord& record) {
  if (!record.has_recovery()) return std::nullopt;
  return RecoveryRecord{record.org, record.user, record.recovery_key, record.secrets};
}

RecoveryRecord unknown_recovery_record(const Secret32& server_key, const OrgId& org,
                                       std::string_view name) {
  const auto made = [&](std::string_view what) {
    return crypto::prf(server_key, what, {org.view(), as_bytes(name)});
  };
  RecoveryRecord out;
  out.org = org;
  out.user = *UserId::from_view(made("unknown-user").view().first(UserId::kBytes));
  fill_for_nobody(made("unknown-recovery-key"), out.recovery_key);
  fill_for_nobody(made("unknown-secrets"), out.secrets);
  return out;
}

Result<UserSecrets> recover_user(const RecoveryRecord& record, std::string_view words) {
  UserRecord parts;
  parts.org = record.org;
  parts.user = record.user;
  parts.recovery_key = record.recovery_key;
  parts.secrets = record.secrets;
  DIMS_ASSIGN(const crypto::SecretBytes user_key, key_by_words(parts, words));
  return open_parts(parts, user_key);
}

Result<UserRecord> change_passphrase(const UserRecord& record, const UserSecrets& secrets,
                                     ByteView passphrase,
                                     const crypto::Argon2Parameters& parameters, Random& random) {
  UserRecord next = record;
  next.generation += 1;
  DIMS_TRY(wrap_for(next, secrets, passphrase, parameters, random));
  sign_record(next, secrets);
  return next;
}

crypto::SecretBytes renew_words(UserRecord& record, const UserSecrets& secrets, Random& random) {
  crypto::SecretBytes entropy(kRecoveryEntropyBytes);
  random.fill(entropy.mut());
  put(record.recovery_key,
      crypto::wrap(words_key(entropy.view(), record.org, record.user).key(),
                   plain_ad("dims/recovery/1", record), secrets.user_key.view(), random));
  sign_record(record, secrets);
  return words_of(entropy.view());
}

Result<NewUser> renew_user(const UserRecord& record, const UserSecrets& secrets,
                           ByteView passphrase, const crypto::Argon2Parameters& parameters,
                           Random& random) {
  UserSecrets fresh = secrets.clone();
  fresh.user_key = crypto::SecretKey::random(random);
  fresh.sign = crypto::SecretSigner::from_seed(crypto::SecretKey::random(random));
  fresh.box = crypto::BoxKey::from_seed(crypto::SecretKey::random(random));
  UserRecord next = record;
  next.generation += 1;
  return build(std::move(next), std::move(fresh), passphrase, parameters, random);
}

crypto::SecretBytes pack_secrets(const UserSecrets& secrets) {
  crypto::SecretBytes out(32 + 32 + 16 + 32);
  auto at = out.mut().begin();
  for (const ByteView part : {secrets.sign.seed.view(), secrets.box.seed.view(),
                              secrets.private_domain.view(), secrets.private_secret.view()})
    at = std::copy(part.begin(), part.end(), at);
  return out;
}

Result<UserSecrets> unpack_secrets(const OrgId& org, const UserId& user,
                                   const crypto::SecretKey& user_key, ByteView packed) {
  if (packed.size() != 112)
    return make_error(ErrorCode::kCorrupt, "user secrets: of a wrong length");
  return UserSecrets{
      org,
      user,
      user_key.clone(),
      crypto::SecretSigner::from_seed(*crypto::SecretKey::from_view(packed.first(32))),
      crypto::BoxKey::from_seed(*crypto::SecretKey::from_view(packed.subspan(32, 32))),
      *DomainId::from_view(packed.subspan(64, 16)),
      *crypto::SecretKey::from_view(packed.subspan(80, 32))};
}

}  // namespace dims::trust
