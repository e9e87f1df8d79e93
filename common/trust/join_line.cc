#include "common/trust/join_line.h"

#include <algorithm>

#include "common/base/wire.h"
#include "common/crypto/hash.h"

namespace dims::trust {
namespace {

constexpr std::string_view kPrefix = "dims-join:";
constexpr std::uint8_t kFormat = 1;
constexpr std::size_t kCheckBytes = 6;
constexpr std::size_t kPayloadBytes = 2 + 32 + 32 + 8 + 32 + kJoinTokenBytes + kCheckBytes;
static_assert(kPayloadBytes == 128);
constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string base64url(ByteView bytes) {
  std::string out;
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const std::uint8_t byte : bytes) {
    bits = bits << 8 | byte;
    count += 8;
    for (; count >= 6; count -= 6) out.push_back(kDigits[bits >> (count - 6) & 63]);
  }
  if (count > 0) out.push_back(kDigits[bits << (6 - count) & 63]);
  return out;
}

std::optional<Bytes> from_base64url(std::string_view text) {
  Bytes out;
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    const auto digit = kDigits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<std::uint8_t>(bits >> count));
    }
  }
  if (count >= 6 || (bits & ((1u << count) - 1)) != 0) return std::nullopt;  // one spelling only
  return out;
}

Digest check_of(std::string_view address, ByteView covered) {
  return crypto::sha256({as_bytes("dims/join/1"), as_bytes(address), ByteView(), covered});
}

Error bad(const std::string& what) {
  return make_error(ErrorCode::kInvalidArgument, "join line: " + what,
                    "copy the whole line again, from 'dims-join:' to its end");
}

}  // namespace

crypto::SecretBytes make_join_token(Random& random) {
  crypto::SecretBytes token(kJoinTokenBytes);
  random.fill(token.mut());
  return token;
}

crypto::SecretSigner JoinLine::join_key() const {
  crypto::SecretKey padded;
  std::copy(token.view().begin(), token.view().end(), padded.mut().begin());
  return crypto::SecretSigner::from_seed(
      crypto::secret_prf(padded.key(), "join-key", {org.view()}));
}

std::string encode_join_line(const JoinLine& line) {
  Bytes payload;
  Writer w(payload);
  w.u8(kFormat);
  w.u8(line.for_machine ? 1 : 0);
  w.id(line.server);
  w.id(line.org);
  w.u64(line.position.seq);
  w.id(line.position.hash);
  w.raw(line.token.view());
  w.raw(check_of(line.address, payload).view().first(kCheckBytes));
  std::string text = std::string(kPrefix) + line.address + "#" + base64url(payload);
  crypto::wipe(payload);
  return text;
}

Result<JoinLine> parse_join_line(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  if (text.substr(0, kPrefix.size()) != kPrefix) return bad("it does not begin with 'dims-join:'");
  text.remove_prefix(kPrefix.size());
  const auto hash = text.rfind('#');
  if (hash == std::string_view::npos || hash == 0) return bad("it has no address or no '#'");
  const std::string_view address = text.substr(0, hash);
  if (address.size() > kJoinAddressBytesMax ||
      !std::all_of(address.begin(), address.end(), [](char c) { return c > ' ' && c < 0x7f; }))
    return bad("its address is malformed");
  const std::string_view digits = text.substr(hash + 1);
  if (digits.size() > 1024) return bad("it is too long");
  auto payload = from_base64url(digits);
  if (!payload || payload->size() < 2) return bad("it has letters that cannot be in it");
  if ((*payload)[0] != kFormat)
    return make_error(ErrorCode::kUnsupported, "join line of an unknown format",
                      "update this program");
  if (payload->size() != kPayloadBytes) {
    crypto::wipe(*payload);
    return bad(payload->size() < kPayloadBytes ? "its end is missing"
                                               : "there is more than belongs to it");
  }
  const ByteView covered = ByteView(*payload).first(kPayloadBytes - kCheckBytes);
  const bool fits =
      crypto::equal_constant_time(check_of(address, covered).view().first(kCheckBytes),
                                  ByteView(*payload).subspan(covered.size()));
  Reader r(covered);
  JoinLine line;
  line.address = std::string(address);
  (void)r.u8();
  const std::uint8_t kind = r.u8();
  line.for_machine = kind == 1;
  line.server = r.id<Digest>();
  line.org = r.id<OrgId>();
  line.position.seq = r.u64();
  line.position.hash = r.id<Digest>();
  line.token = crypto::SecretBytes::copy_of(r.raw(kJoinTokenBytes));
  crypto::wipe(*payload);
  if (!fits || kind > 1) return bad("a letter of it is wrong");
  return line;
}

}  // namespace dims::trust
