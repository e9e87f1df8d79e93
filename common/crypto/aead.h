// Authenticated encryption: AES-256-GCM through libgcrypt for bulk data (decision 009),
// XChaCha20-Poly1305 through libsodium for wrapped keys.
//
// PageCipher: one key, 64-bit counter nonces that the caller never repeats under that key.
// Threads: const methods are thread-safe (cipher contexts are per thread and reused).
// Units: bytes; the tag is always 16 bytes, apart from the text. In-place (out == in) is allowed.
// Errors: open() returns false on a wrong tag and zeroes `out`. The primitive failing aborts.
#pragma once

#include <cstdint>
#include <optional>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/crypto/held_key.h"

namespace dims::crypto {

inline constexpr std::size_t kTagBytes = 16;
using Tag = std::array<std::uint8_t, kTagBytes>;

class PageCipher {
 public:
  explicit PageCipher(const Secret32& key);
  PageCipher(const PageCipher&) = delete;
  PageCipher& operator=(const PageCipher&) = delete;

  void seal(std::uint64_t nonce, ByteView ad, ByteView plain, std::uint8_t* out,
            std::uint8_t* tag) const;
  [[nodiscard]] bool open(std::uint64_t nonce, ByteView ad, ByteView sealed,
                          const std::uint8_t* tag, std::uint8_t* out) const;

 private:
  HeldKey key_;
  std::uint64_t identity_;  // names this key in the per-thread context cache
};

// One message under a key that is used once (nonce 0): objects.
void seal_once(const Secret32& key, ByteView ad, ByteView plain, std::uint8_t* out,
               std::uint8_t* tag);
[[nodiscard]] bool open_once(const Secret32& key, ByteView ad, ByteView sealed,
                             const std::uint8_t* tag, std::uint8_t* out);

// Key wrapping: nonce (24) | sealed | tag (16); random nonce.
Bytes wrap(const Secret32& key, ByteView ad, ByteView plain, Random& random);
std::optional<Bytes> unwrap(const Secret32& key, ByteView ad, ByteView wrapped);
// The same into memory of the caller's, wrapped.size() - kWrapOverheadBytes long; wiped on failure.
[[nodiscard]] bool unwrap_into(const Secret32& key, ByteView ad, ByteView wrapped, MutByteView out);
inline constexpr std::size_t kWrapOverheadBytes = 24 + 16;

}  // namespace dims::crypto
