#include "common/crypto/aead.h"

#include <openssl/evp.h>
#include <sodium.h>

#include <atomic>
#include <cstdlib>

#include "common/crypto/hash.h"
#include "common/crypto/seal_watch.h"

namespace dims::crypto {
namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

const EVP_CIPHER* gcm() {
  static EVP_CIPHER* const cipher = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  return cipher;
}

// Cipher contexts of one thread. A context that already holds the key needs only the new nonce,
// which is most of what a 4 KiB page costs beyond the cipher itself.
struct Contexts {
  struct Slot {
    EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
    std::uint64_t identity = 0;
  };
  static constexpr std::size_t kSlots = 16;
  std::array<Slot, kSlots> seal;
  std::array<Slot, kSlots> open;
  Slot once_seal;
  Slot once_open;
  ~Contexts() {
    for (auto& s : seal) EVP_CIPHER_CTX_free(s.context);
    for (auto& s : open) EVP_CIPHER_CTX_free(s.context);
    EVP_CIPHER_CTX_free(once_seal.context);
    EVP_CIPHER_CTX_free(once_open.context);
  }
};

Contexts& contexts() {
  static thread_local Contexts instance;
  return instance;
}

std::array<std::uint8_t, 12> iv_of(std::uint64_t nonce) {
  std::array<std::uint8_t, 12> iv{};
  for (std::size_t i = 0; i < 8; ++i) iv[i] = static_cast<std::uint8_t>(nonce >> (8 * i));
  return iv;
}

void start(Contexts::Slot& slot, std::uint64_t identity, const Secret32& key, std::uint64_t nonce,
           int enc) {
  const auto iv = iv_of(nonce);
  if (identity == 0 || slot.identity != identity) {
    require(EVP_CipherInit_ex(slot.context, gcm(), nullptr, key.bytes.data(), iv.data(), enc) == 1);
    slot.identity = identity;
  } else {
    require(EVP_CipherInit_ex(slot.context, nullptr, nullptr, nullptr, iv.data(), enc) == 1);
  }
}

void run_seal(EVP_CIPHER_CTX* context, ByteView ad, ByteView plain, std::uint8_t* out,
              std::uint8_t* tag) {
  int n = 0;
  if (!ad.empty())
    require(EVP_EncryptUpdate(context, nullptr, &n, ad.data(), static_cast<int>(ad.size())) == 1);
  if (!plain.empty()) {
    require(EVP_EncryptUpdate(context, out, &n, plain.data(), static_cast<int>(plain.size())) == 1);
  }
  require(EVP_EncryptFinal_ex(context, out + plain.size(), &n) == 1);
  require(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag) == 1);
}

bool run_open(EVP_CIPHER_CTX* context, ByteView ad, ByteView sealed, const std::uint8_t* tag,
              std::uint8_t* out) {
  int n = 0;
  std::array<std::uint8_t, kTagBytes> copy;
  std::memcpy(copy.data(), tag, kTagBytes);
  if (!ad.empty())
    require(EVP_DecryptUpdate(context, nullptr, &n, ad.data(), static_cast<int>(ad.size())) == 1);
  if (!sealed.empty()) {
    require(EVP_DecryptUpdate(context, out, &n, sealed.data(), static_cast<int>(sealed.size())) ==
            1);
  }
  require(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, kTagBytes, copy.data()) == 1);
  if (EVP_DecryptFinal_ex(context, out + sealed.size(), &n) == 1) return true;
  std::memset(out, 0, sealed.size());  // unverified text must not leave this function
  return false;
}

std::uint64_t next_identity() {
  static std::atomic<std::uint64_t> next{1};
  return next.fetch_add(1);
}

}  // namespace

PageCipher::PageCipher(const Secret32& key) : key_(key), identity_(next_identity()) {}
PageCipher::~PageCipher() { wipe(key_.mut()); }

void PageCipher::seal(std::uint64_t nonce, ByteView ad, ByteView plain, std::uint8_t* out,
                      std::uint8_t* tag) const {
  internal::watch_seal(key_, iv_of(nonce), ad, plain);
  auto& slot = contexts().seal[identity_ % Contexts::kSlots];
  start(slot, identity_, key_, nonce, 1);
  run_seal(slot.context, ad, plain, out, tag);
}

bool PageCipher::open(std::uint64_t nonce, ByteView ad, ByteView sealed, const std::uint8_t* tag,
                      std::uint8_t* out) const {
  auto& slot = contexts().open[identity_ % Contexts::kSlots];
  start(slot, identity_, key_, nonce, 0);
  return run_open(slot.context, ad, sealed, tag, out);
}

void seal_once(const Secret32& key, ByteView ad, ByteView plain, std::uint8_t* out,
               std::uint8_t* tag) {
  internal::watch_seal(key, iv_of(0), ad, plain);
  auto& slot = contexts().once_seal;
  start(slot, 0, key, 0, 1);
  run_seal(slot.context, ad, plain, out, tag);
}

bool open_once(const Secret32& key, ByteView ad, ByteView sealed, const std::uint8_t* tag,
               std::uint8_t* out) {
  auto& slot = contexts().once_open;
  start(slot, 0, key, 0, 0);
  return run_open(slot.context, ad, sealed, tag, out);
}

Bytes wrap(const Secret32& key, ByteView ad, ByteView plain, Random& random) {
  static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == 24 &&
                crypto_aead_xchacha20poly1305_ietf_ABYTES == 16);
  Bytes out(24 + plain.size() + 16);
  random.fill(MutByteView(out).first(24));
  internal::watch_seal(key, ByteView(out).first(24), ad, plain);
  unsigned long long length = 0;
  crypto_aead_xchacha20poly1305_ietf_encrypt(out.data() + 24, &length, plain.data(), plain.size(),
                                             ad.data(), ad.size(), nullptr, out.data(),
                                             key.bytes.data());
  return out;
}

std::optional<Bytes> unwrap(const Secret32& key, ByteView ad, ByteView wrapped) {
  if (wrapped.size() < kWrapOverheadBytes) return std::nullopt;
  Bytes out(wrapped.size() - kWrapOverheadBytes);
  if (!unwrap_into(key, ad, wrapped, out)) return std::nullopt;
  return out;
}

bool unwrap_into(const Secret32& key, ByteView ad, ByteView wrapped, MutByteView out) {
  if (wrapped.size() < kWrapOverheadBytes || out.size() != wrapped.size() - kWrapOverheadBytes)
    return false;
  unsigned long long length = 0;
  std::uint8_t none = 0;
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(
          out.empty() ? &none : out.data(), &length, nullptr, wrapped.data() + 24,
          wrapped.size() - 24, ad.data(), ad.size(), wrapped.data(), key.bytes.data()) == 0)
    return true;
  wipe(out);
  return false;
}

}  // namespace dims::crypto
