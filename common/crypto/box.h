// Anonymous sealed boxes (X25519, libsodium's crypto_box_seal): anybody seals, the owner of the key
// opens. A box proves nothing about who made it; grants are signed besides (common/trust/grant.h).
// Threads: thread-safe. Units: bytes. Errors: open_box() returns nothing.
#pragma once

#include <optional>

#include "common/crypto/secret.h"

namespace dims::crypto {

using BoxPublicKey = Id<struct BoxPublicKeyTag, 32>;
inline constexpr std::size_t kBoxOverheadBytes = 48;

struct BoxKey {
  SecretKey seed;
  BoxPublicKey public_key;

  static BoxKey from_seed(SecretKey seed);
  BoxKey clone() const { return {seed.clone(), public_key}; }
};

// Draws its ephemeral key from the operating system.
Bytes seal_box(const BoxPublicKey& recipient, ByteView plain);
std::optional<SecretBytes> open_box(const BoxKey& key, ByteView box);

}  // namespace dims::crypto
