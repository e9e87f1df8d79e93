// Objects: immutable, sealed, content-addressed byte strings (docs/formats/object.md).
//
//   object = head | com (32) | GCM(K, payload) | tag (16)        id = SHA-256(object)
//   K = PRF(Kc, "object", kind, head, payload)                    com = PRF(K, "commit")
//
// The head is in clear: kind, level, domain, lengths, and the children's (domain, id), so that a
// server can walk a tree without opening it. The payload holds everything else. K is derived from
// exactly the bytes that are sealed, so another compressor's output costs deduplication and never a
// key stream.
//
// Threads: everything here is thread-safe. Units: bytes. Errors: kCorrupt for bytes that are not
// the object they claim to be, kUnsupported for a format version of the future; hostile input is
// bounded before anything is allocated. Source: SECURITY model, rows 8 and 9.
#pragma once

#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/base/units.h"
#include "common/crypto/hash.h"
#include "common/crypto/held_key.h"

namespace dims::format {

enum class ObjectKind : std::uint8_t { kChunk = 1, kLeaf = 2, kInner = 3 };

inline constexpr std::uint32_t kMaxChunkPages = 32;  // 128 KiB
inline constexpr std::size_t kMaxPayloadBytes = 256 * kKiB;
inline constexpr std::size_t kMaxChildren = 1024;
inline constexpr std::size_t kMaxObjectBytes = 320 * kKiB;
inline constexpr std::uint8_t kMaxLevel = 15;
inline constexpr std::size_t kPadBytes = 512;

// Where an object lives: the wire and the stores use this.
struct ObjectKey {
  DomainId domain;
  ObjectId id;
  friend bool operator==(const ObjectKey&, const ObjectKey&) = default;
  friend auto operator<=>(const ObjectKey&, const ObjectKey&) = default;
};
struct ObjectKeyHash {
  std::size_t operator()(const ObjectKey& key) const {
    return static_cast<std::size_t>(key.id.prefix());
  }
};

// What a parent holds of a child. All zero = nothing there (a stretch of zeros).
struct Reference {
  DomainId domain;
  ObjectId id;
  Secret32 key;
  bool is_zero() const { return id.is_zero(); }
  ObjectKey object_key() const { return {domain, id}; }
  friend bool operator==(const Reference&, const Reference&) = default;
};

struct SealedObject {
  Reference ref;
  Bytes bytes;
};

// What can be read without a key.
struct ObjectHead {
  ObjectKind kind = ObjectKind::kChunk;
  std::uint8_t level = 0;  // 0 chunk, 1 leaf, 2.. inner
  DomainId domain;
  std::uint32_t epoch = 0;
  std::uint32_t payload_bytes = 0;
  std::size_t head_bytes = 0;
  std::vector<ObjectKey> children;
};

// Checks lengths and structure, not the id.
Result<ObjectHead> parse_head(ByteView object);
// The id that these bytes have.
ObjectId object_id(ByteView object);

// A domain's key material at one epoch: seals (Kc) and cuts (Kcut).
class DomainKey {
 public:
  DomainKey(const DomainId& domain, std::uint32_t epoch, const Secret32& secret);
  const DomainId& domain() const { return domain_; }
  std::uint32_t epoch() const { return epoch_; }
  const Secret32& sealing_key() const { return sealing_; }
  const Secret32& cutting_key() const { return cutting_; }

 private:
  DomainId domain_;
  std::uint32_t epoch_;
  crypto::HeldKey sealing_;
  crypto::HeldKey cutting_;
};

// Seals `pages` (a multiple of 4096, 1..32 pages; more aborts). compress: try zstd, keep it if it
// helps.
SealedObject seal_chunk(const DomainKey& key, ByteView pages, bool compress = true);
// Seals a node; children are the clear list, data the sealed part.
SealedObject seal_node(const DomainKey& key, ObjectKind kind, std::uint8_t level,
                       const std::vector<ObjectKey>& children, ByteView data);

// Verifies id, com, tag and bounds and returns the decoded payload (for a chunk: its pages).
// verify_id = false skips the outer hash (com and tag still bind the content to the key).
Result<Bytes> open_object(const Reference& ref, ByteView object, bool verify_id = true);

}  // namespace dims::format
