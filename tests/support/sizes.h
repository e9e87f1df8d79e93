// How large a harness runs: DIMS_TEST_SIZE = small (default), large, or a number of rounds.
// DIMS_TEST_SHARD = K/N: of a plan that a seed gives, each Nth cell from the Kth (0 to N - 1), so
// that N processes with one seed share a plan that is mostly waiting. Threads: free functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
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

struct Shard {
  std::size_t first = 0, of = 1;
  bool has(std::size_t cell) const { return cell % of == first; }
};

inline Shard shard() {
  Shard out;
  const char* const given = std::getenv("DIMS_TEST_SHARD");
  if (given == nullptr) return out;
  if (std::sscanf(given, "%zu/%zu", &out.first, &out.of) != 2 || out.first >= out.of) {
    std::fprintf(stderr, "DIMS_TEST_SHARD=%s is not K/N with K below N\n", given);
    std::abort();
  }
  return out;
}

}  // namespace dims::test
