// The seed of this test run: printed at the start; DIMS_TEST_SEED=N replays it.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "common/base/clock.h"

namespace dims::test {

inline std::uint64_t seed() {
  static const std::uint64_t value = [] {
    const char* given = std::getenv("DIMS_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 0) : system_random().u64() >> 16;
  }();
  return value;
}

}  // namespace dims::test
