#include "common/crypto/aead.h"

#include <gcrypt.h>
#include <sodium.h>

#include <atomic>
#include <cstring>

#include "common/crypto/hash.h"
#include "common/crypto/require.h"
#include "common/crypto/seal_watch.h"

namespace dims::crypto {
namespace {

void require_ok(gcry_error_t error) { require(error == 0); }

void start_library() {
  static const bool started = [] {
    // The order that its manual asks for. These primitives are the same on a host with a FIPS
    // kernel. Contexts, which hold expanded keys, lie in locked memory of the library's: 2 KiB
    // each, a few a thread. Beyond this room, or where the host forbids locking, they are not
    // locked.
    constexpr int kLockedBytes = 1 << 20;
    require_ok(gcry_control(GCRYCTL_NO_FIPS_MODE));
    require(gcry_check_version(nullptr) != nullptr);
    require_ok(gcry_control(GCRYCTL_DISABLE_SECMEM_WARN));
    require_ok(gcry_control(GCRYCTL_INIT_SECMEM, kLockedBytes, 0));
    require_ok(gcry_control(GCRYCTL_AUTO_EXPAND_SECMEM, kLockedBytes));
    require_ok(gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0));
    return true;
  }();
  (void)started;
}

// A cipher context of one thread. One that holds the key already needs only the new nonce: most of
// what a small record costs beyond the cipher itself.
class Context {
 public:
  Context() = default;
  ~Context() { gcry_cipher_close(handle_); }  // wipes; takes nullptr
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // `identity` names the key; 0 is a key that is used once.
  gcry_cipher_hd_t start(std::uint64_t identity, const Secret32& key, std::uint64_t nonce,
                         ByteView ad) {
    if (handle_ == nullptr) {
      start_library();
      require_ok(
          gcry_cipher_open(&handle_, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_GCM, GCRY_CIPHER_SECURE));
    }
    if (identity == 0 || identity_ != identity) {
      require_ok(gcry_cipher_setkey(handle_, key.bytes.data(), key.bytes.size()));
      identity_ = identity;
    }
    const auto iv = iv_of(nonce);
    require_ok(gcry_cipher_setiv(handle_, iv.data(), iv.size()));
    if (!ad.empty()) require_ok(gcry_cipher_authenticate(handle_, ad.data(), ad.size()));
    return handle_;
  }

  static std::array<std::uint8_t, 12> iv_of(std::uint64_t nonce) {
    std::array<std::uint8_t, 12> iv{};
    for (std::size_t i = 0; i < 8; ++i) iv[i] = static_cast<std::uint8_t>(nonce >> (8 * i));
    return iv;
  }

 private:
  gcry_cipher_hd_t handle_ = nullptr;
  std::uint64_t identity_ = 0;
};

constexpr std::size_t kContexts = 16;

Context& context_of(std::uint64_t identity) {
  static thread_local std::array<Context, kContexts> contexts;
  return contexts[identity % kContexts];
}

Context& context_once() {
  static thread_local Context context;
  return context;
}

void run_seal(gcry_cipher_hd_t cipher, ByteView plain, std::uint8_t* out, std::uint8_t* tag) {
  if (!plain.empty())
    require_ok(gcry_cipher_encrypt(cipher, out, plain.size(), plain.data(), plain.size()));
  require_ok(gcry_cipher_gettag(cipher, tag, kTagBytes));
}

bool run_open(gcry_cipher_hd_t cipher, ByteView sealed, const std::uint8_t* tag,
              std::uint8_t* out) {
  // `out` may lie where the tag is.
  std::array<std::uint8_t, kTagBytes> copy;
  std::memcpy(copy.data(), tag, kTagBytes);
  if (!sealed.empty())
    require_ok(gcry_cipher_decrypt(cipher, out, sealed.size(), sealed.data(), sealed.size()));
  if (gcry_cipher_checktag(cipher, copy.data(), kTagBytes) == 0) return true;
  std::memset(out, 0, sealed.size());  // unverified text must not leave this function
  return false;
}

std::uint64_t next_identity() {
  static std::atomic<std::uint64_t> next{1};
  return next.fetch_add(1);
}

}  // namespace

PageCipher::PageCipher(const Secret32& key) : key_(key), identity_(next_identity()) {}

void PageCipher::seal(std::uint64_t nonce, ByteView ad, ByteView plain, std::uint8_t* out,
                      std::uint8_t* tag) const {
  internal::watch_seal(key_, Context::iv_of(nonce), ad, plain);
  run_seal(context_of(identity_).start(identity_, key_, nonce, ad), plain, out, tag);
}

bool PageCipher::open(std::uint64_t nonce, ByteView ad, ByteView sealed, const std::uint8_t* tag,
                      std::uint8_t* out) const {
  return run_open(context_of(identity_).start(identity_, key_, nonce, ad), sealed, tag, out);
}

void seal_once(const Secret32& key, ByteView ad, ByteView plain, std::uint8_t* out,
               std::uint8_t* tag) {
  internal::watch_seal(key, Context::iv_of(0), ad, plain);
  run_seal(context_once().start(0, key, 0, ad), plain, out, tag);
}

bool open_once(const Secret32& key, ByteView ad, ByteView sealed, const std::uint8_t* tag,
               std::uint8_t* out) {
  return run_open(context_once().start(0, key, 0, ad), sealed, tag, out);
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
