// Cutter, TreeEditor and visit_leaves against models: an array of pages under random edits.
#include <catch2/catch.hpp>

#include <set>

#include "common/tree/cutter.h"
#include "tests/support/seed.h"
#include "tests/unit/tree_model.h"

using namespace dims;
using format::Reference;
using test::MemoryNodes;
using test::PageContent;
using test::PageModel;
using tree::PlacedExtent;
using tree::TreeEditor;
using tree::TreeShape;

namespace {

format::DomainKey some_key() {
  Secret32 secret;
  secret.bytes[5] = 77;
  return format::DomainKey(DomainId{}, 1, secret);
}

Reference some_chunk(SeededRandom& random) {
  return {random.id<DomainId>(), random.id<ObjectId>(), random.id<Secret32>()};
}

struct Edit {
  PageRange range;
  std::vector<PlacedExtent> extents;
};

// A random range with random chunks in it, at or after `from`.
Edit random_edit(SeededRandom& random, std::uint64_t from, std::uint64_t pages,
                 std::uint64_t longest) {
  Edit edit;
  edit.range.first = from + random.below(std::min<std::uint64_t>(pages - from, 4 * longest));
  edit.range.count = 1 + random.below(std::min(longest, pages - edit.range.first));
  const std::uint64_t gap = random.below(4) == 0 ? 1 + random.below(400) : 1 + random.below(3);
  std::uint64_t at = edit.range.first + random.below(gap);
  if (random.below(8) == 0) return edit;  // zeros only
  while (at < edit.range.end()) {
    PlacedExtent e;
    e.first_page = at;
    e.first_in_chunk = static_cast<std::uint16_t>(random.below(8));
    e.page_count =
        1 + random.below(std::min<std::uint64_t>(edit.range.end() - at, 32 - e.first_in_chunk));
    e.ref = some_chunk(random);
    at += e.page_count + random.below(gap);
    edit.extents.push_back(e);
  }
  return edit;
}

void apply(PageModel& model, const Edit& edit) {
  model.erase(model.lower_bound(edit.range.first), model.lower_bound(edit.range.end()));
  for (const PlacedExtent& e : edit.extents) {
    for (std::uint64_t i = 0; i < e.page_count; ++i) {
      model[e.first_page + i] = {e.ref, static_cast<std::uint16_t>(e.first_in_chunk + i)};
    }
  }
}

PageModel read_tree(const TreeShape& shape, PageRange within, MemoryNodes& nodes) {
  PageModel out;
  std::uint64_t last = 0;
  bool any = false;
  const Status status =
      tree::visit_leaves(shape, within, nodes,
                         [&](std::uint64_t first, const Reference& ref, const format::Leaf& leaf) {
                           CHECK(!ref.is_zero());
                           CHECK((!any || first > last));
                           CHECK(first % shape.parameters.leaf_pages == 0);
                           any = true;
                           last = first;
                           for (const auto& e : leaf.extents) {
                             for (unsigned i = 0; i < e.page_count; ++i) {
                               out[first + e.first_page + i] = {
                                   e.ref, static_cast<std::uint16_t>(e.first_in_chunk + i)};
                             }
                           }
                           return ok_status();
                         });
  REQUIRE(status.ok());
  return out;
}

// Edits the tree, checks that the sink saw children before parents and nothing twice or unneeded.
std::size_t edit_tree(TreeShape& shape, const format::DomainKey& key, MemoryNodes& nodes,
                      const std::vector<Edit>& edits) {
  std::size_t emitted = 0;
  TreeEditor editor(shape, key, nodes, [&](format::SealedObject object) {
    const auto head = format::parse_head(object.bytes);
    REQUIRE(head.ok());
    if (head->kind == format::ObjectKind::kInner) {
      for (const auto& child : head->children) REQUIRE(nodes.nodes.contains(child.id));
    }
    nodes.nodes.insert_or_assign(object.ref.id, std::move(object.bytes));
    ++emitted;
    return ok_status();
  });
  for (const Edit& edit : edits) REQUIRE(editor.replace(edit.range, edit.extents).ok());
  const auto root = editor.finish();
  REQUIRE(root.ok());
  shape.root = *root;
  return emitted;
}

}  // namespace

TEST_CASE("a tree under random edits equals an array of pages") {
  const auto key = some_key();
  struct Shape {
    std::uint16_t leaf_pages, fanout;
    std::uint64_t image_bytes;
  };
  const std::vector<Shape> shapes = {
      {256, 32, 1},           {256, 32, kMiB},
      {256, 32, kMiB + 1},    {32, 4, 20 * kMiB + 4095},
      {32, 4, 300 * kMiB},    {256, 32, 3 * kGiB + 17},
      {1024, 1024, kGiB},     {33, 5, 77 * kMiB},
      {256, 32, 1024 * kGiB}, {32, 8, kMaxImageBytes},
  };
  SeededRandom random(test::seed());
  for (const Shape& s : shapes) {
    for (int round = 0; round < 3; ++round) {
      INFO("leaf " << s.leaf_pages << " fanout " << s.fanout << " bytes " << s.image_bytes
                   << " round " << round);
      TreeShape shape{{s.leaf_pages, s.fanout, 16 * 1024}, s.image_bytes, {}};
      REQUIRE(format::check_parameters(shape.parameters).ok());
      MemoryNodes nodes;
      PageModel model;
      const std::uint64_t pages = pages_for(s.image_bytes);
      for (int session = 0; session < 6; ++session) {
        std::vector<Edit> edits;
        const std::uint64_t longest = 1 + random.below(random.below(3) == 0 ? 3000 : 300);
        for (std::uint64_t from = random.below(2) == 0 ? 0 : random.below(pages);
             from < pages && edits.size() < 12;) {
          edits.push_back(random_edit(random, from, pages, longest));
          from = edits.back().range.end();
          if (random.below(3) == 0 && from < pages)
            from += random.below(pages - from);  // a far jump
        }
        if (random.below(5) == 0) edits = {{{0, pages}, {}}};  // the whole disk
        edit_tree(shape, key, nodes, edits);
        for (const Edit& edit : edits) apply(model, edit);
        CHECK(read_tree(shape, {0, pages}, nodes) == model);
        CHECK(shape.root.is_zero() == model.empty());
      }
      // Within a range: every page of it, and no leaf that does not touch it.
      for (int i = 0; i < 10; ++i) {
        const std::uint64_t first = random.below(pages);
        const PageRange within{first,
                               1 + random.below(std::min<std::uint64_t>(pages - first, 5000))};
        const PageModel part = read_tree(shape, within, nodes);
        const std::uint64_t leaf_pages = s.leaf_pages;
        PageModel expected(model.lower_bound(within.first / leaf_pages * leaf_pages),
                           model.lower_bound(round_up(within.end(), leaf_pages)));
        CHECK(part == expected);
      }
    }
  }
}

TEST_CASE("the same content in the same steps gives the same root, whatever lay there before") {
  const auto key = some_key();
  SeededRandom random(test::seed());
  TreeShape fresh{{}, 500 * kMiB, {}};
  TreeShape used = fresh;
  MemoryNodes nodes;
  const std::uint64_t pages = pages_for(fresh.image_bytes);
  edit_tree(used, key, nodes,
            {random_edit(random, 0, pages, 5000), random_edit(random, 60000, pages, 5000)});
  Edit whole{{0, pages}, {}};
  for (std::uint64_t at = 0; at + 32 < pages; at += 1 + random.below(3000)) {
    whole.extents.push_back({at, 20, 3, some_chunk(random)});
    at += 20;
  }
  edit_tree(fresh, key, nodes, {whole});
  edit_tree(used, key, nodes, {whole});
  CHECK(fresh.root == used.root);
}

TEST_CASE("unchanged nodes are not emitted and untouched ones are not loaded") {
  const auto key = some_key();
  SeededRandom random(test::seed());
  TreeShape shape{{}, 4 * kGiB, {}};  // 4096 leaves, levels 1..4
  MemoryNodes nodes;
  const std::uint64_t pages = pages_for(shape.image_bytes);
  std::vector<PlacedExtent> extents;
  for (std::uint64_t at = 0; at < pages; at += 16)
    extents.push_back({at, 16, 0, some_chunk(random)});
  const std::size_t all = edit_tree(shape, key, nodes, {{{0, pages}, extents}});
  CHECK(all == 4096 + 128 + 4 + 1);

  const Reference before = shape.root;
  CHECK(edit_tree(shape, key, nodes, {{{0, pages}, extents}}) == 0);
  CHECK(shape.root == before);
  CHECK(edit_tree(shape, key, nodes, {}) == 0);
  CHECK(shape.root == before);

  nodes.loads = 0;
  CHECK(edit_tree(shape, key, nodes, {{{700000, 1}, {{700000, 1, 0, some_chunk(random)}}}}) == 4);
  CHECK(nodes.loads == 4);

  // Zeroing 3 GiB of the middle loads only the two rims, and emits only what is left of them.
  nodes.loads = 0;
  const std::size_t rims = edit_tree(shape, key, nodes, {{{1000, 786432}, {}}});
  CHECK(rims <= 2 * 3 + 1);
  CHECK(nodes.loads <= 2 * 3 + 1);
  // And zeroing zeros changes nothing.
  nodes.loads = 0;
  CHECK(edit_tree(shape, key, nodes, {{{2000, 500000}, {}}}) == 0);
  CHECK(nodes.loads <= 4);
  CHECK(edit_tree(shape, key, nodes, {{{0, pages}, {}}}) == 0);
  CHECK(shape.root.is_zero());
}

TEST_CASE("an extent over a leaf border is split, each half keeps its place in the chunk") {
  const auto key = some_key();
  SeededRandom random(test::seed());
  TreeShape shape{{}, 4 * kMiB, {}};
  MemoryNodes nodes;
  const Reference chunk = some_chunk(random);
  edit_tree(shape, key, nodes, {{{250, 12}, {{250, 12, 2, chunk}}}});
  const PageModel pages = read_tree(shape, {0, 1024}, nodes);
  CHECK(pages.size() == 12);
  CHECK(pages.at(255).page_in_chunk == 7);
  CHECK(pages.at(256).page_in_chunk == 8);
  CHECK(pages.at(261).page_in_chunk == 13);
}

TEST_CASE("the editor refuses what would make a wrong tree") {
  const auto key = some_key();
  SeededRandom random(test::seed());
  const Reference ref = some_chunk(random);
  const TreeShape shape{{}, 4 * kMiB, {}};
  MemoryNodes nodes;
  const auto refused = [&](PageRange range, const std::vector<PlacedExtent>& extents) {
    TreeEditor editor(shape, key, nodes, [](const format::SealedObject&) { return ok_status(); });
    REQUIRE(editor.replace({100, 100}, {}).ok());
    const Status status = editor.replace(range, extents);
    return !status.ok() && status.error().code == ErrorCode::kInvalidArgument;
  };
  CHECK(!refused({200, 824}, {{200, 32, 0, ref}, {300, 1, 31, ref}}));
  CHECK(refused({199, 2}, {}));                                     // backwards
  CHECK(refused({200, 825}, {}));                                   // beyond the disk
  CHECK(refused({200, ~std::uint64_t{0} - 100}, {}));               // overflow
  CHECK(refused({200, 10}, {{199, 2, 0, ref}}));                    // before the range
  CHECK(refused({200, 10}, {{209, 2, 0, ref}}));                    // after it
  CHECK(refused({200, 10}, {{205, 1, 0, ref}, {203, 1, 0, ref}}));  // not ascending
  CHECK(refused({200, 10}, {{203, 3, 0, ref}, {205, 1, 0, ref}}));  // overlapping
  CHECK(refused({200, 10}, {{203, 0, 0, ref}}));                    // empty
  CHECK(refused({200, 40}, {{203, 20, 13, ref}}));                  // more than a chunk holds
  CHECK(refused({200, 10}, {{203, 2, 0, Reference{}}}));            // no chunk
}

TEST_CASE("errors of source and sink come through") {
  const auto key = some_key();
  SeededRandom random(test::seed());
  TreeShape shape{{}, 64 * kMiB, {}};
  MemoryNodes nodes;
  const std::vector<PlacedExtent> one = {{300, 1, 0, some_chunk(random)}};
  edit_tree(shape, key, nodes, {{{300, 1}, one}});
  MemoryNodes empty;
  TreeEditor blind(shape, key, empty, [](const format::SealedObject&) { return ok_status(); });
  CHECK(blind.replace({301, 1}, {{301, 1, 0, some_chunk(random)}}).error().code ==
        ErrorCode::kNotFound);
  TreeEditor full(shape, key, nodes, [](const format::SealedObject&) -> Status {
    return make_error(ErrorCode::kNoSpace, "full");
  });
  REQUIRE(full.replace({301, 1}, {{301, 1, 0, some_chunk(random)}}).ok());
  CHECK(full.finish().error().code == ErrorCode::kNoSpace);
}

TEST_CASE("chunks cover exactly the pages that are not zero, in order") {
  SeededRandom random(test::seed());
  const auto key = some_key();
  for (const std::uint32_t mean : {4096U, 8192U, 16384U, 32768U, 65536U, 131072U}) {
    for (const auto mode : {tree::CutMode::kContent, tree::CutMode::kFixed}) {
      const tree::Cutter cutter(key, mean, mode);
      Bytes data(1 + random.below(300) * kPageBytes);
      data.resize(round_up(data.size(), kPageBytes));
      random.fill(data);
      std::set<std::uint64_t> zero;
      for (std::uint64_t page = 0; page < data.size() / kPageBytes; ++page) {
        if (random.below(6) != 0) continue;
        std::fill_n(data.begin() + static_cast<std::ptrdiff_t>(page * kPageBytes), kPageBytes,
                    std::uint8_t{0});
        zero.insert(page);
      }
      std::uint64_t at = 0;
      for (const PageRange& chunk : cutter.cut(data)) {
        CHECK(chunk.count >= 1);
        CHECK(chunk.count <= format::kMaxChunkPages);
        if (mode == tree::CutMode::kFixed) CHECK(chunk.count <= mean / kPageBytes);
        for (; at < chunk.first; ++at) CHECK(zero.contains(at));
        for (; at < chunk.end(); ++at) CHECK(!zero.contains(at));
      }
      for (; at < data.size() / kPageBytes; ++at) CHECK(zero.contains(at));
    }
  }
}

TEST_CASE("chunk lengths have the mean asked for") {
  SeededRandom random(test::seed());
  const auto key = some_key();
  Bytes data(32 * kMiB);
  random.fill(data);
  for (const std::uint32_t mean : {8192U, 16384U, 32768U}) {
    const auto chunks = tree::Cutter(key, mean).cut(data);
    const double measured = static_cast<double>(data.size()) / static_cast<double>(chunks.size());
    // 2048 chunks or more: the standard error is below 2.5 %; the maximum of 128 KiB takes up to 2
    // %.
    CHECK(measured > 0.85 * mean);
    CHECK(measured < 1.15 * mean);
  }
}

TEST_CASE("a rewritten page moves only the boundaries next to it; equal runs cut alike anywhere") {
  SeededRandom random(test::seed());
  const auto key = some_key();
  const tree::Cutter cutter(key, 16384);
  Bytes data(4 * kMiB);
  random.fill(data);
  const auto before = cutter.cut(data);
  random.fill(MutByteView(data).subspan(500 * kPageBytes, kPageBytes));
  const auto after = cutter.cut(data);
  const auto untouched = [](const std::vector<PageRange>& chunks) {
    std::set<std::pair<std::uint64_t, std::uint64_t>> out;
    for (const PageRange& c : chunks) {
      if (c.end() <= 500 - 64 || c.first > 500 + 64) out.insert({c.first, c.count});
    }
    return out;
  };
  CHECK(untouched(before) == untouched(after));

  Bytes shifted(100 * kPageBytes);
  random.fill(shifted);
  shifted.insert(shifted.end(), data.begin(), data.end());
  std::set<std::pair<std::uint64_t, std::uint64_t>> here, there;
  for (const PageRange& c : after) {
    if (c.first > 64) here.insert({c.first, c.count});
  }
  for (const PageRange& c : cutter.cut(shifted)) {
    if (c.first > 164) there.insert({c.first - 100, c.count});
  }
  CHECK(here == there);
}
