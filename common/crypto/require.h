// What a cryptographic library never refuses, save without memory or in a wrong build of it: then
// nothing goes on. Private to this folder. Threads: a free function.
#pragma once

#include <cstdlib>

namespace dims::crypto {

inline void require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace dims::crypto
