// The organisation's root key on its first administrator's machine: a file, sealed under twelve
// words of its own (docs/formats/root-key.md). It is for the day on which no administrator can log
// in: so nothing that one of them has, or may lose or change, opens it, and copies stay good.
//
// Threads: values. Errors of open_root(): kInvalidArgument (words that are none), kWrongKey (other
// words), kCorrupt, kUnsupported.
#pragma once

#include "common/trust/types.h"
#include "common/trust/words.h"

namespace dims::trust {

inline constexpr std::size_t kRootFileBytes = 8 + 32 + 32 + 40;

struct SealedRoot {
  Bytes file;
  crypto::SecretBytes words;  // show once, keep nowhere
};
SealedRoot seal_root(const crypto::SecretSigner& root, Random& random);
Result<crypto::SecretSigner> open_root(ByteView file, std::string_view words);

}  // namespace dims::trust
