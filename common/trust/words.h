// Recovery words: 128 random bits as twelve pronounceable words of five letters, for paper.
//
// A word is consonant-vowel-consonant-vowel and a check letter that depends on the other four and
// on the word's place, so that a wrong letter, or a word in another's place, is found word by word;
// sixteen more bits check the whole. Made by this rule: there is no list (docs/formats/words.md).
// Threads: thread-safe. Errors: kInvalidArgument naming the word by its number.
#pragma once

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/crypto/secret.h"

namespace dims::trust {

inline constexpr std::size_t kRecoveryWords = 12;
inline constexpr std::size_t kRecoveryEntropyBytes = 16;

// Twelve words separated by blanks.
crypto::SecretBytes words_of(ByteView entropy);
// Upper case, line ends, commas and hyphens are taken as they come.
Result<crypto::SecretBytes> parse_words(std::string_view text);

}  // namespace dims::trust
