// In a libFuzzer build: with DIMS_FUZZ_SEEDS=FOLDER the target writes its good inputs there and
// ends (scripts/fuzz does so), so that fuzzing starts from them too.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  const char* const folder = std::getenv("DIMS_FUZZ_SEEDS");
  if (folder == nullptr) return 0;
  std::size_t number = 0;
  for (const dims::Bytes& seed : fuzz_seeds()) {
    const std::string path = std::string(folder) + "/seed-" + std::to_string(number++);
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(seed.data()),
              static_cast<std::streamsize>(seed.size()));
    if (!out.flush()) {
      std::fprintf(stderr, "cannot write %s\n", path.c_str());
      std::exit(1);
    }
  }
  std::exit(number == 0 ? 1 : 0);
}
