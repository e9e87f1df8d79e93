// What the cache's files look like, byte by byte (docs/formats/cache.md,
// tests/unit/golden/cache_v1.hex).
//
// A segment is a pair of files, NNNNNNNNNN.seg (pages) and NNNNNNNNNN.idx (index records), named
// after its sequence number. Both begin with a 4 KiB header. Little-endian throughout.
//   .seg: header | 16-byte tags of every slot, padded to 4 KiB | sealed pages, one a slot
//   .idx: header | records of 64 bytes
// The tags stand before the pages so that a segment that was never filled is a short file.
//
// Keys: every open of the cache draws a salt; its segments share the keys derived from it, and the
// sequence number is part of each nonce: nonce = sequence << 24 | slot (or record number).
// Threads: values and free functions. Errors: parse functions return an Error that says what is
// wrong.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/base/units.h"
#include "common/crypto/aead.h"
#include "common/crypto/held_key.h"

namespace dims::ldim {

using CacheSalt = Id<struct CacheSaltTag, 32>;

inline constexpr std::uint32_t kCacheFormatVersion = 1;
inline constexpr std::uint64_t kCacheHeaderBytes = 4096;
inline constexpr std::uint64_t kCacheRecordBytes = 64;
inline constexpr std::uint32_t kCacheMaxObjectPages = 128;
inline constexpr unsigned kCacheMaxLives = 3;
inline constexpr std::uint32_t kCacheMaxSlots = std::uint32_t{1} << 23;
inline constexpr std::uint64_t kCacheMaxSequence = (std::uint64_t{1} << 31) - 1;

// Whose cache it is: bound into every key, header and page.
struct CacheOwner {
  MachineId machine;
  ImageId image;
};

// The first bytes of both files; the rest of the 4 KiB is zero.
struct CacheHeaderLayout {
  std::uint8_t magic[8];
  std::uint32_t version;
  std::uint32_t page_bytes;
  std::uint8_t machine[16];
  std::uint8_t image[16];
  std::uint8_t salt[32];
  std::uint64_t sequence;
  std::uint32_t capacity_pages;
  std::uint32_t reserved;
  std::uint8_t check[32];  // keyed hash of everything before it
};
static_assert(sizeof(CacheHeaderLayout) == 128);
static_assert(offsetof(CacheHeaderLayout, machine) == 16 &&
              offsetof(CacheHeaderLayout, salt) == 48);
static_assert(offsetof(CacheHeaderLayout, sequence) == 80 &&
              offsetof(CacheHeaderLayout, check) == 96);

// An index record before sealing; 48 bytes, then the 16-byte tag.
struct CacheRecordLayout {
  std::uint8_t object[32];
  std::uint32_t first_slot;
  std::uint16_t pages;
  std::uint8_t lives;
  std::uint8_t reserved[9];
};
static_assert(sizeof(CacheRecordLayout) == 48);
static_assert(sizeof(CacheRecordLayout) + crypto::kTagBytes == kCacheRecordBytes);

enum class CacheFileKind { kData, kIndex };

struct CacheHeader {
  CacheOwner owner;
  CacheSalt salt;
  std::uint64_t sequence = 0;
  std::uint32_t capacity_pages = 0;
};

struct CacheRecord {
  ObjectId object;
  std::uint32_t first_slot = 0;
  std::uint32_t pages = 0;
  unsigned lives = 0;
};

// The keys of all segments that one open of the cache writes.
class CacheKeys {
 public:
  CacheKeys(const Secret32& page_key, const CacheSalt& salt, const CacheOwner& owner);
  CacheKeys(const CacheKeys&) = delete;
  CacheKeys& operator=(const CacheKeys&) = delete;

  const CacheSalt& salt() const { return salt_; }
  const Secret32& header_key() const { return header_key_; }
  const crypto::PageCipher& pages() const { return pages_; }
  const crypto::PageCipher& records() const { return records_; }

 private:
  CacheSalt salt_;
  crypto::HeldKey header_key_;
  crypto::PageCipher pages_;
  crypto::PageCipher records_;
};

// A whole header block of kCacheHeaderBytes.
Bytes encode_cache_header(CacheFileKind kind, const CacheHeader& header,
                          const Secret32& header_key);
// Magic, version and shape only; the salt it yields leads to the key for check_cache_header().
Result<CacheHeader> parse_cache_header(CacheFileKind kind, ByteView block);
[[nodiscard]] bool check_cache_header(ByteView block, const Secret32& header_key);

using SealedCacheRecord = std::array<std::uint8_t, kCacheRecordBytes>;
SealedCacheRecord seal_cache_record(const CacheKeys& keys, const CacheHeader& header,
                                    std::uint32_t number, const CacheRecord& record);
// nullopt if the tag or the contents are wrong.
std::optional<CacheRecord> open_cache_record(const CacheKeys& keys, const CacheHeader& header,
                                             std::uint32_t number, ByteView sealed);

// The associated data of a page; set_page() is all that changes along a run.
class CachePageAd {
 public:
  CachePageAd(const CacheOwner& owner, const ObjectId& object);
  void set_page(std::uint32_t page);
  ByteView view() const { return bytes_; }

 private:
  std::array<std::uint8_t, 80> bytes_{};
};

inline constexpr std::uint64_t cache_nonce(std::uint64_t sequence, std::uint32_t number) {
  return sequence << 24 | number;
}
inline constexpr std::uint64_t cache_tag_offset(std::uint32_t slot) {
  return kCacheHeaderBytes + std::uint64_t{slot} * crypto::kTagBytes;
}
inline constexpr std::uint64_t cache_page_offset(std::uint32_t capacity_pages, std::uint32_t slot) {
  return kCacheHeaderBytes +
         round_up(std::uint64_t{capacity_pages} * crypto::kTagBytes, kPageBytes) +
         std::uint64_t{slot} * kPageBytes;
}
inline constexpr std::uint64_t cache_record_offset(std::uint32_t number) {
  return kCacheHeaderBytes + std::uint64_t{number} * kCacheRecordBytes;
}
// Both files together when `slots` slots and `records` records were handed out.
inline constexpr std::uint64_t cache_segment_bytes(std::uint32_t capacity_pages,
                                                   std::uint32_t slots, std::uint32_t records) {
  return cache_page_offset(capacity_pages, slots) + cache_record_offset(records);
}
// The slots of a new segment under this limit: between a 16th and a 256th of it, 64 MiB in between.
std::uint32_t cache_segment_capacity(std::uint64_t limit_bytes);

std::string cache_file_name(CacheFileKind kind, std::uint64_t sequence);
struct CacheFileName {
  CacheFileKind kind = CacheFileKind::kData;
  std::uint64_t sequence = 0;  // 0: looks like ours, but no segment can have this name
};
// nullopt: not a file of the cache.
std::optional<CacheFileName> parse_cache_file_name(std::string_view name);

}  // namespace dims::ldim
