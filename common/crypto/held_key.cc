#include "common/crypto/held_key.h"

#include <sodium.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "common/crypto/hash.h"

namespace dims::crypto {
namespace {

// Where held keys lie. Guarded pages of one's own cost eight system calls a key, and each file of a
// journal or cache has a key: they share pages. A page stays when its keys have gone.
class KeyPages {
 public:
  Secret32* add(const Secret32& key) {
    const std::scoped_lock lock(mutex_);
    if (free_.empty()) grow();
    Secret32* const at = free_.back();
    free_.pop_back();
    *at = key;
    return at;
  }

  void remove(Secret32* key) {
    wipe(key->mut());
    const std::scoped_lock lock(mutex_);
    free_.push_back(key);
  }

 private:
  void grow() {
    // With sodium's own 16 bytes before them they fill a page.
    constexpr std::size_t kKeys = 4096 / sizeof(Secret32) - 1;
    initialise();
    auto* const keys = static_cast<Secret32*>(sodium_allocarray(kKeys, sizeof(Secret32)));
    if (keys == nullptr) std::abort();
    for (std::size_t i = kKeys; i-- > 0;) free_.push_back(keys + i);
  }

  std::mutex mutex_;
  std::vector<Secret32*> free_;
};

std::shared_ptr<const Secret32> hold(const Secret32& key) {
  // Never destroyed: keys of other static objects may go later.
  static KeyPages& pages = *new KeyPages;
  return {pages.add(key), [](const Secret32* held) { pages.remove(const_cast<Secret32*>(held)); }};
}

}  // namespace

HeldKey::HeldKey(const Secret32& key) : at_(hold(key)) {}

HeldKey::HeldKey(Secret32&& key) : at_(hold(key)) { wipe(key.mut()); }

const Secret32& HeldKey::key() const {
  static constexpr Secret32 kZeros{};
  return at_ == nullptr ? kZeros : *at_;
}

}  // namespace dims::crypto
