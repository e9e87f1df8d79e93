// The root key's file: what opens it, what does not, and its golden file.
#include <catch2/catch.hpp>

#include "common/crypto/aead.h"
#include "common/trust/root_key.h"
#include "tests/unit/golden_pages.h"
#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

TEST_CASE("root: the file opens with its own words and with nothing else") {
  SeededRandom random(seed());
  const auto root = crypto::SecretSigner::from_seed(crypto::SecretKey::random(random));
  const SealedRoot sealed = seal_root(root, random), other = seal_root(root, random);
  CHECK(sealed.file.size() == kRootFileBytes);
  const auto opened = open_root(sealed.file, sealed.words.text());
  MUST(opened);
  CHECK(opened->seed.key() == root.seed.key());
  CHECK(opened->public_key == root.public_key);
  REFUSED(open_root(sealed.file, other.words.text()), ErrorCode::kWrongKey);
  REFUSED(open_root(sealed.file, "no words at all"), ErrorCode::kInvalidArgument);
  for (std::size_t at = 0; at < sealed.file.size(); ++at) {
    Bytes bent = sealed.file;
    bent[at] ^= static_cast<std::uint8_t>(1U << random.below(8));
    INFO("byte " << at);
    CHECK(!open_root(bent, sealed.words.text()).ok());
    CHECK(!open_root(ByteView(sealed.file).first(at), sealed.words.text()).ok());
  }
  Bytes longer = sealed.file;
  longer.push_back(0);
  REFUSED(open_root(longer, sealed.words.text()), ErrorCode::kCorrupt);
}

TEST_CASE("golden: the root key's file") {
  Counting values(1);
  const auto root = crypto::SecretSigner::from_seed(crypto::SecretKey::random(values));
  const SealedRoot made = seal_root(root, values);
  const Bytes bytes = golden("root_key.hex", made.file);
  CHECK(std::equal(bytes.begin(), bytes.end(), made.file.begin(), made.file.end()));
  auto table = page_table("root-key.md", "File");
  CHECK(table.at("root key").offset == 8);
  CHECK(table.at("sealed").offset + table.at("sealed").bytes == kRootFileBytes);
  MUST(open_root(bytes, made.words.text()));
}
