// How large a harness runs: DIMS_TEST_SIZE = small (default), large, or a number of rounds.
// Threads: free functions.
#pragma once

#include <cstdint>
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

}  // namespace dims::test
