#include "common/crypto/passphrase.h"

#include <sodium.h>

#include "common/crypto/hash.h"

namespace dims::crypto {
namespace {

std::string text_of(const Argon2Parameters& p) {
  return std::to_string(p.memory_kib / 1024) + " MiB and " + std::to_string(p.passes) + " passes";
}

}  // namespace

Status check_parameters(const Argon2Parameters& parameters) {
  if (parameters.memory_kib < kArgon2Floor.memory_kib || parameters.passes < kArgon2Floor.passes) {
    return make_error(ErrorCode::kUntrusted,
                      "weak passphrase parameters refused: " + text_of(parameters) + ", at least " +
                          text_of(kArgon2Floor) + " are needed",
                      "do not type your passphrase for this server; ask its administrator");
  }
  if (parameters.memory_kib > kArgon2Ceiling.memory_kib ||
      parameters.passes > kArgon2Ceiling.passes) {
    return make_error(ErrorCode::kUntrusted,
                      "passphrase parameters refused: " + text_of(parameters) + ", at most " +
                          text_of(kArgon2Ceiling) + " are accepted",
                      "ask the server's administrator");
  }
  return ok_status();
}

Result<SecretKey> stretch(ByteView passphrase, const Salt& salt,
                          const Argon2Parameters& parameters) {
  static_assert(kSaltBytes == crypto_pwhash_argon2id_SALTBYTES);
  DIMS_TRY(check_parameters(parameters));
  if (passphrase.size() > kPassphraseBytesMax) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "the passphrase is longer than " + std::to_string(kPassphraseBytesMax) + " bytes");
  }
  initialise();
  SecretKey out;
  if (crypto_pwhash(out.mut().data(), out.mut().size(),
                    reinterpret_cast<const char*>(passphrase.data()), passphrase.size(),
                    salt.bytes.data(), parameters.passes, std::size_t{parameters.memory_kib} * 1024,
                    crypto_pwhash_ALG_ARGON2ID13) != 0) {
    return make_error(ErrorCode::kResourceExhausted,
                      "no memory to check the passphrase: " +
                          std::to_string(parameters.memory_kib / 1024) + " MiB are needed",
                      "free memory and try again");
  }
  return out;
}

}  // namespace dims::crypto
