// Keys for tests: made whole, for a key that is held (crypto::HeldKey) is never changed in place.
// Threads: free functions.
#pragma once

#include "common/base/bytes.h"

namespace dims::test {

inline Secret32 filled_key(std::uint8_t byte) {
  Secret32 key;
  key.bytes.fill(byte);
  return key;
}
inline Secret32 bent_key(Secret32 key, std::size_t at) {
  key.bytes[at] ^= 1;
  return key;
}

}  // namespace dims::test
