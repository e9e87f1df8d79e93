// Collections among calls that come at one chosen step of theirs; every choice of steps is tried.
#include "common/io/memory_file.h"
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

namespace {

// Two images with some versions, trees of nobody, and a collection that saves after each step.
struct Lasting : Collecting {
  io::MemoryFileSystem files;
  ImageInfo master, other;
  contract::LeaseGrant lease, other_lease;
  std::vector<SmallTree> strays;
  std::unique_ptr<catalog::Collector> collector;

  Lasting() {
    REQUIRE(files.make_folder("/runs").ok());
    master = make("master", 1);
    lease = acquire(master, 1);
    for (int n = 0; n < 3; ++n) commit_tree(master, lease);
    other = make("other", 2);
    other_lease = acquire(other, 2);
    commit_tree(other, other_lease);
    for (int n = 0; n < 3; ++n) strays.push_back(make_tree());
    clock.advance(std::chrono::hours(2));
  }
  void begin(std::chrono::seconds grace = std::chrono::seconds(0)) {
    catalog::CollectorOptions options;
    options.upload_grace = grace;
    options.rows_a_step = 1;
    options.nodes_a_step = 1;
    options.space.fs = &files;
    options.space.folder = "/runs";
    options.space.keys_in_memory_max = 4;
    options.space.files_max = 3;
    options.save_every = std::chrono::seconds(0);
    collector = std::make_unique<catalog::Collector>(*catalog, objects, clock, options);
  }
  void kill() {
    collector.reset();
    restart();
  }
  // At most so many steps; how many there were.
  std::size_t run(std::size_t steps = kStepsMax) {
    for (std::size_t n = 0; n < steps; ++n) {
      const auto more = collector->step();
      INFO((more.ok() ? "" : more.error().to_string()));
      REQUIRE(more.ok());
      if (!*more) return n + 1;
    }
    REQUIRE(steps != kStepsMax);
    return steps;
  }
  std::uint64_t objects_left() { return objects.info()->objects; }
  bool nothing_left_over() {
    return files.list("/runs")->empty() && !refs.get(catalog::kCollectStateKey)->has_value();
  }
};

}  // namespace

TEST_CASE("collection_killed_at_any_step_goes_on_and_reads_no_node_twice") {
  Lasting calm;
  calm.begin();
  calm.objects.reads = 0;
  const std::size_t steps = calm.run();
  const std::uint64_t reads = calm.objects.reads, left = calm.objects_left();
  const std::uint64_t marked = calm.collector->figures().nodes_marked;
  REQUIRE(marked == 8);
  REQUIRE(left == 12);
  REQUIRE(calm.nothing_left_over());
  std::size_t resumed = 0;
  for (std::size_t at = 1; at < steps; ++at) {
    Lasting world;
    world.begin();
    world.objects.reads = 0;
    world.run(at);
    const auto phase = world.collector->phase();
    world.kill();
    world.begin();
    world.run();
    const std::uint64_t reads_now = world.objects.reads;
    INFO("killed after step " << at << ", in phase " << catalog::name_of(phase));
    CHECK(world.objects_left() == left);
    CHECK(world.collector->figures().nodes_marked == marked);
    CHECK(world.nothing_left_over());
    world.check_versions();
    if (phase == catalog::CollectorPhase::kRoots) {
      CHECK(world.collector->figures().resumed == 0);
      continue;
    }
    ++resumed;
    CHECK(world.collector->figures().resumed == 1);
    CHECK(world.collector->figures().removed == 9);
    CHECK(reads_now == reads);
  }
  CHECK(resumed > steps / 2);
}

TEST_CASE("collection_killed_over_and_over_comes_to_its_end") {
  Lasting world;
  std::size_t lives = 0;
  // The roots are walked by whoever begins; from then on two steps a life are enough.
  world.begin();
  while (world.collector->phase() == catalog::CollectorPhase::kRoots) world.run(1);
  for (; world.collector->phase() != catalog::CollectorPhase::kDone; ++lives) {
    REQUIRE(lives < 200);
    world.kill();
    world.begin();
    for (int n = 0; n < 3 && world.collector->phase() != catalog::CollectorPhase::kDone; ++n) {
      REQUIRE(world.collector->step().ok());
    }
  }
  CHECK(lives > 20);
  CHECK(world.objects_left() == 12);
  world.check_versions();
}

TEST_CASE("commits_uploads_and_removals_between_a_kill_and_the_rest_lose_nothing") {
  Lasting calm;
  calm.begin();
  const std::size_t steps = calm.run();
  for (std::size_t at = 0; at < steps; ++at) {
    for (const bool late : {false, true}) {
      Lasting world;
      world.begin();
      if (at != 0) world.run(at);
      const auto calls = [&] {
        // What was garbage when it was found is somebody's now, by an answer or by an upload.
        const auto& stray = world.strays[0];
        for (const SealedObject* object : {&stray.data, &stray.leaf, &stray.root}) {
          const ObjectKey key = object->ref.object_key();
          if (!world.objects.touch_present(std::span(&key, 1))->front()) world.put(*object);
        }
        world.lease = world.acquire(world.master, 1);
        auto record = world.next_record(world.master, stray.root.ref.object_key());
        const auto answer = world.catalog->commit(world.order(record, world.lease));
        REQUIRE(answer.ok());
        REQUIRE(answer->missing.empty());
        // A node that stays keeps what it names, also if only the node was asked for.
        const ObjectKey leaf = world.strays[1].leaf.ref.object_key();
        const bool promised = world.objects.touch_present(std::span(&leaf, 1))->front();
        REQUIRE(world.catalog->release_lease(world.other.id, world.other_lease).ok());
        REQUIRE(world.catalog->remove_image(world.other.id).ok());
        return promised ? leaf : ObjectKey{};
      };
      INFO("killed after step " << at << (late ? ", calls after the first step of the rest" : ""));
      ObjectKey promised;
      if (!late) promised = calls();
      world.kill();
      world.begin();
      if (late) {
        world.run(1);
        promised = calls();
      }
      world.run();
      world.check_versions();
      CHECK(world.there(world.strays[0].root.ref.object_key()));
      if (!promised.id.is_zero()) CHECK(world.there(promised));
      // Whatever this one had to spare goes with the next.
      world.clock.advance(std::chrono::hours(2));
      for (int n = 0; n < 2; ++n) {
        world.begin();
        world.run();
      }
      CHECK(world.objects_left() == 12);
      world.check_versions();
    }
  }
  CHECK(steps > 40);
}

TEST_CASE("run_file_that_was_damaged_or_is_gone_makes_the_collection_begin_anew") {
  for (const bool gone : {false, true}) {
    Lasting calm;
    calm.begin();
    while (calm.collector->phase() != catalog::CollectorPhase::kFind) calm.run(1);
    const std::size_t files = calm.files.list("/runs")->size();
    REQUIRE(files > 2);
    for (std::size_t n = 0; n < files; ++n) {
      Lasting world;
      world.begin();
      while (world.collector->phase() != catalog::CollectorPhase::kFind) world.run(1);
      world.kill();
      const std::string path = "/runs/" + world.files.list("/runs")->at(n);
      INFO((gone ? "gone: " : "damaged: ") << path);
      if (gone) {
        REQUIRE(world.files.remove(path).ok());
      } else {
        const auto file = world.files.open(path, io::OpenMode::kReadWrite);
        Bytes byte(1);
        const std::uint64_t place = world.random.below(*(*file)->size());
        REQUIRE((*file)->read_at(place, byte).ok());
        byte[0] ^= 1;
        REQUIRE((*file)->write_at(place, byte).ok());
      }
      world.begin();
      Result<bool> more = true;
      while (more.ok() && *more) more = world.collector->step();
      CHECK(more.ok() == gone);
      CHECK(world.collector->figures().resumed == (gone ? 0 : 1));
      CHECK(world.nothing_left_over());
      world.check_versions();
      world.begin();
      world.run();
      CHECK(world.collector->figures().resumed == 0);
      CHECK(world.objects_left() == 12);
      world.check_versions();
    }
  }
}

TEST_CASE("collection_that_cannot_save_how_far_it_is_ends_all_the_same") {
  Lasting world;
  io::MemoryFileSystem full(50);  // bytes: it is what gives space back
  REQUIRE(full.make_folder("/runs").ok());
  catalog::CollectorOptions options;
  options.upload_grace = std::chrono::seconds(0);
  options.rows_a_step = 1;
  options.nodes_a_step = 1;
  options.space.fs = &full;
  options.space.folder = "/runs";
  options.save_every = std::chrono::seconds(0);
  world.collector =
      std::make_unique<catalog::Collector>(*world.catalog, world.objects, world.clock, options);
  while (world.collector->phase() != catalog::CollectorPhase::kMark) world.run(1);
  CHECK(code_of(world.collector->save()) == ErrorCode::kNoSpace);
  CHECK(full.list("/runs")->empty());
  world.run();
  CHECK(world.collector->figures().removed == 9);
  CHECK(world.objects_left() == 12);
  world.check_versions();
}

TEST_CASE("another_grace_begins_the_collection_anew_and_a_dry_run_leaves_it_alone") {
  Lasting world;
  world.begin();
  while (world.collector->phase() != catalog::CollectorPhase::kSweep) world.run(1);
  world.kill();
  catalog::CollectorOptions dry;
  dry.dry_run = true;
  dry.upload_grace = std::chrono::seconds(0);
  dry.space.fs = &world.files;
  dry.space.folder = "/runs";
  dry.space.keys_in_memory_max = 1;
  world.collector =
      std::make_unique<catalog::Collector>(*world.catalog, world.objects, world.clock, dry);
  world.run();
  CHECK(world.collector->figures().resumed == 0);
  CHECK(world.collector->figures().garbage == 9);
  world.kill();
  world.begin();
  world.run(1);
  CHECK(world.collector->figures().resumed == 1);
  world.kill();
  world.begin(std::chrono::hours(24));
  world.run();
  CHECK(world.collector->figures().resumed == 0);
  CHECK(world.collector->figures().garbage == 0);  // all of it is younger than a day
  CHECK(world.nothing_left_over());
}

TEST_CASE("runs_are_read_from_any_key_on_and_few_files_hold_them") {
  SeededRandom random(seed());
  io::MemoryFileSystem files;
  REQUIRE(files.make_folder("/runs").ok());
  catalog::RunSpace space{&files, "/runs", 64, random.id<catalog::RunOwner>(), 4};
  std::map<ObjectKey, std::uint8_t> model;
  std::vector<catalog::RunFile> saved;
  {
    catalog::KeyRuns runs(space, "keys");
    for (int n = 0; n < 6000; ++n) {
      ObjectKey key;
      key.id.bytes[0] = static_cast<std::uint8_t>(random.below(20));
      key.id.bytes[1] = static_cast<std::uint8_t>(random.below(256));
      const auto flag = static_cast<std::uint8_t>(1U << random.below(3));
      model[key] |= flag;
      REQUIRE(runs.add(key, flag).ok());
      REQUIRE(runs.files().size() <= 5);
    }
    REQUIRE(runs.save().ok());
    saved = runs.files();
  }
  // Those that were merged go when a save that does not name them was noted.
  catalog::KeyRuns runs(space, "keys");
  REQUIRE(runs.restore(saved).ok());
  const auto paths = runs.paths();
  REQUIRE(catalog::tidy_runs(space, &paths).ok());
  REQUIRE(catalog::tidy_runs(space).ok());
  CHECK(files.list("/runs")->size() == saved.size());
  for (int n = 0; n < 50; ++n) {
    std::optional<ObjectKey> after;
    if (n != 0) {
      after.emplace();
      after->id.bytes[0] = static_cast<std::uint8_t>(random.below(21));
      after->id.bytes[1] = static_cast<std::uint8_t>(random.below(256));
      after->id.bytes[2] = static_cast<std::uint8_t>(random.below(2));
    }
    catalog::KeyCursor cursor({&runs}, after);
    for (auto it = after ? model.upper_bound(*after) : model.begin(); it != model.end(); ++it) {
      const auto entry = cursor.next();
      REQUIRE((entry.ok() && entry->has_value()));
      REQUIRE((*entry)->key == it->first);
      REQUIRE((*entry)->flags == it->second);
    }
    REQUIRE(!cursor.next()->has_value());
  }
  // Another set's file, or another number's, is none of it.
  catalog::RunSpace foreign = space;
  foreign.owner = random.id<catalog::RunOwner>();
  catalog::KeyRuns mistaken(foreign, "keys");
  REQUIRE(mistaken.restore(saved).ok());
  CHECK(code_of(catalog::KeyCursor({&mistaken}).next()) == ErrorCode::kCorrupt);
}
