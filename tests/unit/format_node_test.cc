// Tree nodes: leaves against a model, inner nodes, and entries that lie.
#include <catch2/catch.hpp>

#include "common/format/node.h"
#include "tests/unit/format_craft.h"

using namespace dims;
using namespace dims::format;
using namespace dims::test;

namespace {

Reference random_reference(SeededRandom& random, const DomainKey& key) {
  return {key.domain(), random.id<ObjectId>(), random.id<Secret32>()};
}

// What a leaf says, page by page.
struct PageModel {
  struct Page {
    Reference ref;
    std::uint16_t in_chunk = 0;
    friend bool operator==(const Page&, const Page&) = default;
  };
  std::vector<std::optional<Page>> pages;

  void replace(std::uint32_t first, std::uint32_t count, const std::vector<Extent>& with) {
    for (std::uint32_t i = first; i < first + count; ++i) pages[i].reset();
    for (const Extent& e : with) {
      for (std::uint32_t i = 0; i < e.page_count; ++i) {
        pages[e.first_page + i] = Page{e.ref, static_cast<std::uint16_t>(e.first_in_chunk + i)};
      }
    }
  }
  void check(const Leaf& leaf) const {
    std::uint32_t free_from = 0;
    for (const Extent& e : leaf.extents) {
      REQUIRE(e.page_count > 0);
      REQUIRE(e.first_page >= free_from);
      REQUIRE(e.end_page() <= pages.size());
      free_from = e.end_page();
    }
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const Extent* e = leaf.find(static_cast<std::uint16_t>(i));
      REQUIRE((e != nullptr) == pages[i].has_value());
      if (e == nullptr) continue;
      const Page page{e->ref, static_cast<std::uint16_t>(e->first_in_chunk + (i - e->first_page))};
      REQUIRE(page == *pages[i]);
    }
  }
};

// Random extents that fill some of [first, first + count).
std::vector<Extent> random_extents(SeededRandom& random, const DomainKey& key, std::uint32_t first,
                                   std::uint32_t count) {
  std::vector<Extent> out;
  std::uint32_t at = first + static_cast<std::uint32_t>(random.below(count + 1));
  while (at < first + count) {
    const auto in_chunk = static_cast<std::uint16_t>(random.below(8));
    const std::uint64_t longest =
        std::min<std::uint64_t>(first + count - at, kMaxChunkPages - in_chunk);
    const auto pages = static_cast<std::uint16_t>(1 + random.below(longest));
    out.push_back({static_cast<std::uint16_t>(at), pages, in_chunk, random_reference(random, key)});
    at += pages + static_cast<std::uint32_t>(random.below(3) == 0 ? random.below(20) : 0);
  }
  return out;
}

bool same(const Leaf& a, const Leaf& b) {
  return std::equal(a.extents.begin(), a.extents.end(), b.extents.begin(), b.extents.end(),
                    [](const Extent& x, const Extent& y) {
                      return x.first_page == y.first_page && x.page_count == y.page_count &&
                             x.first_in_chunk == y.first_in_chunk && x.ref == y.ref;
                    });
}

// A node sealed properly over entries that may be anything.
SealedObject craft_node(const DomainKey& key, ObjectKind kind, std::uint8_t level,
                        std::uint32_t count,
                        const std::vector<std::array<std::uint16_t, 4>>& entries,
                        std::size_t children, std::size_t keys) {
  std::vector<ObjectKey> clear;
  for (std::size_t i = 0; i < children; ++i) {
    ObjectId id;
    id.bytes[0] = static_cast<std::uint8_t>(i + 1);
    clear.push_back({key.domain(), id});
  }
  Bytes data;
  Writer w(data);
  w.u32(count);
  for (const auto& entry : entries) {
    for (const std::uint16_t value : entry) w.u16(value);
  }
  for (std::size_t i = 0; i < keys; ++i) w.id(Secret32{});
  return seal_node(key, kind, level, clear, data);
}

}  // namespace

TEST_CASE("replacing in a leaf equals replacing in an array of pages") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  for (const std::uint16_t leaf_pages :
       {std::uint16_t{32}, std::uint16_t{256}, std::uint16_t{1024}}) {
    TreeParameters parameters;
    parameters.leaf_pages = leaf_pages;
    Leaf leaf;
    PageModel model;
    model.pages.resize(leaf_pages);
    for (int step = 0; step < 400; ++step) {
      const auto first = static_cast<std::uint16_t>(random.below(leaf_pages));
      const std::uint64_t longest =
          random.below(4) == 0 ? leaf_pages - first : std::min(20, leaf_pages - first);
      const auto count = static_cast<std::uint16_t>(random.below(longest + 1));
      const auto with =
          random.below(4) == 0 ? std::vector<Extent>() : random_extents(random, key, first, count);
      leaf.replace(first, count, with);
      model.replace(first, count, with);
      model.check(leaf);
      if (step % 20 == 0) {
        const SealedObject object = encode_leaf(key, leaf);
        const auto back = decode_leaf(parameters, object.ref, object.bytes);
        REQUIRE(back.ok());
        CHECK(same(*back, leaf));
      }
    }
  }
}

TEST_CASE("the largest leaf and the largest inner node fit into an object") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  TreeParameters parameters;
  parameters.leaf_pages = 1024;
  parameters.fanout = 1024;
  Leaf leaf;
  for (std::uint16_t i = 0; i < 1024; ++i)
    leaf.extents.push_back({i, 1, 31, random_reference(random, key)});
  const SealedObject full = encode_leaf(key, leaf);
  CHECK(full.bytes.size() <= kMaxObjectBytes);
  CHECK(same(*decode_leaf(parameters, full.ref, full.bytes), leaf));
  Inner inner;
  for (int i = 0; i < 1024; ++i) inner.slots.push_back(random_reference(random, key));
  const SealedObject node = encode_inner(key, 5, inner);
  CHECK(node.bytes.size() <= kMaxObjectBytes);
  CHECK(decode_inner(parameters, 5, node.ref, node.bytes)->slots == inner.slots);
}

TEST_CASE("an inner node keeps its slots, zeros and repeats, and shows each child once") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  const TreeParameters parameters;
  Inner inner;
  inner.slots.resize(32);
  inner.slots[0] = inner.slots[31] = random_reference(random, key);
  inner.slots[7] = random_reference(random, key);
  inner.slots[7].domain.bytes[0] ^= 1;  // a base in another domain
  const SealedObject object = encode_inner(key, 2, inner);
  const auto back = decode_inner(parameters, 2, object.ref, object.bytes);
  REQUIRE(back.ok());
  CHECK(back->slots == inner.slots);
  const auto head = parse_head(object.bytes);
  CHECK(head->children == std::vector{inner.slots[0].object_key(), inner.slots[7].object_key()});
  CHECK(decode_inner(parameters, 3, object.ref, object.bytes).error().code == ErrorCode::kCorrupt);
  CHECK(decode_leaf(parameters, object.ref, object.bytes).error().code == ErrorCode::kCorrupt);
  const SealedObject empty = encode_leaf(key, Leaf{});
  CHECK(decode_leaf(parameters, empty.ref, empty.bytes)->extents.empty());
  CHECK(decode_inner(parameters, 2, empty.ref, empty.bytes).error().code == ErrorCode::kCorrupt);
}

TEST_CASE("neither keys nor places of the children can be seen in a node") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  Leaf leaf;
  leaf.extents.push_back({1, 2, 3, random_reference(random, key)});
  const Bytes bytes = encode_leaf(key, leaf).bytes;
  const auto contains = [&](ByteView part) {
    return std::search(bytes.begin(), bytes.end(), part.begin(), part.end()) != bytes.end();
  };
  CHECK(contains(leaf.extents[0].ref.id.view()));
  CHECK(!contains(leaf.extents[0].ref.key.view()));
  Leaf moved = leaf;
  moved.extents[0].first_page = 100;
  CHECK(encode_leaf(key, moved).bytes.size() == bytes.size());
}

TEST_CASE("entries out of bounds are refused even when they are well sealed") {
  using Entries = std::vector<std::array<std::uint16_t, 4>>;
  const DomainKey key = test_domain_key();
  const TreeParameters parameters;  // 256 pages, 32 slots
  const struct {
    const char* what;
    std::uint32_t count;
    Entries entries;
    std::size_t children, keys;
  } leaves[] = {
      {"no pages", 1, {{0, 0, 0, 0}}, 1, 1},
      {"behind the stretch", 1, {{250, 7, 0, 0}}, 1, 1},
      {"far behind the stretch", 1, {{65535, 65535, 0, 0}}, 1, 1},
      {"behind the chunk", 1, {{0, 2, 31, 0}}, 1, 1},
      {"overlapping", 2, {{0, 4, 0, 0}, {3, 1, 0, 0}}, 1, 1},
      {"descending", 2, {{8, 4, 0, 0}, {0, 1, 0, 0}}, 1, 1},
      {"no such child", 1, {{0, 1, 0, 1}}, 1, 1},
      {"child without list", 1, {{0, 1, 0, 0}}, 0, 0},
      {"more entries than data", 2, {{0, 1, 0, 0}}, 1, 0},
      {"more entries than pages", 257, {}, 1, 1},
      {"count without bound", 0xffffffff, {}, 1, 1},
      {"a key too few", 1, {{0, 1, 0, 0}}, 2, 1},
      {"a key too many", 1, {{0, 1, 0, 0}}, 1, 2},
  };
  for (const auto& c : leaves) {
    INFO(c.what);
    const SealedObject object =
        craft_node(key, ObjectKind::kLeaf, 1, c.count, c.entries, c.children, c.keys);
    const auto decoded = decode_leaf(parameters, object.ref, object.bytes);
    REQUIRE(!decoded.ok());
    CHECK(decoded.error().code == ErrorCode::kCorrupt);
  }
  const struct {
    const char* what;
    Entries entries;
  } inners[] = {
      {"slot behind the last", {{32, 0, 0, 0}}}, {"slot twice", {{3, 0, 0, 0}, {3, 0, 0, 0}}},
      {"reserved not zero", {{3, 1, 0, 0}}},     {"reserved not zero either", {{3, 0, 1, 0}}},
      {"no such child", {{3, 0, 0, 1}}},
  };
  for (const auto& c : inners) {
    INFO(c.what);
    const auto count = static_cast<std::uint32_t>(c.entries.size());
    const SealedObject object = craft_node(key, ObjectKind::kInner, 2, count, c.entries, 1, 1);
    const auto decoded = decode_inner(parameters, 2, object.ref, object.bytes);
    REQUIRE(!decoded.ok());
    CHECK(decoded.error().code == ErrorCode::kCorrupt);
  }
  const SealedObject good = craft_node(key, ObjectKind::kInner, 2, 1, {{31, 0, 0, 0}}, 1, 1);
  CHECK(decode_inner(parameters, 2, good.ref, good.bytes).ok());
}

TEST_CASE("random node data is refused or stays within bounds") {
  SeededRandom random(seed());
  const DomainKey key = test_domain_key();
  const TreeParameters parameters;
  const std::vector<ObjectKey> children{{key.domain(), random.id<ObjectId>()},
                                        {key.domain(), random.id<ObjectId>()}};
  for (int round = 0; round < 5000; ++round) {
    Bytes data;
    Writer w(data);
    const auto count = static_cast<std::uint32_t>(random.below(4));
    w.u32(count);
    for (std::uint32_t i = 0; i < count * 4; ++i)
      w.u16(static_cast<std::uint16_t>(random.below(i % 4 == 3 ? 3 : 40)));
    data.resize(data.size() + 64);
    const SealedObject object = seal_node(key, ObjectKind::kLeaf, 1, children, data);
    const auto leaf = decode_leaf(parameters, object.ref, object.bytes);
    if (!leaf.ok()) continue;
    std::uint32_t free_from = 0;
    for (const Extent& e : leaf->extents) {
      REQUIRE(e.first_page >= free_from);
      REQUIRE(e.page_count > 0);
      REQUIRE(e.first_in_chunk + e.page_count <= static_cast<int>(kMaxChunkPages));
      free_from = e.end_page();
    }
    REQUIRE(free_from <= parameters.leaf_pages);
  }
}

TEST_CASE("the root's level is the lowest that covers the disk") {
  const TreeParameters standard;
  CHECK(root_level(standard, 1) == 1);
  CHECK(root_level(standard, kMiB) == 1);
  CHECK(root_level(standard, kMiB + 1) == 2);
  CHECK(root_level(standard, 32 * kMiB) == 2);
  CHECK(root_level(standard, 32 * kMiB + 1) == 3);
  CHECK(root_level(standard, kGiB) == 3);
  CHECK(root_level(standard, 1024 * kGiB) == 5);
  SeededRandom random(seed());
  for (int i = 0; i < 2000; ++i) {
    TreeParameters p;
    p.leaf_pages = static_cast<std::uint16_t>(32 + random.below(993));
    p.fanout = static_cast<std::uint16_t>(8 + random.below(1017));
    REQUIRE(check_parameters(p).ok());
    const std::uint64_t bytes =
        1 + (random.next() & (kMaxImageBytes - 1)) / (std::uint64_t{1} << random.below(50));
    const std::uint8_t level = root_level(p, bytes);
    REQUIRE(level < 16);
    REQUIRE(pages_below(p, level) >= pages_for(bytes));
    if (level > 1) REQUIRE(pages_below(p, static_cast<std::uint8_t>(level - 1)) < pages_for(bytes));
  }
}

TEST_CASE("tree parameters outside their range are refused") {
  const auto code = [](std::uint16_t leaf, std::uint16_t fanout, std::uint32_t mean) {
    const Status status = check_parameters({leaf, fanout, mean});
    return status.ok() ? ErrorCode::kInternal : status.error().code;
  };
  CHECK(check_parameters({}).ok());
  CHECK(check_parameters({32, 4, 4096}).ok());
  CHECK(check_parameters({1024, 1024, 131072}).ok());
  for (const auto& [leaf, fanout, mean] : {std::tuple{31, 32, 16384},
                                           {1025, 32, 16384},
                                           {256, 3, 16384},
                                           {256, 1025, 16384},
                                           {256, 32, 4095},
                                           {256, 32, 131073},
                                           {0, 0, 0}}) {
    CHECK(code(static_cast<std::uint16_t>(leaf), static_cast<std::uint16_t>(fanout),
               static_cast<std::uint32_t>(mean)) == ErrorCode::kUnsupported);
  }
}
