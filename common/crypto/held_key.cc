#include "common/crypto/held_key.h"

#include <sodium.h>

#include <cstdlib>
#include <cstring>

#include "common/crypto/hash.h"

namespace dims::crypto {
namespace {

std::shared_ptr<const Secret32> hold(const Secret32& key) {
  initialise();
  void* const memory = sodium_malloc(sizeof key);
  if (memory == nullptr) std::abort();
  std::memcpy(memory, &key, sizeof key);
  (void)sodium_mprotect_readonly(memory);
  return {static_cast<const Secret32*>(memory),
          [](const Secret32* held) { sodium_free(const_cast<Secret32*>(held)); }};
}

}  // namespace

HeldKey::HeldKey(const Secret32& key) : at_(hold(key)) {}

HeldKey::HeldKey(Secret32&& key) : at_(hold(key)) { wipe(key.mut()); }

const Secret32& HeldKey::key() const {
  static constexpr Secret32 kZeros{};
  return at_ == nullptr ? kZeros : *at_;
}

}  // namespace dims::crypto
