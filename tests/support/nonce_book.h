// Writes down every seal of this process while it lives, and counts nonces that came twice under
// one key. One book at a time. Threads: thread-safe.
#pragma once

#include <cstdlib>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/base/mutex.h"
#include "common/crypto/seal_watch.h"

namespace dims::test {

class NonceBook : public crypto::SealWatch {
 public:
  NonceBook() {
    if (crypto::set_seal_watch(this) != nullptr) std::abort();
  }
  ~NonceBook() override { crypto::set_seal_watch(nullptr); }

  void sealed(const Digest& key, ByteView nonce, const Digest& message) override {
    std::string place(as_text(key.view()));
    place += as_text(nonce);
    const MutexLock lock(mutex_);
    ++seals_;
    const auto [found, fresh] = book_.emplace(std::move(place), message);
    if (fresh) return;
    if (found->second == message)
      ++same_again_;
    else
      ++repeats_;
  }

  std::uint64_t seals() const {
    const MutexLock lock(mutex_);
    return seals_;
  }
  // Two messages under one key and nonce: what must never be.
  std::uint64_t repeats() const {
    const MutexLock lock(mutex_);
    return repeats_;
  }
  // The very same message again, which tells nothing: objects are sealed so by design.
  std::uint64_t same_again() const {
    const MutexLock lock(mutex_);
    return same_again_;
  }

 private:
  mutable Mutex mutex_;
  std::unordered_map<std::string, Digest> book_ DIMS_GUARDED_BY(mutex_);
  std::uint64_t seals_ DIMS_GUARDED_BY(mutex_) = 0;
  std::uint64_t repeats_ DIMS_GUARDED_BY(mutex_) = 0;
  std::uint64_t same_again_ DIMS_GUARDED_BY(mutex_) = 0;
};

}  // namespace dims::test
