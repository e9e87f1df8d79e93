// The files' bytes: the golden file, the code and docs/formats/cache.md say the same.
#include <catch2/catch.hpp>

#include <fstream>
#include <map>

#include "common/crypto/hash.h"
#include "nbdkit-ldim/cache/cache_index.h"
#include "tests/unit/page_cache_fixture.h"

using namespace dims;
using namespace dims::test;
using namespace dims::ldim;

namespace {

// "name hex" lines; '#' begins a comment.
std::map<std::string, Bytes> read_golden() {
  std::ifstream in(std::string(DIMS_GOLDEN_FOLDER) + "/cache_v1.hex");
  REQUIRE(in.good());
  std::map<std::string, Bytes> golden;
  std::string line;
  while (std::getline(in, line)) {
    if (line.empty() || line[0] == '#') continue;
    const auto space = line.find(' ');
    REQUIRE(space != std::string::npos);
    const auto bytes = from_hex(line.substr(space + 1));
    REQUIRE(bytes);
    golden[line.substr(0, space)] = *bytes;
  }
  return golden;
}

template <std::size_t N>
void count_up(std::array<std::uint8_t, N>& bytes, std::uint8_t from) {
  for (auto& byte : bytes) byte = from++;
}

struct Example {
  Secret32 key;
  CacheHeader header;
  CacheRecord record;
  Example() {
    count_up(key.bytes, 0x00);
    count_up(header.owner.machine.bytes, 0x20);
    count_up(header.owner.image.bytes, 0x30);
    count_up(header.salt.bytes, 0x40);
    header.sequence = 0x0102;
    header.capacity_pages = 0x0fbe;
    count_up(record.object.bytes, 0x60);
    record.first_slot = 0x0a0b;
    record.pages = 5;
    record.lives = 2;
  }
  CacheKeys keys() const { return CacheKeys(key, header.salt, header.owner); }
};

}  // namespace

TEST_CASE("cache format 1 is what the golden file says") {
  const auto golden = read_golden();
  const Example example;
  const CacheKeys keys = example.keys();
  std::map<std::string, Bytes> made;
  Bytes data = encode_cache_header(CacheFileKind::kData, example.header, keys.header_key());
  Bytes index = encode_cache_header(CacheFileKind::kIndex, example.header, keys.header_key());
  REQUIRE(data.size() == kCacheHeaderBytes);
  CHECK(is_all_zero(ByteView(data).subspan(sizeof(CacheHeaderLayout))));
  CHECK(is_all_zero(ByteView(index).subspan(sizeof(CacheHeaderLayout))));
  data.resize(sizeof(CacheHeaderLayout));
  index.resize(sizeof(CacheHeaderLayout));
  made["data-header"] = data;
  made["index-header"] = index;
  const SealedCacheRecord record = seal_cache_record(keys, example.header, 3, example.record);
  made["record-3"] = Bytes(record.begin(), record.end());
  CachePageAd ad(example.header.owner, example.record.object);
  ad.set_page(0x0405);
  made["page-ad"] = Bytes(ad.view().begin(), ad.view().end());
  Bytes page(kPageBytes, 0x5a);
  Bytes tag(crypto::kTagBytes);
  keys.pages().seal(cache_nonce(example.header.sequence, example.record.first_slot), ad.view(),
                    page, page.data(), tag.data());
  made["page-tag"] = tag;
  const Digest digest = crypto::sha256(page);
  made["page-sha256"] = Bytes(digest.bytes.begin(), digest.bytes.end());
  for (const auto& [name, bytes] : made) {
    INFO(name << " " << to_hex(bytes));
    REQUIRE(golden.count(name) == 1);
    CHECK(golden.at(name) == bytes);
  }
  CHECK(golden.size() == made.size());
}

TEST_CASE("headers of cache segments are read back, and bent ones are not") {
  const Example example;
  const CacheKeys keys = example.keys();
  const Bytes block = encode_cache_header(CacheFileKind::kData, example.header, keys.header_key());
  const auto header = parse_cache_header(CacheFileKind::kData, block);
  REQUIRE(header.ok());
  CHECK(header->owner.machine == example.header.owner.machine);
  CHECK(header->owner.image == example.header.owner.image);
  CHECK(header->salt == example.header.salt);
  CHECK(header->sequence == example.header.sequence);
  CHECK(header->capacity_pages == example.header.capacity_pages);
  CHECK(check_cache_header(block, keys.header_key()));
  CHECK_FALSE(check_cache_header(ByteView(block).first(100), keys.header_key()));
  CHECK_FALSE(parse_cache_header(CacheFileKind::kIndex, block).ok());
  for (std::size_t length = 0; length < 96; ++length) {
    CHECK_FALSE(parse_cache_header(CacheFileKind::kData, ByteView(block).first(length)).ok());
  }
  for (std::size_t at = 0; at < sizeof(CacheHeaderLayout); ++at) {
    Bytes bent = block;
    bent[at] = static_cast<std::uint8_t>(bent[at] ^ 1);
    const auto parsed = parse_cache_header(CacheFileKind::kData, bent);
    const bool accepted =
        parsed.ok() &&
        check_cache_header(bent, CacheKeys(example.key, parsed->salt, parsed->owner).header_key());
    CHECK_FALSE(accepted);
  }
  Bytes newer = block;
  newer[8] = 2;
  CHECK(parse_cache_header(CacheFileKind::kData, newer).error().code == ErrorCode::kUnsupported);
}

TEST_CASE("an index record opens only where it was written") {
  const Example example;
  const CacheKeys keys = example.keys();
  SealedCacheRecord sealed = seal_cache_record(keys, example.header, 3, example.record);
  const auto record = open_cache_record(keys, example.header, 3, sealed);
  REQUIRE(record);
  CHECK(record->object == example.record.object);
  CHECK(record->first_slot == example.record.first_slot);
  CHECK(record->pages == example.record.pages);
  CHECK(record->lives == example.record.lives);
  CHECK_FALSE(open_cache_record(keys, example.header, 4, sealed));
  CacheHeader other = example.header;
  other.sequence += 1;
  CHECK_FALSE(open_cache_record(keys, other, 3, sealed));
  other = example.header;
  other.owner.image.bytes[0] ^= 1;
  CHECK_FALSE(open_cache_record(keys, other, 3, sealed));
  CHECK_FALSE(open_cache_record(keys, example.header, 3, ByteView(sealed).first(63)));
  sealed[50] ^= 1;
  CHECK_FALSE(open_cache_record(keys, example.header, 3, sealed));
  // Sealed by us, but impossible.
  CacheRecord wild = example.record;
  wild.first_slot = example.header.capacity_pages - 4;
  CHECK_FALSE(
      open_cache_record(keys, example.header, 3, seal_cache_record(keys, example.header, 3, wild)));
  wild = example.record;
  wild.pages = 0;
  CHECK_FALSE(
      open_cache_record(keys, example.header, 3, seal_cache_record(keys, example.header, 3, wild)));
}

TEST_CASE("the places of a segment file do not overlap and fit the limit") {
  for (const std::uint64_t limit : {PageCache::kMinLimitBytes, 17 * kMiB, 100 * kMiB, kGiB,
                                    10 * kGiB, 300 * kGiB, 1024 * kGiB, 64 * 1024 * kGiB}) {
    const std::uint32_t capacity = cache_segment_capacity(limit);
    INFO(limit << ": " << capacity);
    CHECK(capacity >= 128);  // any object fits
    CHECK(capacity <= kCacheMaxSlots);
    CHECK(cache_segment_bytes(capacity, capacity, capacity) <=
          std::max(limit / 16, std::uint64_t{1}));
    CHECK(cache_tag_offset(capacity) <= cache_page_offset(capacity, 0));
    CHECK(cache_page_offset(capacity, 0) % kPageBytes == 0);
    CHECK(cache_nonce(2, 0) > cache_nonce(1, capacity));
    const auto place = PackedPlace::make(kCacheMaxSequence, capacity - 128, 128, 3);
    CHECK(place.sequence() == kCacheMaxSequence);
    CHECK(place.slot() == capacity - 128);
    CHECK(place.pages() == 128);
    CHECK(place.lives() == 3);
  }
}

TEST_CASE("file names of the cache are told from others") {
  CHECK(cache_file_name(CacheFileKind::kData, 7) == "0000000007.seg");
  CHECK(parse_cache_file_name("0000000007.idx")->kind == CacheFileKind::kIndex);
  CHECK(parse_cache_file_name("0000000007.idx")->sequence == 7);
  CHECK(parse_cache_file_name("7.idx")->sequence == 0);
  CHECK(parse_cache_file_name("2147483648.seg")->sequence == 0);
  CHECK(parse_cache_file_name("2147483647.seg")->sequence == 2147483647);
  for (const char* name :
       {"", ".seg", "x.seg", "0000000007", "0000000007.seg.new", "-000000007.seg", "lock"}) {
    CHECK_FALSE(parse_cache_file_name(name));
  }
}
