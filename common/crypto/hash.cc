#include "common/crypto/hash.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <sodium.h>

#include <cstdlib>

#include "common/crypto/require.h"

namespace dims::crypto {
namespace {

const EVP_MD* sha256_md() {
  // Fetched once: the implicit fetch of EVP_sha256() costs a lock and a lookup at every use.
  static EVP_MD* const md = EVP_MD_fetch(nullptr, "SHA2-256", nullptr);
  return md;
}

// A digest context that a thread reuses.
EVP_MD_CTX* thread_context() {
  struct Holder {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    ~Holder() { EVP_MD_CTX_free(context); }
  };
  static thread_local Holder holder;
  return holder.context;
}

EVP_MAC_CTX* thread_mac() {
  struct Holder {
    EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
    EVP_MAC_CTX* context = EVP_MAC_CTX_new(mac);
    Holder() {
      char digest[] = "SHA256";
      const OSSL_PARAM params[] = {
          OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
          OSSL_PARAM_construct_end()};
      require(EVP_MAC_CTX_set_params(context, params) == 1);
    }
    ~Holder() {
      EVP_MAC_CTX_free(context);
      EVP_MAC_free(mac);
    }
  };
  static thread_local Holder holder;
  return holder.context;
}

}  // namespace

void initialise() { require(sodium_init() >= 0); }

Digest sha256(ByteView data) { return sha256({data}); }

Digest sha256(std::initializer_list<ByteView> parts) {
  EVP_MD_CTX* const context = thread_context();
  require(EVP_DigestInit_ex2(context, sha256_md(), nullptr) == 1);
  for (const ByteView part : parts)
    require(EVP_DigestUpdate(context, part.data(), part.size()) == 1);
  Digest digest;
  require(EVP_DigestFinal_ex(context, digest.bytes.data(), nullptr) == 1);
  return digest;
}

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  require(EVP_DigestInit_ex2(state_->context, sha256_md(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(ByteView data) {
  require(EVP_DigestUpdate(state_->context, data.data(), data.size()) == 1);
}

Digest Sha256::peek() const {
  EVP_MD_CTX* const copy = thread_context();
  require(EVP_MD_CTX_copy_ex(copy, state_->context) == 1);
  Digest digest;
  require(EVP_DigestFinal_ex(copy, digest.bytes.data(), nullptr) == 1);
  return digest;
}

Secret32 prf(const Secret32& key, std::string_view label, std::initializer_list<ByteView> fields) {
  EVP_MAC_CTX* const mac = thread_mac();
  require(EVP_MAC_init(mac, key.bytes.data(), key.bytes.size(), nullptr) == 1);
  const auto field = [&](ByteView bytes) {
    std::uint8_t length[8];
    for (int i = 0; i < 8; ++i)
      length[i] = static_cast<std::uint8_t>(static_cast<std::uint64_t>(bytes.size()) >> (8 * i));
    require(EVP_MAC_update(mac, length, sizeof length) == 1);
    require(EVP_MAC_update(mac, bytes.data(), bytes.size()) == 1);
  };
  field(as_bytes(label));
  for (const ByteView bytes : fields) field(bytes);
  Secret32 out;
  std::size_t length = 0;
  require(EVP_MAC_final(mac, out.bytes.data(), &length, out.bytes.size()) == 1 && length == 32);
  // OpenSSL keeps a context's key until it gets another one.
  static constexpr Secret32 kNoKey{};
  require(EVP_MAC_init(mac, kNoKey.bytes.data(), kNoKey.bytes.size(), nullptr) == 1);
  return out;
}

std::uint64_t short_hash(const ShortKey& key, ByteView data) {
  static_assert(crypto_shorthash_KEYBYTES == sizeof(ShortKey) &&
                crypto_shorthash_BYTES == sizeof(std::uint64_t));
  std::uint64_t hash = 0;
  crypto_shorthash(reinterpret_cast<std::uint8_t*>(&hash), data.data(), data.size(), key.data());
  return hash;
}

Secret32 kdf(const Secret32& key, std::uint64_t index) {
  Secret32 out;
  static constexpr char kContext[crypto_kdf_CONTEXTBYTES + 1] = "dims-kdf";
  require(crypto_kdf_derive_from_key(out.bytes.data(), out.bytes.size(), index, kContext,
                                     key.bytes.data()) == 0);
  return out;
}

bool equal_constant_time(ByteView a, ByteView b) {
  return a.size() == b.size() && sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

void wipe(MutByteView secret) { sodium_memzero(secret.data(), secret.size()); }

}  // namespace dims::crypto
