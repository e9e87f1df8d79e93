// Runs a fuzz target without libFuzzer: its good inputs, and mutations of them from a printed seed.
// FUZZ_RUNS=N sets how many.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/fuzz_input.h"
#include "tests/support/seed.h"

int main() {
  const char* given = std::getenv("FUZZ_RUNS");
  const long runs = given != nullptr ? std::strtol(given, nullptr, 10) : 20000;
  dims::SeededRandom random(dims::test::seed());
  std::printf("DIMS_TEST_SEED=%llu FUZZ_RUNS=%ld\n",
              static_cast<unsigned long long>(dims::test::seed()), runs);
  const std::vector<dims::Bytes> seeds = fuzz_seeds();
  if (seeds.empty()) return 1;
  for (const dims::Bytes& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  for (long i = 0; i < runs; ++i) {
    dims::Bytes input = seeds[random.below(seeds.size())];
    for (std::uint64_t changes = 1 + random.below(4); changes > 0 && !input.empty(); --changes) {
      const std::size_t at = random.below(input.size());
      switch (random.below(5)) {
        case 0:
          input[at] = static_cast<std::uint8_t>(random.next());
          break;
        case 1:
          input[at] ^= static_cast<std::uint8_t>(1u << random.below(8));
          break;
        case 2:
          input.resize(at);
          break;
        case 3:
          input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), 1 + random.below(9),
                       std::uint8_t{0xff});
          break;
        default:
          input.erase(input.begin() + static_cast<std::ptrdiff_t>(at));
          break;
      }
    }
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%ld inputs, no crash\n", runs);
  return 0;
}
