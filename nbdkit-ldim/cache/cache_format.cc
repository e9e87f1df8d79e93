#include "nbdkit-ldim/cache/cache_format.h"

#include <algorithm>
#include <cstdio>

#include "common/base/wire.h"
#include "common/crypto/hash.h"

namespace dims::ldim {
namespace {

constexpr std::string_view kDataMagic = "DIMSCSEG";
constexpr std::string_view kIndexMagic = "DIMSCIDX";
constexpr std::string_view kPageKind = "DIMSCPG1";
constexpr std::string_view kRecordKind = "DIMSCIR1";
constexpr std::size_t kCheckedBytes = offsetof(CacheHeaderLayout, check);

std::string_view magic_of(CacheFileKind kind) {
  return kind == CacheFileKind::kData ? kDataMagic : kIndexMagic;
}

Bytes record_ad(const CacheHeader& header) {
  Bytes ad;
  Writer out(ad);
  out.raw(as_bytes(kRecordKind));
  out.id(header.owner.machine);
  out.id(header.owner.image);
  out.u64(header.sequence);
  return ad;
}

Error bad_header(std::string what) {
  return make_error(ErrorCode::kCorrupt, std::move(what),
                    "the segment is thrown away; its pages are fetched again");
}

}  // namespace

CacheKeys::CacheKeys(const Secret32& page_key, const CacheSalt& salt, const CacheOwner& owner)
    : salt_(salt),
      header_key_(crypto::prf(page_key, "cache-header",
                              {salt.view(), owner.machine.view(), owner.image.view()})),
      pages_(crypto::HeldKey(
          crypto::prf(page_key, "cache", {salt.view(), owner.machine.view(), owner.image.view()}))),
      records_(crypto::HeldKey(crypto::prf(
          page_key, "cache-index", {salt.view(), owner.machine.view(), owner.image.view()}))) {}

Bytes encode_cache_header(CacheFileKind kind, const CacheHeader& header,
                          const Secret32& header_key) {
  Bytes block;
  Writer out(block);
  out.raw(as_bytes(magic_of(kind)));
  out.u32(kCacheFormatVersion);
  out.u32(static_cast<std::uint32_t>(kPageBytes));
  out.id(header.owner.machine);
  out.id(header.owner.image);
  out.id(header.salt);
  out.u64(header.sequence);
  out.u32(header.capacity_pages);
  out.u32(0);
  out.id(crypto::prf(header_key, "header", {ByteView(block).first(kCheckedBytes)}));
  out.pad_to(kCacheHeaderBytes);
  return block;
}

Result<CacheHeader> parse_cache_header(CacheFileKind kind, ByteView block) {
  Reader in(block);
  const ByteView magic = in.raw(magic_of(kind).size());
  if (!in.ok() || as_text(magic) != magic_of(kind))
    return bad_header("no header of a cache segment");
  const std::uint32_t version = in.u32();
  if (version != kCacheFormatVersion) {
    return make_error(ErrorCode::kUnsupported,
                      "cache segment of format version " + std::to_string(version));
  }
  const std::uint32_t page_bytes = in.u32();
  CacheHeader header;
  header.owner.machine = in.id<MachineId>();
  header.owner.image = in.id<ImageId>();
  header.salt = in.id<CacheSalt>();
  header.sequence = in.u64();
  header.capacity_pages = in.u32();
  in.u32();
  if (!in.ok() || page_bytes != kPageBytes || header.capacity_pages == 0 ||
      header.capacity_pages > kCacheMaxSlots || header.sequence == 0 ||
      header.sequence > kCacheMaxSequence) {
    return bad_header("header of a cache segment with impossible values");
  }
  return header;
}

bool check_cache_header(ByteView block, const Secret32& header_key) {
  if (block.size() < sizeof(CacheHeaderLayout)) return false;
  const Secret32 want = crypto::prf(header_key, "header", {block.first(kCheckedBytes)});
  return crypto::equal_constant_time(want.view(), block.subspan(kCheckedBytes, Secret32::kBytes));
}

SealedCacheRecord seal_cache_record(const CacheKeys& keys, const CacheHeader& header,
                                    std::uint32_t number, const CacheRecord& record) {
  Bytes plain;
  plain.reserve(sizeof(CacheRecordLayout));
  Writer out(plain);
  out.id(record.object);
  out.u32(record.first_slot);
  out.u16(static_cast<std::uint16_t>(record.pages));
  out.u8(static_cast<std::uint8_t>(record.lives));
  out.pad_to(sizeof(CacheRecordLayout));
  SealedCacheRecord sealed;
  keys.records().seal(cache_nonce(header.sequence, number), record_ad(header), plain, sealed.data(),
                      sealed.data() + sizeof(CacheRecordLayout));
  return sealed;
}

std::optional<CacheRecord> open_cache_record(const CacheKeys& keys, const CacheHeader& header,
                                             std::uint32_t number, ByteView sealed) {
  if (sealed.size() != kCacheRecordBytes) return std::nullopt;
  std::array<std::uint8_t, sizeof(CacheRecordLayout)> plain;
  if (!keys.records().open(cache_nonce(header.sequence, number), record_ad(header),
                           sealed.first(plain.size()), sealed.data() + plain.size(),
                           plain.data())) {
    return std::nullopt;
  }
  Reader in(plain);
  CacheRecord record;
  record.object = in.id<ObjectId>();
  record.first_slot = in.u32();
  record.pages = in.u16();
  record.lives = in.u8();
  if (record.pages == 0 || record.pages > kCacheMaxObjectPages || record.lives > kCacheMaxLives ||
      record.first_slot > header.capacity_pages ||
      record.pages > header.capacity_pages - record.first_slot) {
    return std::nullopt;
  }
  return record;
}

CachePageAd::CachePageAd(const CacheOwner& owner, const ObjectId& object) {
  std::memcpy(bytes_.data(), kPageKind.data(), 8);
  std::memcpy(bytes_.data() + 8, owner.machine.bytes.data(), 16);
  std::memcpy(bytes_.data() + 24, owner.image.bytes.data(), 16);
  std::memcpy(bytes_.data() + 40, object.bytes.data(), 32);
}

void CachePageAd::set_page(std::uint32_t page) {
  for (std::size_t i = 0; i < 4; ++i) bytes_[72 + i] = static_cast<std::uint8_t>(page >> (8 * i));
}

std::uint32_t cache_segment_capacity(std::uint64_t limit_bytes) {
  const std::uint64_t space =
      std::max(std::min<std::uint64_t>(limit_bytes / 16, 64 * kMiB), limit_bytes / 256);
  // Every slot may need a tag and, if all objects are one page long, a record.
  const std::uint64_t fixed = 2 * kCacheHeaderBytes + kPageBytes;
  if (space <= fixed) return 1;
  const std::uint64_t slots =
      (space - fixed) / (kPageBytes + crypto::kTagBytes + kCacheRecordBytes);
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(slots, 1, kCacheMaxSlots));
}

std::string cache_file_name(CacheFileKind kind, std::uint64_t sequence) {
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%010llu.%s", static_cast<unsigned long long>(sequence),
                kind == CacheFileKind::kData ? "seg" : "idx");
  return text.data();
}

std::optional<CacheFileName> parse_cache_file_name(std::string_view name) {
  CacheFileName parsed;
  if (name.ends_with(".seg"))
    parsed.kind = CacheFileKind::kData;
  else if (name.ends_with(".idx"))
    parsed.kind = CacheFileKind::kIndex;
  else
    return std::nullopt;
  const std::string_view digits = name.substr(0, name.size() - 4);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos)
    return std::nullopt;
  for (const char digit : digits) {
    parsed.sequence = parsed.sequence * 10 + static_cast<std::uint64_t>(digit - '0');
    if (parsed.sequence > kCacheMaxSequence) break;
  }
  if (parsed.sequence > kCacheMaxSequence ||
      cache_file_name(parsed.kind, parsed.sequence) != name) {
    parsed.sequence = 0;
  }
  return parsed;
}

}  // namespace dims::ldim
