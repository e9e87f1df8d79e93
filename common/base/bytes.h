// Byte strings: owning (Bytes), borrowed (ByteView, MutByteView), and fixed identities.
// Threads: values. Errors: parse functions return std::nullopt or Result.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dims {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;
using MutByteView = std::span<std::uint8_t>;

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool is_all_zero(ByteView bytes);
std::string to_hex(ByteView bytes);
std::optional<Bytes> from_hex(std::string_view text);

// A fixed-size identity. Tag makes ids of different things different types.
template <typename Tag, std::size_t N>
struct Id {
  static constexpr std::size_t kBytes = N;
  std::array<std::uint8_t, N> bytes{};

  bool is_zero() const { return is_all_zero(view()); }
  ByteView view() const { return {bytes.data(), N}; }
  MutByteView mut() { return {bytes.data(), N}; }
  std::string hex() const { return to_hex(view()); }
  std::string short_hex() const { return to_hex(view().first(6)); }
  // First eight bytes as an integer: ids are hashes or random, so this is a good hash value.
  std::uint64_t prefix() const {
    std::uint64_t v;
    std::memcpy(&v, bytes.data(), sizeof v);
    return v;
  }
  static std::optional<Id> from_view(ByteView view) {
    if (view.size() != N) return std::nullopt;
    Id id;
    std::memcpy(id.bytes.data(), view.data(), N);
    return id;
  }
  static std::optional<Id> from_hex_text(std::string_view text) {
    auto raw = from_hex(text);
    if (!raw) return std::nullopt;
    return from_view(*raw);
  }
  friend bool operator==(const Id&, const Id&) = default;
  friend auto operator<=>(const Id&, const Id&) = default;
};

struct IdHash {
  template <typename Tag, std::size_t N>
  std::size_t operator()(const Id<Tag, N>& id) const {
    return static_cast<std::size_t>(id.prefix());
  }
};

// Identities of the data model (see docs/glossary.md).
using ObjectId = Id<struct ObjectIdTag, 32>;    // hash of a sealed object
using VersionId = Id<struct VersionIdTag, 32>;  // hash of a version record
using OrgId = Id<struct OrgIdTag, 32>;          // hash of the organisation's public key
using DomainId = Id<struct DomainIdTag, 16>;
using ImageId = Id<struct ImageIdTag, 16>;  // image UUID
using MachineId = Id<struct MachineIdTag, 16>;
using SessionId = Id<struct SessionIdTag, 16>;
using LeaseId = Id<struct LeaseIdTag, 16>;
using JournalId = Id<struct JournalIdTag, 16>;
using GenerationId = Id<struct GenerationIdTag, 16>;
using Digest = Id<struct DigestTag, 32>;
using Secret32 = Id<struct SecretTag, 32>;  // a symmetric key; never printed

}  // namespace dims
