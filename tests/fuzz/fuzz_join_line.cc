// Join lines and recovery words as people type them.
#include "common/trust/join_line.h"
#include "tests/fuzz/trust_seeds.h"

using namespace dims;
using namespace dims::trust;

std::vector<Bytes> fuzz_seeds() {
  SeededRandom random(1);
  JoinLine line;
  line.address = "server:7440";
  line.server = random.id<Digest>();
  line.org = random.id<OrgId>();
  line.token = make_join_token(random);
  const std::string text = encode_join_line(line);
  const auto words = words_of(random.id<Digest>().view().first(kRecoveryEntropyBytes));
  return {Bytes(text.begin(), text.end()), Bytes(words.view().begin(), words.view().end())};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = as_text({data, size});
  if (const auto line = parse_join_line(text); line.ok()) {
    // One line has one spelling, but for the blanks around it.
    if (text.find(encode_join_line(*line)) == std::string_view::npos) std::abort();
  }
  if (const auto entropy = parse_words(text); entropy.ok()) {
    const auto words = words_of(entropy->view());
    if (!parse_words(words.text()).ok()) std::abort();
  }
  return 0;
}
