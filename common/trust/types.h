// Words of trust: who there is, what they may do, where in the organisation's log one stands.
// Threads: values. Errors: see the functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/crypto/box.h"
#include "common/crypto/passphrase.h"
#include "common/crypto/secret.h"
#include "common/crypto/sign.h"

namespace dims::trust {

using UserId = Id<struct UserIdTag, 16>;  // random, never used again
using crypto::BoxPublicKey;
using crypto::PublicKey;
using crypto::Signature;

enum class Role : std::uint8_t { kUser = 1, kOperator = 2, kAdministrator = 3 };
enum class UserStatus : std::uint8_t { kActive = 1, kDisabled = 2, kRemoved = 3 };
// What somebody may do with one image. Each contains those before it.
enum class Access : std::uint8_t { kNone = 0, kRead = 1, kWrite = 2, kAdmin = 3 };
// What an epoch or a grant is for.
enum class KeyScope : std::uint8_t { kDomain = 1, kImage = 2 };

// Stable lower-case names for people, JSON and command lines.
std::string_view role_name(Role role);
std::string_view status_name(UserStatus status);
std::string_view access_name(Access access);
Result<Role> parse_role(std::string_view text);
Result<Access> parse_access(std::string_view text);

// The last record of a log that somebody has seen: its number and its hash.
struct Position {
  std::uint64_t seq = 0;
  Digest hash;
  friend bool operator==(const Position&, const Position&) = default;
};

inline constexpr std::size_t kNameBytesMax = 64;
// Letters, digits and ". _ - @", not beginning with '-': 1 to 64 of them. Case counts.
bool is_valid_name(std::string_view name);
Status check_name(std::string_view what, std::string_view name);

// Everyone of the organisation, in an access list.
inline constexpr UserId kEveryone{};

}  // namespace dims::trust
