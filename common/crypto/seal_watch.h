// A seam for tests: whoever watches is told of every seal that this process makes, so that a test
// can prove that no nonce is used twice under one key. Nobody watches in a program of ours.
//
// Threads: set before seals start and after they end; the watcher is called from many threads.
// Ownership: the watcher outlives its being set. Cost when nobody watches: one relaxed load.
#pragma once

#include <atomic>

#include "common/base/bytes.h"

namespace dims::crypto {

class SealWatch {
 public:
  virtual ~SealWatch() = default;
  // `key` names the key and does not give it away: SHA-256 of it. `message` is SHA-256 of
  // associated data and text: two seals of the same message under one key and nonce tell nothing.
  virtual void sealed(const Digest& key, ByteView nonce, const Digest& message) = 0;
};

// nullptr: nobody. Returns who watched before.
SealWatch* set_seal_watch(SealWatch* watch);

namespace internal {
extern std::atomic<SealWatch*> seal_watch;
void tell_seal_watch(SealWatch& watch, const Secret32& key, ByteView nonce, ByteView ad,
                     ByteView plain);
inline void watch_seal(const Secret32& key, ByteView nonce, ByteView ad, ByteView plain) {
  if (SealWatch* const watch = seal_watch.load(std::memory_order_relaxed))
    tell_seal_watch(*watch, key, nonce, ad, plain);
}
}  // namespace internal

}  // namespace dims::crypto
