// Secrets in memory: locked (never swapped), excluded from core dumps, between guard pages, wiped
// when they go. For passphrases, user keys, domain secrets, seeds: whatever outlives a call.
//
// Threads: values with one owner at a time; const access from several threads is safe.
// Ownership: moved, never copied in silence; clone() says it aloud. A moved-from value is empty.
// Units: bytes. Errors: no memory aborts. A host that forbids locking (RLIMIT_MEMLOCK) is not an
// error: memory_can_be_locked() says so, and the programs warn.
#pragma once

#include <string_view>

#include "common/base/clock.h"
#include "common/crypto/sign.h"

namespace dims::crypto {

class SecretBytes {
 public:
  SecretBytes() = default;
  explicit SecretBytes(std::size_t size);
  ~SecretBytes();
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;

  // Copies `source` and wipes it.
  static SecretBytes take(MutByteView source);
  static SecretBytes copy_of(ByteView source);
  SecretBytes clone() const { return copy_of(view()); }

  ByteView view() const { return {data_, size_}; }
  MutByteView mut() { return {data_, size_}; }
  std::string_view text() const { return as_text(view()); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Cuts the end off and wipes it.
  void shorten(std::size_t size);
  void clear();

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

// A 32-byte key in such memory; zeros until filled.
class SecretKey {
 public:
  SecretKey() : bytes_(Secret32::kBytes) {}
  // Takes the key over and wipes where it came from.
  static SecretKey take(Secret32& source);
  static SecretKey take(Secret32&& source) { return take(source); }
  static SecretKey random(Random& random);
  static std::optional<SecretKey> from_view(ByteView view);
  SecretKey clone() const;

  const Secret32& key() const { return *reinterpret_cast<const Secret32*>(bytes_.view().data()); }
  ByteView view() const { return bytes_.view(); }
  MutByteView mut() { return bytes_.mut(); }

 private:
  SecretBytes bytes_;
};
static_assert(sizeof(Secret32) == 32 && alignof(Secret32) == 1);

// An Ed25519 key whose seed stays in such memory.
struct SecretSigner {
  SecretKey seed;
  PublicKey public_key;

  static SecretSigner from_seed(SecretKey seed);
  SecretSigner clone() const { return {seed.clone(), public_key}; }
  Signature sign(std::string_view type, const OrgId& org, ByteView body) const;
};

// PRF and KDF (hash.h) whose result is born in such memory.
SecretKey secret_prf(const Secret32& key, std::string_view label,
                     std::initializer_list<ByteView> fields);
SecretKey secret_kdf(const Secret32& key, std::uint64_t index);
// unwrap() (aead.h) into such memory.
std::optional<SecretBytes> unwrap_secret(const Secret32& key, ByteView ad, ByteView wrapped);

// Whether this process may lock memory now.
bool memory_can_be_locked();

}  // namespace dims::crypto
