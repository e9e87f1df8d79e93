// Key files that somebody has edited.
#include <cstdlib>

#include "common/format/key_file.h"
#include "tests/fuzz/fuzz_input.h"

using namespace dims;

std::vector<Bytes> fuzz_seeds() {
  SeededRandom random(1);
  const std::string text = format::encode_key_file(format::generate_key_file(random));
  return {Bytes(text.begin(), text.end())};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto key = format::parse_key_file(as_text({data, size}));
  // What parses can be written and read again.
  if (key.ok() && !format::parse_key_file(format::encode_key_file(*key)).ok()) std::abort();
  return 0;
}
