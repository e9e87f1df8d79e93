#include "common/trust/login.h"

#include "common/base/wire.h"
#include "common/crypto/hash.h"

namespace dims::trust {
namespace {

enum class Who : std::uint8_t { kUser = 1, kMachine = 2, kJoin = 3 };

Bytes login_body(const LoginContext& context, Who who, std::string_view name) {
  Bytes out;
  Writer w(out);
  w.u8(static_cast<std::uint8_t>(who));
  w.id(context.nonce);
  w.id(context.server);
  w.id(context.machine);
  w.string(as_bytes(name));
  return out;
}

// A key that no secret belongs to is known of: whatever is signed, it does not verify.
const PublicKey& nobodys_key() {
  static const PublicKey key = [] {
    Secret32 seed;
    system_random().fill(seed.mut());
    return crypto::signing_key_from_seed(seed).public_key;
  }();
  return key;
}

}  // namespace

Error login_refused() {
  return make_error(ErrorCode::kPermissionDenied, "wrong user name or passphrase", "try again");
}

LoginRecord unknown_login_record(const Secret32& server_key, const OrgId& org,
                                 std::string_view name) {
  const Secret32 made = crypto::prf(server_key, "unknown-salt", {org.view(), as_bytes(name)});
  return {crypto::Argon2Parameters{},
          *crypto::Salt::from_view(made.view().first(crypto::kSaltBytes))};
}

Signature sign_user_login(const LoginContext& context, std::string_view name,
                          const crypto::SecretSigner& login_key) {
  return login_key.sign("login", context.org, login_body(context, Who::kUser, name));
}
Signature sign_machine_login(const LoginContext& context, const crypto::SecretSigner& machine_key) {
  return machine_key.sign("login", context.org, login_body(context, Who::kMachine, {}));
}
Signature sign_join_login(const LoginContext& context, const crypto::SecretSigner& join_key) {
  return join_key.sign("login", context.org, login_body(context, Who::kJoin, {}));
}

Status verify_user_login(const LoginContext& context, std::string_view name,
                         const PublicKey* login_key, const Signature& signature) {
  const bool fits = crypto::verify(login_key != nullptr ? *login_key : nobodys_key(), "login",
                                   context.org, login_body(context, Who::kUser, name), signature);
  return fits && login_key != nullptr ? ok_status() : Status(login_refused());
}

Status verify_machine_login(const OrgState& org, const LoginContext& context,
                            const Signature& signature, MachineStanding standing) {
  const Machine* const machine = org.machine(context.machine);
  const bool stands =
      machine != nullptr && (!machine->revoked || standing == MachineStanding::kRevokedToo);
  const bool good = stands && context.org == org.org();
  const bool fits = crypto::verify(good ? machine->sign_key : nobodys_key(), "login", context.org,
                                   login_body(context, Who::kMachine, {}), signature);
  if (good && fits) return ok_status();
  return make_error(ErrorCode::kPermissionDenied, "this machine is not enrolled, or is revoked",
                    "enroll it with a new join line from your administrator");
}

Status verify_join_login(const OrgState& org, const LoginContext& context, const PublicKey& key,
                         const Signature& signature) {
  const SignerRole role = org.role_of(key);
  const bool good = (role == SignerRole::kMachineJoin || role == SignerRole::kUserJoin ||
                     role == SignerRole::kRoot) &&
                    context.org == org.org();
  const bool fits = crypto::verify(good ? key : nobodys_key(), "login", context.org,
                                   login_body(context, Who::kJoin, {}), signature);
  if (good && fits) return ok_status();
  return make_error(ErrorCode::kPermissionDenied, "this join line is unknown, used or cancelled",
                    "ask your administrator for a new one");
}

Digest token_hash(const SessionToken& token) {
  return crypto::sha256({as_bytes("dims/token/1"), token.view()});
}

}  // namespace dims::trust
