#include "common/crypto/secret.h"

#include <sodium.h>

#include <cstdlib>
#include <utility>

#include "common/crypto/aead.h"
#include "common/crypto/hash.h"

namespace dims::crypto {

SecretBytes::SecretBytes(std::size_t size) : size_(size) {
  if (size == 0) return;
  initialise();
  data_ = static_cast<std::uint8_t*>(sodium_malloc(size));
  if (data_ == nullptr) std::abort();
  std::memset(data_, 0, size);
}

SecretBytes::~SecretBytes() { clear(); }

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this != &other) {
    clear();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

SecretBytes SecretBytes::copy_of(ByteView source) {
  SecretBytes out(source.size());
  if (!source.empty()) std::memcpy(out.data_, source.data(), source.size());
  return out;
}

SecretBytes SecretBytes::take(MutByteView source) {
  SecretBytes out = copy_of(source);
  wipe(source);
  return out;
}

void SecretBytes::shorten(std::size_t size) {
  if (size >= size_) return;
  wipe(mut().subspan(size));
  size_ = size;
  if (size == 0) clear();
}

void SecretBytes::clear() {
  sodium_free(data_);  // wipes; takes nullptr
  data_ = nullptr;
  size_ = 0;
}

SecretKey SecretKey::take(Secret32& source) {
  SecretKey out;
  std::memcpy(out.mut().data(), source.bytes.data(), Secret32::kBytes);
  wipe(source.mut());
  return out;
}

SecretKey SecretKey::random(Random& random) {
  SecretKey out;
  random.fill(out.mut());
  return out;
}

std::optional<SecretKey> SecretKey::from_view(ByteView view) {
  if (view.size() != Secret32::kBytes) return std::nullopt;
  SecretKey out;
  std::memcpy(out.mut().data(), view.data(), view.size());
  return out;
}

SecretKey SecretKey::clone() const {
  SecretKey out;
  std::memcpy(out.mut().data(), view().data(), Secret32::kBytes);
  return out;
}

SecretSigner SecretSigner::from_seed(SecretKey seed) {
  SecretBytes pair(crypto_sign_SECRETKEYBYTES);
  PublicKey public_key;
  if (crypto_sign_seed_keypair(public_key.bytes.data(), pair.mut().data(), seed.view().data()) != 0)
    std::abort();
  return {std::move(seed), public_key};
}

Signature SecretSigner::sign(std::string_view type, const OrgId& org, ByteView body) const {
  return crypto::sign(seed.key(), type, org, body);
}

SecretKey secret_prf(const Secret32& key, std::string_view label,
                     std::initializer_list<ByteView> fields) {
  Secret32 out = prf(key, label, fields);
  return SecretKey::take(out);
}

SecretKey secret_kdf(const Secret32& key, std::uint64_t index) {
  Secret32 out = kdf(key, index);
  return SecretKey::take(out);
}

std::optional<SecretBytes> unwrap_secret(const Secret32& key, ByteView ad, ByteView wrapped) {
  if (wrapped.size() < kWrapOverheadBytes) return std::nullopt;
  SecretBytes out(wrapped.size() - kWrapOverheadBytes);
  if (!unwrap_into(key, ad, wrapped, out.mut())) return std::nullopt;
  return out;
}

bool memory_can_be_locked() {
  initialise();
  alignas(4096) static std::uint8_t page[4096];
  if (sodium_mlock(page, sizeof page) != 0) return false;
  sodium_munlock(page, sizeof page);
  return true;
}

}  // namespace dims::crypto
