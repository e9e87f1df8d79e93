// The modified list against a brute-force difference of sets, on random trees.
#include <algorithm>
#include <set>

#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

using KeySet = std::set<ObjectKey>;

struct Listed {
  std::vector<ObjectKey> keys;
  KeySet removed;
};

struct DiffFixture : CatalogFixture {
  std::map<ObjectKey, std::vector<ObjectKey>> children;  // of nodes; leaves have none here

  ObjectKey make_node(std::uint8_t level, const std::vector<ObjectKey>& below) {
    const auto made = node(level, below);
    put(made);
    const ObjectKey name = made.ref.object_key();
    children[name] = level == 1 ? std::vector<ObjectKey>{} : below;
    return name;
  }
  ObjectKey make_leaf() { return make_node(1, {chunk().ref.object_key()}); }

  // A full tree of this height.
  ObjectKey random_tree(std::uint8_t level) {
    if (level == 1) return make_leaf();
    std::vector<ObjectKey> below;
    for (std::uint64_t n = 1 + random.below(5); n > 0; --n) {
      below.push_back(random_tree(static_cast<std::uint8_t>(level - 1)));
    }
    return make_node(level, below);
  }
  // A copy with changes: a child is replaced, dropped, doubled or taken from elsewhere.
  ObjectKey change(const ObjectKey& key, std::uint8_t level, bool move) {
    if (level == 1) return make_leaf();
    std::vector<ObjectKey> below = children.at(key);
    if (below.empty()) below.push_back(random_tree(static_cast<std::uint8_t>(level - 1)));
    const std::size_t at = random.below(below.size());
    switch (random.below(move ? 5 : 3)) {
      case 0:
        below.erase(below.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 1:
        below.push_back(random_tree(static_cast<std::uint8_t>(level - 1)));
        break;
      case 3:
        below.push_back(below[at]);
        break;
      case 4: {
        std::vector<ObjectKey> same_level;
        for (const auto& [other, its] : children) {
          if (height(other) == level - 1) same_level.push_back(other);
        }
        below[at] = same_level[random.below(same_level.size())];
        break;
      }
      default:
        below[at] = change(below[at], static_cast<std::uint8_t>(level - 1), move);
    }
    return make_node(level, below);
  }
  int height(const ObjectKey& key) {
    const auto& below = children.at(key);
    return below.empty() ? (objects_head(key).level) : 1 + height(below.front());
  }
  format::ObjectHead objects_head(const ObjectKey& key) {
    format::ObjectHead head;
    objects.get(std::span(&key, 1), [&](std::size_t, Result<Bytes> object) {
      head = *format::parse_head(*object);
      return true;
    });
    return head;
  }
  KeySet nodes_of(const ObjectKey& root) {
    KeySet out;
    if (root.id.is_zero()) return out;
    out.insert(root);
    for (const ObjectKey& child : children.at(root)) out.merge(nodes_of(child));
    return out;
  }

  Listed list(const ObjectKey& old_root, const ObjectKey& new_root, std::size_t part_bytes) {
    catalog::TreeDiff diff(objects, old_root, new_root);
    Listed out;
    KeySet once;
    for (;;) {
      auto part = diff.next(part_bytes);
      REQUIRE(part.ok());
      if (!*part) return out;
      for (std::size_t i = 0; i < (*part)->keys.size(); ++i) {
        const ObjectKey& name = (*part)->keys[i];
        CHECK(format::object_id((*part)->nodes[i]) == name.id);
        CHECK(once.insert(name).second);
        out.keys.push_back(name);
      }
      out.removed.insert((*part)->removed.begin(), (*part)->removed.end());
    }
  }

  void check(const ObjectKey& old_root, const ObjectKey& new_root, bool exact) {
    const Listed got = list(old_root, new_root, 1 + random.below(5000));
    const KeySet old_nodes = nodes_of(old_root), new_nodes = nodes_of(new_root);
    const KeySet got_new(got.keys.begin(), got.keys.end());
    KeySet added, gone;
    std::set_difference(new_nodes.begin(), new_nodes.end(), old_nodes.begin(), old_nodes.end(),
                        std::inserter(added, added.end()));
    std::set_difference(old_nodes.begin(), old_nodes.end(), new_nodes.begin(), new_nodes.end(),
                        std::inserter(gone, gone.end()));
    // Nothing that differs is left out, and nothing is named that the trees do not have.
    CHECK(std::includes(got_new.begin(), got_new.end(), added.begin(), added.end()));
    CHECK(std::includes(got.removed.begin(), got.removed.end(), gone.begin(), gone.end()));
    CHECK(std::includes(new_nodes.begin(), new_nodes.end(), got_new.begin(), got_new.end()));
    CHECK(
        std::includes(old_nodes.begin(), old_nodes.end(), got.removed.begin(), got.removed.end()));
    if (exact) {
      CHECK(got_new == added);
      CHECK(got.removed == gone);
    }
    // Parents before children.
    std::map<ObjectKey, std::size_t> place;
    for (std::size_t i = 0; i < got.keys.size(); ++i) place[got.keys[i]] = i;
    for (const ObjectKey& parent : got.keys) {
      for (const ObjectKey& child : children.at(parent)) {
        if (place.contains(child)) CHECK(place[parent] < place[child]);
      }
    }
  }
};

}  // namespace

TEST_CASE_METHOD(DiffFixture, "the modified list is the difference of the trees") {
  INFO("seed " << seed());
  for (int round = 0; round < 40; ++round) {
    const auto level = static_cast<std::uint8_t>(1 + random.below(4));
    const ObjectKey before = random_tree(level);
    ObjectKey after = before;
    for (std::uint64_t n = 1 + random.below(4); n > 0; --n) {
      after = change(after, level, false);
    }
    check(before, after, true);
    check({}, after, true);
    check(before, {}, true);
    check(before, before, true);
    CHECK(list(before, before, 100).keys.empty());
  }
}

TEST_CASE_METHOD(DiffFixture, "nodes that move between parents are never left out") {
  INFO("seed " << seed());
  for (int round = 0; round < 20; ++round) {
    children.clear();
    const ObjectKey before = random_tree(4);
    ObjectKey after = before;
    for (int n = 0; n < 6; ++n) after = change(after, 4, true);
    check(before, after, false);
  }
}

TEST_CASE_METHOD(DiffFixture, "trees of different heights are compared too") {
  const ObjectKey small = random_tree(2);
  const ObjectKey tall = make_node(3, {small, random_tree(2)});
  check(small, tall, true);
  check(tall, small, true);
}

TEST_CASE_METHOD(DiffFixture, "the cost of a list grows with the change and not with the tree") {
  std::vector<ObjectKey> inner;
  for (int i = 0; i < 20; ++i) {
    std::vector<ObjectKey> leaves;
    for (int j = 0; j < 20; ++j) leaves.push_back(make_leaf());
    inner.push_back(make_node(2, leaves));
  }
  const ObjectKey before = make_node(3, inner);
  std::vector<ObjectKey> leaves = children.at(inner[4]);
  leaves[11] = make_leaf();
  inner[4] = make_node(2, leaves);
  const ObjectKey after = make_node(3, inner);
  objects.reads = 0;
  const Listed got = list(before, after, kMiB);
  CHECK(got.keys.size() == 3);
  CHECK(got.removed.size() == 3);
  CHECK(objects.reads <= 7);  // two roots twice, two inner nodes, one leaf
}

TEST_CASE_METHOD(DiffFixture,
                 "a list is complete or an error; an old tree that is gone is no tree") {
  const ObjectKey leaf = make_leaf(), other = make_leaf();
  const ObjectKey before = make_node(2, {leaf}), after = make_node(2, {leaf, other});
  REQUIRE(objects.remove(other).ok());
  catalog::TreeDiff broken(objects, before, after);
  Result<std::optional<contract::DiffPart>> part = broken.next(kMiB);
  CHECK(code_of(part) == ErrorCode::kNotFound);
  REQUIRE(objects.remove(before).ok());
  catalog::TreeDiff without(objects, before, make_node(2, {leaf}));
  part = without.next(kMiB);
  REQUIRE(part.ok());
  REQUIRE(part->has_value());
  CHECK((*part)->keys.size() == 2);
}

TEST_CASE_METHOD(DiffFixture,
                 "versions: an unknown old one means everything, a new one must be known") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  const VersionId first = commit_tree(image, lease), second = commit_tree(image, lease);
  const auto count = [&](const VersionId& old_version) {
    const auto diff = catalog->diff(image.id, old_version, second);
    REQUIRE(diff.ok());
    auto part = (*diff)->next(kMiB);
    REQUIRE(part.ok());
    return *part ? (*part)->keys.size() : 0;
  };
  CHECK(count(first) == 2);
  CHECK(count({}) == 2);
  CHECK(count(random.id<VersionId>()) == 2);
  CHECK(count(second) == 0);
  CHECK(code_of(catalog->diff(image.id, first, random.id<VersionId>())) ==
        ErrorCode::kOtherHistory);
}

TEST_CASE_METHOD(DiffFixture, "a root that is a chunk, or a node on a wrong level, is no tree") {
  const auto data = chunk();
  put(data);
  catalog::TreeDiff chunk_root(objects, {}, data.ref.object_key());
  CHECK(code_of(chunk_root.next(kMiB)) == ErrorCode::kCorrupt);
  const auto skips = node(3, {make_leaf()});
  put(skips);
  catalog::TreeDiff skipping(objects, {}, skips.ref.object_key());
  CHECK(code_of(skipping.next(kMiB)) == ErrorCode::kCorrupt);
}
