#include "common/crypto/sign.h"

#include <sodium.h>

#include <cstdlib>
#include <string>

#include "common/crypto/hash.h"

namespace dims::crypto {
namespace {

Digest message_digest(std::string_view type, const OrgId& org, ByteView body) {
  const std::string domain = "dims/" + std::string(type) + "/1";
  const std::uint8_t length = static_cast<std::uint8_t>(domain.size());
  return sha256({ByteView(&length, 1), as_bytes(domain), org.view(), body});
}

}  // namespace

SigningKey signing_key_from_seed(const Secret32& seed) {
  SigningKey key{seed, {}};
  std::array<std::uint8_t, crypto_sign_SECRETKEYBYTES> secret;
  if (crypto_sign_seed_keypair(key.public_key.bytes.data(), secret.data(), seed.bytes.data()) != 0)
    std::abort();
  wipe(secret);
  return key;
}

Signature sign(const SigningKey& key, std::string_view type, const OrgId& org, ByteView body) {
  return sign(key.seed, type, org, body);
}

Signature sign(const Secret32& seed, std::string_view type, const OrgId& org, ByteView body) {
  PublicKey public_key;
  std::array<std::uint8_t, crypto_sign_SECRETKEYBYTES> secret;
  if (crypto_sign_seed_keypair(public_key.bytes.data(), secret.data(), seed.bytes.data()) != 0)
    std::abort();
  const Digest digest = message_digest(type, org, body);
  Signature signature;
  crypto_sign_detached(signature.bytes.data(), nullptr, digest.bytes.data(), digest.bytes.size(),
                       secret.data());
  wipe(secret);
  return signature;
}

bool verify(const PublicKey& key, std::string_view type, const OrgId& org, ByteView body,
            const Signature& signature) {
  const Digest digest = message_digest(type, org, body);
  return crypto_sign_verify_detached(signature.bytes.data(), digest.bytes.data(),
                                     digest.bytes.size(), key.bytes.data()) == 0;
}

}  // namespace dims::crypto
