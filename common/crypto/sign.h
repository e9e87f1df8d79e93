// Ed25519 signatures over H("dims/TYPE/1", org, body).
// Threads: thread-safe. Errors: verify() returns false.
#pragma once

#include <string_view>

#include "common/crypto/held_key.h"

namespace dims::crypto {

using PublicKey = Id<struct PublicKeyTag, 32>;
using Signature = Id<struct SignatureTag, 64>;

struct SigningKey {
  HeldKey seed;
  PublicKey public_key;
};

SigningKey signing_key_from_seed(const Secret32& seed);
Signature sign(const SigningKey& key, std::string_view type, const OrgId& org, ByteView body);
// The same from a seed, so that it need not leave the memory that it is in.
Signature sign(const Secret32& seed, std::string_view type, const OrgId& org, ByteView body);
[[nodiscard]] bool verify(const PublicKey& key, std::string_view type, const OrgId& org,
                          ByteView body, const Signature& signature);

}  // namespace dims::crypto
