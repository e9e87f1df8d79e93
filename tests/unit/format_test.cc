// Objects: sealing, opening, and everything that must not open.
#include <catch2/catch.hpp>

#include <zstd.h>

#include "tests/unit/format_craft.h"

using namespace dims;
using namespace dims::format;
using namespace dims::test;

namespace {

Bytes zstd(ByteView data, int level) {
  Bytes out(ZSTD_compressBound(data.size()));
  const std::size_t n = ZSTD_compress(out.data(), out.size(), data.data(), data.size(), level);
  REQUIRE(ZSTD_isError(n) == 0);
  out.resize(n);
  return out;
}

Error open_error(const Reference& ref, ByteView object) {
  const auto opened = open_object(ref, object);
  REQUIRE(!opened.ok());
  return opened.error();
}

}  // namespace

TEST_CASE("a chunk of any size opens to the pages it was made of") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  for (std::size_t pages = 1; pages <= kMaxChunkPages; ++pages) {
    for (const Bytes& data : {texty_pages(random, pages), random_pages(random, pages)}) {
      for (const bool compress : {true, false}) {
        const SealedObject object = seal_chunk(key, data, compress);
        CHECK(object.ref.id == object_id(object.bytes));
        CHECK(object.bytes.size() <= kMaxObjectBytes);
        const auto head = parse_head(object.bytes);
        REQUIRE(head.ok());
        CHECK(head->kind == ObjectKind::kChunk);
        CHECK(head->level == 0);
        CHECK(head->domain == key.domain());
        CHECK(head->epoch == 1);
        CHECK(head->payload_bytes % kPadBytes == 0);
        CHECK(head->children.empty());
        const auto opened = open_object(object.ref, object.bytes);
        REQUIRE(opened.ok());
        CHECK(*opened == data);
        CHECK(seal_chunk(key, data, compress).bytes ==
              object.bytes);  // equal content is one object
      }
    }
  }
}

TEST_CASE("compression is used where it saves a unit of padding, and only there") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  const Bytes text = texty_pages(random, 4);
  const Bytes noise = random_pages(random, 4);
  CHECK(seal_chunk(key, text).bytes.size() < seal_chunk(key, text, false).bytes.size());
  CHECK(seal_chunk(key, noise).bytes == seal_chunk(key, noise, false).bytes);
}

TEST_CASE("the same pages in another payload get another key: no key stream is used twice") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  const Bytes pages = texty_pages(random, 8);
  std::vector<SealedObject> objects{seal_chunk(key, pages, true), seal_chunk(key, pages, false)};
  for (const int level : {3, 19}) {
    const Bytes packed = zstd(pages, level);
    const PayloadFields fields{1, 8, static_cast<std::uint32_t>(packed.size()),
                               static_cast<std::uint32_t>(pages.size())};
    objects.push_back(craft_object(key, 1, 0, craft_payload(fields, packed)));
  }
  for (std::size_t i = 0; i < objects.size(); ++i) {
    const auto opened = open_object(objects[i].ref, objects[i].bytes);
    REQUIRE(opened.ok());
    CHECK(*opened == pages);
    for (std::size_t j = 0; j < i; ++j) {
      CHECK(!(objects[i].ref.key == objects[j].ref.key));
      CHECK(!(objects[i].ref.id == objects[j].ref.id));
    }
  }
}

TEST_CASE("every byte of an object is checked, even by who knows its new id") {
  SeededRandom random(seed());
  const SealedObject object = seal_chunk(test_domain_key(), texty_pages(random, 1));
  for (std::size_t i = 0; i < object.bytes.size(); ++i) {
    Bytes damaged = object.bytes;
    damaged[i] ^= static_cast<std::uint8_t>(1U << random.below(8));
    INFO("byte " << i);
    const auto as_named = open_object(object.ref, damaged);
    REQUIRE(!as_named.ok());
    CHECK(as_named.error().code == ErrorCode::kCorrupt);
    Reference renamed = object.ref;
    renamed.id = object_id(damaged);
    CHECK(!open_object(renamed, damaged).ok());
    CHECK(!open_object(object.ref, damaged, false).ok());
  }
}

TEST_CASE("an object that is cut or grown is refused") {
  SeededRandom random(seed());
  const SealedObject object = seal_chunk(test_domain_key(), texty_pages(random, 2));
  for (std::size_t n = 0; n < object.bytes.size(); n += 1 + random.below(16)) {
    const ByteView part = ByteView(object.bytes).first(n);
    CHECK(!open_object(object.ref, part).ok());
    CHECK(!open_object(object.ref, part, false).ok());
  }
  Bytes grown = object.bytes;
  grown.push_back(0);
  CHECK(!open_object(object.ref, grown, false).ok());
}

TEST_CASE("another reference, key or domain does not open an object") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  const SealedObject one = seal_chunk(key, random_pages(random, 1));
  const SealedObject two = seal_chunk(key, random_pages(random, 1));
  CHECK(open_error(two.ref, one.bytes).code == ErrorCode::kCorrupt);
  Reference mixed = one.ref;
  mixed.key = two.ref.key;
  CHECK(open_error(mixed, one.bytes).message.find("key") != std::string::npos);
  mixed = one.ref;
  mixed.domain.bytes[0] ^= 1;
  CHECK(open_error(mixed, one.bytes).message.find("domain") != std::string::npos);
  CHECK(open_error(Reference{}, one.bytes).code == ErrorCode::kCorrupt);
  // The same pages under another domain secret or epoch are another object.
  const Bytes pages = random_pages(random, 1);
  CHECK(!(seal_chunk(key, pages).ref.id == seal_chunk(test_domain_key(2), pages).ref.id));
  Secret32 secret;
  CHECK(!(seal_chunk(DomainKey(key.domain(), 1, secret), pages).ref.key ==
          seal_chunk(DomainKey(key.domain(), 2, secret), pages).ref.key));
}

TEST_CASE("the page of the format is enough to write an object") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  const Bytes pages = random_pages(random, 3);
  const auto bytes = static_cast<std::uint32_t>(pages.size());
  CHECK(craft_object(key, 1, 0, craft_payload({0, 3, bytes, bytes}, pages)).bytes ==
        seal_chunk(key, pages, false).bytes);
}

TEST_CASE("a well sealed payload that lies about its lengths is refused and bounded") {
  const DomainKey key = test_domain_key();
  const Bytes page(kPageBytes, 7);
  const Bytes packed = zstd(page, 1);
  const Bytes bomb = zstd(Bytes(64 * kMiB, 0), 19);
  REQUIRE(bomb.size() < 64 * kKiB);
  const auto n = [](const Bytes& data) { return static_cast<std::uint32_t>(data.size()); };
  constexpr std::uint32_t kPage = 4096, kHuge = 0xffffffff;
  const struct {
    const char* what;
    PayloadFields fields;
    const Bytes& data;
    std::uint8_t kind, level;
  } cases[] = {
      {"bomb as one page", {1, 1, n(bomb), kPage}, bomb, 1, 0},
      {"bomb as 32 pages", {1, 32, n(bomb), 32 * kPage}, bomb, 1, 0},
      {"bomb with its true length", {1, 16384, n(bomb), 64 << 20}, bomb, 1, 0},
      {"raw length without bound", {1, 1, n(packed), kHuge}, packed, 1, 0},
      {"no pages", {0, 0, n(page), n(page)}, page, 1, 0},
      {"too many pages", {1, 33, n(packed), 33 * kPage}, packed, 1, 0},
      {"pages and raw length disagree", {1, 2, n(packed), kPage}, packed, 1, 0},
      {"decompresses to less", {1, 2, n(packed), 2 * kPage}, packed, 1, 0},
      {"data longer than the payload", {0, 1, 4609, 4609}, page, 1, 0},
      {"data length without bound", {0, 1, kHuge, kPage}, page, 1, 0},
      {"raw and data length disagree", {0, 1, kPage - 1, kPage}, page, 1, 0},
      {"no zstd at all", {1, 1, n(page), kPage}, page, 1, 0},
      {"unknown codec", {2, 1, n(page), kPage}, page, 1, 0},
      {"packed node", {1, 0, n(packed), kPage}, packed, 2, 1},
      {"node with pages", {0, 1, n(page), kPage}, page, 2, 1},
  };
  for (const auto& c : cases) {
    INFO(c.what);
    const SealedObject object = craft_object(key, c.kind, c.level, craft_payload(c.fields, c.data));
    const auto opened = open_object(object.ref, object.bytes);
    REQUIRE(!opened.ok());
    CHECK((opened.error().code == ErrorCode::kCorrupt ||
           opened.error().code == ErrorCode::kUnsupported));
  }
  const SealedObject good =
      craft_object(key, 1, 0, craft_payload({1, 1, n(packed), kPage}, packed));
  CHECK(*open_object(good.ref, good.bytes) == page);
}

TEST_CASE("a future format says so; kinds and levels that do not fit are refused") {
  const DomainKey key = test_domain_key();
  Bytes object = seal_chunk(key, Bytes(kPageBytes, 1)).bytes;
  object[4] = 2;
  CHECK(parse_head(object).error().code == ErrorCode::kUnsupported);
  const Bytes payload = craft_payload({}, {});
  for (const auto& [kind, level] :
       {std::pair{0, 0}, {4, 1}, {1, 1}, {2, 0}, {2, 2}, {3, 1}, {3, 0}, {3, 16}}) {
    INFO(kind << " " << level);
    const SealedObject odd = craft_object(key, static_cast<std::uint8_t>(kind),
                                          static_cast<std::uint8_t>(level), payload);
    CHECK(parse_head(odd.bytes).error().code == ErrorCode::kCorrupt);
  }
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{100}, kMaxPayloadBytes + 512}) {
    CHECK(!parse_head(craft_object(key, 1, 0, Bytes(bytes)).bytes).ok());
  }
}

TEST_CASE("random damage to a head is found or harmless, and never asks for much memory") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  std::vector<ObjectKey> children;
  for (int i = 0; i < 40; ++i)
    children.push_back({i % 3 == 0 ? DomainId{} : key.domain(), random.id<ObjectId>()});
  const SealedObject node = seal_node(key, ObjectKind::kInner, 2, children, Bytes(100));
  REQUIRE(parse_head(node.bytes)->children == children);
  for (int round = 0; round < 20000; ++round) {
    Bytes damaged = node.bytes;
    for (std::uint64_t i = 0; i <= random.below(4); ++i) {
      const std::size_t at = random.below(2) == 0 ? random.below(48) : random.below(damaged.size());
      damaged[at] = static_cast<std::uint8_t>(random.next());
    }
    if (random.below(4) == 0) damaged.resize(random.below(damaged.size()));
    const auto head = parse_head(damaged);
    if (head.ok()) {
      REQUIRE(head->children.size() <= kMaxChildren);
      REQUIRE(head->head_bytes + 32 + head->payload_bytes + 16 == damaged.size());
    }
    if (damaged != node.bytes) REQUIRE(!open_object(node.ref, damaged, false).ok());
  }
}
