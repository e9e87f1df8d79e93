#include "common/trust/root_key.h"

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/crypto/hash.h"
#include "common/trust/record.h"

namespace dims::trust {
namespace {

constexpr std::uint32_t kMagic = 0x31544f52;  // "ROT1"
constexpr std::size_t kHeadBytes = 8 + 32;

crypto::SecretKey root_words_key(ByteView entropy, const OrgId& org) {
  crypto::SecretKey padded;
  std::copy(entropy.begin(), entropy.end(), padded.mut().begin());
  return crypto::secret_prf(padded.key(), "root-key", {org.view()});
}

}  // namespace

SealedRoot seal_root(const crypto::SecretSigner& root, Random& random) {
  crypto::SecretBytes entropy(kRecoveryEntropyBytes);
  random.fill(entropy.mut());
  SealedRoot out;
  Writer w(out.file);
  w.u32(kMagic);
  w.u16(1);
  w.u16(0);
  w.id(root.public_key);
  const crypto::SecretKey key = root_words_key(entropy.view(), org_of(root.public_key));
  w.raw(crypto::wrap(key.key(), out.file, root.seed.view(), random));
  out.words = words_of(entropy.view());
  return out;
}

Result<crypto::SecretSigner> open_root(ByteView file, std::string_view words) {
  Reader r(file);
  const bool magic = r.u32() == kMagic;
  const std::uint16_t format = r.u16();
  const std::uint16_t reserved = r.u16();
  const auto public_key = r.id<PublicKey>();
  if (!magic || !r.ok())
    return make_error(ErrorCode::kCorrupt, "root key: this is not a root key's file",
                      "name the file 'root-key' that 'rdim init-org' made, or a copy of it");
  if (format != 1)
    return make_error(ErrorCode::kUnsupported, "root key of an unknown format",
                      "update this program");
  if (file.size() != kRootFileBytes || reserved != 0)
    return make_error(ErrorCode::kCorrupt, "root key: the file is damaged", "use a copy of it");
  DIMS_ASSIGN(const crypto::SecretBytes entropy, parse_words(words));
  const auto seed = crypto::unwrap_secret(root_words_key(entropy.view(), org_of(public_key)).key(),
                                          file.first(kHeadBytes), file.subspan(kHeadBytes));
  if (!seed)
    return make_error(ErrorCode::kWrongKey, "root key: these words do not open it",
                      "it has words of its own, which 'rdim init-org' printed");
  auto root = crypto::SecretSigner::from_seed(*crypto::SecretKey::from_view(seed->view()));
  if (!(root.public_key == public_key))
    return make_error(ErrorCode::kCorrupt, "root key: its parts do not belong together");
  return root;
}

}  // namespace dims::trust
