#include "common/crypto/box.h"

#include <sodium.h>

#include <cstdlib>

#include "common/crypto/hash.h"

namespace dims::crypto {

static_assert(kBoxOverheadBytes == crypto_box_SEALBYTES);

BoxKey BoxKey::from_seed(SecretKey seed) {
  SecretBytes secret(crypto_box_SECRETKEYBYTES);
  BoxPublicKey public_key;
  if (crypto_box_seed_keypair(public_key.bytes.data(), secret.mut().data(), seed.view().data()) !=
      0)
    std::abort();
  return {std::move(seed), public_key};
}

Bytes seal_box(const BoxPublicKey& recipient, ByteView plain) {
  initialise();
  Bytes out(plain.size() + kBoxOverheadBytes);
  // Fails only for a public key of small order, which no honest owner has; the box then opens for
  // nobody.
  if (crypto_box_seal(out.data(), plain.data(), plain.size(), recipient.bytes.data()) != 0)
    std::fill(out.begin(), out.end(), std::uint8_t{0});
  return out;
}

std::optional<SecretBytes> open_box(const BoxKey& key, ByteView box) {
  if (box.size() < kBoxOverheadBytes) return std::nullopt;
  SecretBytes secret(crypto_box_SECRETKEYBYTES);
  BoxPublicKey public_key;
  if (crypto_box_seed_keypair(public_key.bytes.data(), secret.mut().data(),
                              key.seed.view().data()) != 0)
    std::abort();
  SecretBytes out(box.size() - kBoxOverheadBytes);
  std::uint8_t none = 0;
  std::uint8_t* const target = out.empty() ? &none : out.mut().data();
  if (crypto_box_seal_open(target, box.data(), box.size(), public_key.bytes.data(),
                           secret.view().data()) != 0)
    return std::nullopt;
  return out;
}

}  // namespace dims::crypto
