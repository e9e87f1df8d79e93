// How large a harness runs: DIMS_TEST_SIZE = small (default), large, or a number of rounds.
// DIMS_TEST_SHARD = K/N: of a plan that a seed gives, each Nth cell from the Kth (0 to N - 1), so
// that N processes with one seed share a plan that is mostly waiting. Threads: free functions.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace dims::test {

inline std::uint64_t rounds(std::uint64_t small, std::uint64_t large) {
  const char* given = std::getenv("DIMS_TEST_SIZE");
  const std::string text = given != nullptr ? given : "small";
  if (text == "small" || text.empty()) return small;
  if (text == "large") return large;
  return std::strtoull(text.c_str(), nullptr, 0);
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
