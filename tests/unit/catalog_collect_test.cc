// Collections among calls that come at one chosen step of theirs; every choice of steps is tried.
#include "rdim-server/catalog/collector.h"
#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

struct Collecting : CatalogFixture {
  static constexpr std::size_t kStepsMax = 1000;

  ImageInfo make(const std::string& name, std::uint8_t first_byte, const VersionId& origin = {}) {
    ImageInfo image = wanted(name);
    image.id.bytes[0] = first_byte;  // images are walked in the order of their ids
    image.origin = origin;
    const auto made = catalog->create_image(image);
    REQUIRE(made.ok());
    return *made;
  }

  // One collection; `between(n)` runs before its step n. The number of steps.
  std::size_t collect(const std::function<void(std::size_t)>& between = [](std::size_t) {}) {
    clock.advance(std::chrono::hours(2));  // nothing is a young upload any more
    catalog::CollectorOptions options;
    options.upload_grace = std::chrono::seconds(0);
    options.rows_a_step = 1;
    options.nodes_a_step = 1;
    catalog::Collector collector(*catalog, objects, clock, options);
    for (std::size_t n = 0; n < kStepsMax; ++n) {
      between(n);
      const auto more = collector.step();
      INFO((more.ok() ? "" : more.error().to_string()));
      REQUIRE(more.ok());
      if (!*more) return n + 1;
    }
    FAIL("a collection without an end");
    return 0;
  }

  bool there(const ObjectKey& key) {
    Result<Bytes> object = make_error(ErrorCode::kInternal, "no answer");
    objects.get(std::span(&key, 1), [&](std::size_t, Result<Bytes> got) {
      object = std::move(got);
      return true;
    });
    if (!object.ok()) return false;
    const auto head = format::parse_head(*object);
    REQUIRE(head.ok());
    for (const ObjectKey& child : head->children) {
      if (!there(child)) return false;
    }
    return true;
  }

  // The rule of the version gate.
  void check_versions() {
    const auto rows = refs.list(catalog::kVersionPrefix, "", 1000);
    REQUIRE(rows.ok());
    for (const auto& [key, value] : *rows) {
      const auto gone = catalog->is_gone(format::version_id(value.value));
      REQUIRE(gone.ok());
      INFO(key);
      if (!*gone) REQUIRE(there(format::decode_version(value.value, false)->root));
    }
  }
};

}  // namespace

TEST_CASE("version_of_an_image_that_is_removed_before_its_turn_keeps_its_data_or_is_let_go") {
  std::size_t steps = 1;
  for (std::size_t at = 0; at < steps; ++at) {
    Collecting world;
    const ImageInfo image = world.make("master", 2);
    const auto lease = world.acquire(image);
    const VersionId first = world.commit_tree(image, lease);
    const VersionId second = world.commit_tree(image, lease);
    // Walked first: while the master lives it leaves the first version to the master.
    world.make("branch", 1, second);
    INFO("removed before step " << at);
    steps = world.collect([&](std::size_t n) {
      if (n != at) return;
      REQUIRE(world.catalog->release_lease(image.id, lease).ok());
      REQUIRE(world.catalog->remove_image(image.id).ok());
    });
    world.check_versions();
    // Who asks for it now gets all of it or is told that it is gone.
    ImageInfo late = world.wanted("late");
    late.origin = first;
    const auto made = world.catalog->create_image(late);
    if (!made.ok()) REQUIRE(made.error().code == ErrorCode::kNotFound);
    world.collect();
    world.check_versions();
  }
  REQUIRE(steps > 10);
}

TEST_CASE("version_let_go_that_somebody_names_while_its_image_is_removed_stops_no_collection") {
  std::size_t steps = 1;
  for (std::size_t named = 0; named < steps; ++named) {
    for (std::size_t removed = named; removed < steps; ++removed) {
      Collecting world;
      const ImageInfo image = world.make("master", 2);
      const auto lease = world.acquire(image);
      const VersionId first = world.commit_tree(image, lease);
      world.commit_tree(image, lease);
      REQUIRE(
          world.catalog->set_retention(image.id, catalog::RetentionPolicy{false, 1, 0, 0, 0}).ok());
      world.collect();
      REQUIRE(*world.catalog->is_gone(first));
      INFO("named before step " << named << ", removed before step " << removed);
      const std::size_t took = world.collect([&](std::size_t n) {
        if (n == named) {
          ImageInfo branch = world.wanted("branch");
          branch.origin = first;
          REQUIRE(code_of(world.catalog->create_image(branch)) == ErrorCode::kNotFound);
        }
        if (n == removed) {
          REQUIRE(world.catalog->release_lease(image.id, lease).ok());
          REQUIRE(world.catalog->remove_image(image.id).ok());
        }
      });
      steps = std::max(steps, took);
      world.check_versions();
    }
  }
  REQUIRE(steps > 10);
}
