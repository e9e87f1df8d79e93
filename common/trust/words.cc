#include "common/trust/words.h"

#include <algorithm>
#include <array>

#include "common/crypto/hash.h"

namespace dims::trust {
namespace {

constexpr std::string_view kConsonants = "bdfghjklmnprstvz";  // 16: none is mistaken for another
constexpr std::string_view kVowels = "aiou";
constexpr std::size_t kLetters = 5;
constexpr unsigned kBitsAWord = 12;

// Odd weights: any one wrong letter changes the sum modulo 16.
std::size_t check_of(const std::array<std::size_t, 4>& v, std::size_t place) {
  return (v[0] * 1 + v[1] * 5 + v[2] * 3 + v[3] * 7 + place * 11) % 16;
}

Error bad_word(std::size_t place, const std::string& why) {
  return make_error(ErrorCode::kInvalidArgument,
                    "recovery word " + std::to_string(place + 1) + " " + why,
                    "compare it with your paper, letter by letter");
}

struct Cursor {
  std::string_view text;
  // The next run of letters; empty at the end.
  std::string_view next() {
    const auto letter = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    while (!text.empty() && !letter(text.front())) text.remove_prefix(1);
    std::size_t n = 0;
    while (n < text.size() && letter(text[n])) ++n;
    const std::string_view word = text.substr(0, n);
    text.remove_prefix(n);
    return word;
  }
};

Result<unsigned> parse_word(std::string_view word, std::size_t place) {
  if (word.size() != kLetters) return bad_word(place, "has not five letters");
  std::array<std::size_t, kLetters> v{};
  for (std::size_t i = 0; i < kLetters; ++i) {
    const char c = static_cast<char>(word[i] | 0x20);
    v[i] = (i % 2 == 0 ? kConsonants : kVowels).find(c);
    if (v[i] == std::string_view::npos)
      return bad_word(place, "cannot have its letter " + std::to_string(i + 1));
  }
  if (v[4] != check_of({v[0], v[1], v[2], v[3]}, place))
    return bad_word(place, "is misspelt or in another word's place");
  return static_cast<unsigned>(v[0] << 8 | v[1] << 6 | v[2] << 2 | v[3]);
}

// The entropy and sixteen bits that check all of it.
void with_check(ByteView entropy, MutByteView out) {
  std::copy(entropy.begin(), entropy.end(), out.begin());
  const Digest digest = crypto::sha256({as_bytes("dims/words/1"), entropy});
  out[kRecoveryEntropyBytes] = digest.bytes[0];
  out[kRecoveryEntropyBytes + 1] = digest.bytes[1];
}

constexpr std::size_t kAllBytes = kRecoveryEntropyBytes + 2;
static_assert(kAllBytes * 8 == kRecoveryWords * kBitsAWord);

}  // namespace

crypto::SecretBytes words_of(ByteView entropy) {
  crypto::SecretBytes all(kAllBytes);
  with_check(entropy, all.mut());
  crypto::SecretBytes text(kRecoveryWords * (kLetters + 1) - 1);
  std::size_t at = 0;
  for (std::size_t place = 0; place < kRecoveryWords; ++place) {
    unsigned bits = 0;
    for (unsigned i = 0; i < kBitsAWord; ++i) {
      const std::size_t bit = place * kBitsAWord + i;
      bits = bits << 1 | (std::uint32_t{all.view()[bit / 8]} >> (7 - bit % 8) & 1u);
    }
    const std::array<std::size_t, 4> v{bits >> 8, bits >> 6 & 3, bits >> 2 & 15, bits & 3};
    if (place > 0) text.mut()[at++] = ' ';
    for (std::size_t i = 0; i < 4; ++i)
      text.mut()[at++] = static_cast<std::uint8_t>((i % 2 == 0 ? kConsonants : kVowels)[v[i]]);
    text.mut()[at++] = static_cast<std::uint8_t>(kConsonants[check_of(v, place)]);
  }
  return text;
}

Result<crypto::SecretBytes> parse_words(std::string_view text) {
  Cursor cursor{text};
  crypto::SecretBytes all(kAllBytes);
  for (std::size_t place = 0; place < kRecoveryWords; ++place) {
    const std::string_view word = cursor.next();
    if (word.empty())
      return make_error(
          ErrorCode::kInvalidArgument,
          "only " + std::to_string(place) + " recovery words of " + std::to_string(kRecoveryWords));
    const auto bits = parse_word(word, place);
    if (!bits.ok()) return bits.error();
    for (unsigned i = 0; i < kBitsAWord; ++i) {
      const std::size_t bit = place * kBitsAWord + i;
      if ((*bits >> (kBitsAWord - 1 - i) & 1u) != 0)
        all.mut()[bit / 8] |= static_cast<std::uint8_t>(1u << (7 - bit % 8));
    }
  }
  if (!cursor.next().empty())
    return make_error(ErrorCode::kInvalidArgument,
                      "more than " + std::to_string(kRecoveryWords) + " recovery words");
  crypto::SecretBytes expected(kAllBytes);
  with_check(all.view().first(kRecoveryEntropyBytes), expected.mut());
  if (!crypto::equal_constant_time(expected.view(), all.view()))
    return make_error(ErrorCode::kInvalidArgument,
                      "the recovery words do not belong together: more than one is wrong",
                      "compare them with your paper, letter by letter");
  return crypto::SecretBytes::copy_of(all.view().first(kRecoveryEntropyBytes));
}

}  // namespace dims::trust
