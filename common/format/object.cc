#include "common/format/object.h"

#include <zstd.h>

#include <algorithm>
#include <memory>

#include "common/base/wire.h"
#include "common/crypto/aead.h"

namespace dims::format {
namespace {

constexpr std::uint32_t kMagic = 0x314a4f44;  // "DOJ1"
constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kFixedHeadBytes = 40;
constexpr std::size_t kPayloadHeadBytes = 16;
constexpr std::size_t kCommitBytes = 32;

enum class Codec : std::uint8_t { kRaw = 0, kZstd = 1 };

Error corrupt(const std::string& what) {
  return make_error(ErrorCode::kCorrupt, "object is damaged: " + what,
                    "fetch it again from another copy");
}

Bytes encode_head(ObjectKind kind, std::uint8_t level, const DomainKey& key,
                  std::size_t payload_bytes, const std::vector<ObjectKey>& children) {
  std::vector<DomainId> domains;
  for (const ObjectKey& child : children) {
    if (std::find(domains.begin(), domains.end(), child.domain) == domains.end())
      domains.push_back(child.domain);
  }
  Bytes head;
  head.reserve(kFixedHeadBytes + domains.size() * 16 + children.size() * 33);
  Writer w(head);
  w.u32(kMagic);
  w.u8(kVersion);
  w.u8(static_cast<std::uint8_t>(kind));
  w.u8(level);
  w.u8(static_cast<std::uint8_t>(domains.size()));
  w.id(key.domain());
  w.u32(key.epoch());
  w.u32(static_cast<std::uint32_t>(payload_bytes));
  w.u32(static_cast<std::uint32_t>(children.size()));
  w.u32(0);
  for (const DomainId& domain : domains) w.id(domain);
  for (const ObjectKey& child : children) {
    const auto at = std::find(domains.begin(), domains.end(), child.domain) - domains.begin();
    w.u8(static_cast<std::uint8_t>(at));
    w.id(child.id);
  }
  return head;
}

Secret32 object_secret(const Secret32& sealing, ObjectKind kind, ByteView head, ByteView payload) {
  const std::uint8_t k = static_cast<std::uint8_t>(kind);
  return crypto::prf(sealing, "object", {ByteView(&k, 1), head, payload});
}

SealedObject seal(const DomainKey& key, ObjectKind kind, std::uint8_t level,
                  const std::vector<ObjectKey>& children, ByteView payload) {
  SealedObject out;
  out.bytes = encode_head(kind, level, key, payload.size(), children);
  const std::size_t head_bytes = out.bytes.size();
  out.ref.domain = key.domain();
  out.ref.key = object_secret(key.sealing_key(), kind, out.bytes, payload);
  const Secret32 com = crypto::prf(out.ref.key, "commit", {});
  out.bytes.insert(out.bytes.end(), com.bytes.begin(), com.bytes.end());
  const std::size_t ad_bytes = head_bytes + kCommitBytes;
  out.bytes.resize(ad_bytes + payload.size() + crypto::kTagBytes);
  crypto::seal_once(out.ref.key, ByteView(out.bytes).first(ad_bytes), payload,
                    out.bytes.data() + ad_bytes, out.bytes.data() + ad_bytes + payload.size());
  out.ref.id = object_id(out.bytes);
  return out;
}

// codec, page count, lengths, then the data, padded with zeros to 512.
void begin_payload(Bytes& payload, Codec codec, std::size_t pages, std::size_t data_bytes,
                   std::size_t raw_bytes) {
  Writer w(payload);
  w.u8(static_cast<std::uint8_t>(codec));
  w.u8(0);
  w.u16(static_cast<std::uint16_t>(pages));
  w.u32(static_cast<std::uint32_t>(data_bytes));
  w.u32(static_cast<std::uint32_t>(raw_bytes));
  w.u32(0);
}

struct CompressContext {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ~CompressContext() { ZSTD_freeCCtx(context); }
};
struct DecompressContext {
  ZSTD_DCtx* context = ZSTD_createDCtx();
  ~DecompressContext() { ZSTD_freeDCtx(context); }
};

}  // namespace

DomainKey::DomainKey(const DomainId& domain, std::uint32_t epoch, const Secret32& secret)
    : domain_(domain),
      epoch_(epoch),
      sealing_(crypto::kdf(secret, 1)),
      cutting_(crypto::kdf(secret, 2)) {}

ObjectId object_id(ByteView object) {
  const Digest digest = crypto::sha256(object);
  ObjectId id;
  id.bytes = digest.bytes;
  return id;
}

Result<ObjectHead> parse_head(ByteView object) {
  Reader r(object);
  if (r.u32() != kMagic) return corrupt("no object magic");
  const std::uint8_t version = r.u8();
  if (r.ok() && version != kVersion) {
    return make_error(ErrorCode::kUnsupported,
                      "object format version " + std::to_string(version) + " is not known",
                      "update this program");
  }
  ObjectHead head;
  const std::uint8_t kind = r.u8();
  head.level = r.u8();
  const std::uint8_t domain_count = r.u8();
  head.domain = r.id<DomainId>();
  head.epoch = r.u32();
  head.payload_bytes = r.u32();
  const std::uint32_t child_count = r.u32();
  const std::uint32_t reserved = r.u32();
  if (!r.ok()) return corrupt("cut short");
  if (kind < 1 || kind > 3 || reserved != 0) return corrupt("unknown kind");
  head.kind = static_cast<ObjectKind>(kind);
  const bool level_ok = head.kind == ObjectKind::kChunk ? head.level == 0
                        : head.kind == ObjectKind::kLeaf
                            ? head.level == 1
                            : head.level >= 2 && head.level <= kMaxLevel;
  if (!level_ok) return corrupt("kind and level disagree");
  if (child_count > kMaxChildren || (head.kind == ObjectKind::kChunk && child_count != 0)) {
    return corrupt("too many children");
  }
  if (head.payload_bytes > kMaxPayloadBytes || head.payload_bytes % kPadBytes != 0 ||
      head.payload_bytes == 0) {
    return corrupt("payload length");
  }
  std::vector<DomainId> domains;
  domains.reserve(domain_count);
  for (unsigned i = 0; i < domain_count; ++i) domains.push_back(r.id<DomainId>());
  head.children.reserve(child_count);
  for (std::uint32_t i = 0; i < child_count; ++i) {
    const std::uint8_t at = r.u8();
    const ObjectId id = r.id<ObjectId>();
    if (!r.ok()) return corrupt("cut short");
    if (at >= domains.size()) return corrupt("child domain");
    head.children.push_back({domains[at], id});
  }
  if (!r.ok()) return corrupt("cut short");
  head.head_bytes = r.position();
  if (r.remaining() != kCommitBytes + head.payload_bytes + crypto::kTagBytes)
    return corrupt("length");
  return head;
}

SealedObject seal_chunk(const DomainKey& key, ByteView pages, bool compress) {
  const std::size_t count = pages.size() / kPageBytes;
  static thread_local CompressContext zstd;
  static thread_local Bytes payload;
  payload.clear();
  bool packed = false;
  if (compress) {
    const std::size_t bound = ZSTD_compressBound(pages.size());
    payload.resize(kPayloadHeadBytes + bound);
    const std::size_t n = ZSTD_compressCCtx(zstd.context, payload.data() + kPayloadHeadBytes, bound,
                                            pages.data(), pages.size(), 1);
    // Worth it only if it saves at least one padding unit.
    if (ZSTD_isError(n) == 0 && round_up(kPayloadHeadBytes + n, kPadBytes) <
                                    round_up(kPayloadHeadBytes + pages.size(), kPadBytes)) {
      Bytes head;
      begin_payload(head, Codec::kZstd, count, n, pages.size());
      std::copy(head.begin(), head.end(), payload.begin());
      payload.resize(kPayloadHeadBytes + n);
      packed = true;
    }
  }
  if (!packed) {
    payload.clear();
    begin_payload(payload, Codec::kRaw, count, pages.size(), pages.size());
    payload.insert(payload.end(), pages.begin(), pages.end());
  }
  payload.resize(static_cast<std::size_t>(round_up(payload.size(), kPadBytes)), 0);
  return seal(key, ObjectKind::kChunk, 0, {}, payload);
}

SealedObject seal_node(const DomainKey& key, ObjectKind kind, std::uint8_t level,
                       const std::vector<ObjectKey>& children, ByteView data) {
  Bytes payload;
  begin_payload(payload, Codec::kRaw, 0, data.size(), data.size());
  payload.insert(payload.end(), data.begin(), data.end());
  payload.resize(static_cast<std::size_t>(round_up(payload.size(), kPadBytes)), 0);
  return seal(key, kind, level, children, payload);
}

Result<Bytes> open_object(const Reference& ref, ByteView object, bool verify_id) {
  if (verify_id && !(object_id(object) == ref.id))
    return corrupt("its bytes do not have the id " + ref.id.short_hex());
  DIMS_ASSIGN(const ObjectHead head, parse_head(object));
  if (!(head.domain == ref.domain)) return corrupt("another domain");
  const std::size_t ad_bytes = head.head_bytes + kCommitBytes;
  const Secret32 com = crypto::prf(ref.key, "commit", {});
  if (!crypto::equal_constant_time(com.view(), object.subspan(head.head_bytes, kCommitBytes))) {
    return corrupt("the key does not belong to " + ref.id.short_hex());
  }
  Bytes payload(head.payload_bytes);
  if (!crypto::open_once(ref.key, object.first(ad_bytes),
                         object.subspan(ad_bytes, head.payload_bytes),
                         object.data() + ad_bytes + head.payload_bytes, payload.data())) {
    return corrupt("the seal of " + ref.id.short_hex() + " is broken");
  }
  Reader r(payload);
  const std::uint8_t codec = r.u8();
  r.u8();
  const std::uint16_t pages = r.u16();
  const std::uint32_t data_bytes = r.u32();
  const std::uint32_t raw_bytes = r.u32();
  r.u32();
  if (!r.ok() || data_bytes > r.remaining()) return corrupt("payload lengths");
  if (head.kind == ObjectKind::kChunk) {
    if (pages == 0 || pages > kMaxChunkPages || raw_bytes != pages * kPageBytes)
      return corrupt("page count");
  } else if (pages != 0) {
    return corrupt("page count");
  }
  const ByteView data = ByteView(payload).subspan(kPayloadHeadBytes, data_bytes);
  if (codec == static_cast<std::uint8_t>(Codec::kRaw)) {
    if (raw_bytes != data_bytes) return corrupt("payload lengths");
    payload.erase(payload.begin(), payload.begin() + kPayloadHeadBytes);
    payload.resize(raw_bytes);
    return payload;
  }
  if (codec != static_cast<std::uint8_t>(Codec::kZstd) || head.kind != ObjectKind::kChunk) {
    return make_error(ErrorCode::kUnsupported,
                      "object codec " + std::to_string(codec) + " is not known",
                      "update this program");
  }
  Bytes raw(raw_bytes);
  static thread_local DecompressContext zstd;
  const std::size_t n =
      ZSTD_decompressDCtx(zstd.context, raw.data(), raw.size(), data.data(), data.size());
  if (ZSTD_isError(n) != 0 || n != raw.size()) return corrupt("decompression");
  return raw;
}

}  // namespace dims::format
