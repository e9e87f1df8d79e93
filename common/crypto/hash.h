// Hashing and key derivation (see docs/formats/object.md for where each is used).
//
// H is SHA-256 through OpenSSL (hardware SHA, 1.7x BLAKE2b on the reference machine).
// PRF is HMAC-SHA-256 over length-prefixed fields. KDF is libsodium's crypto_kdf.
// Threads: free functions are thread-safe; Sha256 has one owner at a time. Errors: none; a failing
// primitive aborts, for nothing sensible can follow.
#pragma once

#include <initializer_list>
#include <memory>
#include <string_view>

#include "common/base/bytes.h"

namespace dims::crypto {

Digest sha256(ByteView data);
Digest sha256(std::initializer_list<ByteView> parts);

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(ByteView data);
  // The digest of everything so far; more may follow.
  Digest peek() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// PRF(key, label, fields...): each field is prefixed with its length, so no two field lists
// collide.
Secret32 prf(const Secret32& key, std::string_view label, std::initializer_list<ByteView> fields);

// A 64-bit keyed hash (SipHash-2-4) for decisions about content, not for identities.
using ShortKey = std::array<std::uint8_t, 16>;
std::uint64_t short_hash(const ShortKey& key, ByteView data);

// KDF(key, index): independent subkeys of a master key.
Secret32 kdf(const Secret32& key, std::uint64_t index);

bool equal_constant_time(ByteView a, ByteView b);
void wipe(MutByteView secret);
// Must run once before anything else of this folder; thread-safe, repeatable.
void initialise();

}  // namespace dims::crypto
