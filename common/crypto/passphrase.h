// From a passphrase to a key: Argon2id (libsodium), with bounds that a client enforces.
//
// The server stores salt and parameters and so could offer weak ones: check_parameters() refuses
// what is below the floor, and what would take all memory of the machine.
// Threads: thread-safe. Units: KiB, passes. Errors: kUntrusted (parameters out of bounds),
// kResourceExhausted (no memory for this much).
#pragma once

#include "common/base/result.h"
#include "common/crypto/secret.h"

namespace dims::crypto {

struct Argon2Parameters {
  std::uint32_t memory_kib = 64 * 1024;
  std::uint32_t passes = 3;
  friend bool operator==(const Argon2Parameters&, const Argon2Parameters&) = default;
};

inline constexpr Argon2Parameters kArgon2Floor{64 * 1024, 3};
inline constexpr Argon2Parameters kArgon2Ceiling{1024 * 1024, 16};
inline constexpr std::size_t kSaltBytes = 16;
using Salt = Id<struct SaltTag, kSaltBytes>;
inline constexpr std::size_t kPassphraseBytesMax = 1024;

Status check_parameters(const Argon2Parameters& parameters);
// M = Argon2id(passphrase, salt). Takes at least 64 MiB and a tenth of a second.
Result<SecretKey> stretch(ByteView passphrase, const Salt& salt,
                          const Argon2Parameters& parameters);

}  // namespace dims::crypto
