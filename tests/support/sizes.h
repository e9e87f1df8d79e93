// How large a harness runs: DIMS_TEST_SIZE = small (default), large, or a number of rounds.
// Threads: free functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "tests/support/seed.h"

namespace dims::test {

// A sanitizer finds in the first hundred repetitions what it finds at all, and makes each of them
// many times as long: "small" is a part of itself in its build. Odd, because neighbours take turns.
#if defined(__SANITIZE_THREAD__)
inline constexpr std::uint64_t kOneIn = 19;
#elif defined(__SANITIZE_ADDRESS__)
inline constexpr std::uint64_t kOneIn = 5;
#else
inline constexpr std::uint64_t kOneIn = 1;
#endif

inline std::string size_given() {
  const char* given = std::getenv("DIMS_TEST_SIZE");
  return given != nullptr && *given != 0 ? given : "small";
}

inline std::uint64_t rounds(std::uint64_t small, std::uint64_t large) {
  const std::string given = size_given();
  if (given == "small") return std::max(small / kOneIn, std::min<std::uint64_t>(small, 4));
  if (given == "large") return large;
  return std::strtoull(given.c_str(), nullptr, 0);
}

// For harnesses that let every call fail in turn: which ones, chosen by the seed.
struct Calls {
  std::uint64_t first = 0;
  std::uint64_t step = 1;
};
inline Calls calls_to_fail() {
  const std::uint64_t step = size_given() == "small" ? kOneIn : 1;
  return {seed() % step, step};
}

}  // namespace dims::test
