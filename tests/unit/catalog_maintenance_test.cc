// What the server does by itself, driven by hand: the scrub's way through the store and its rate,
// the rate and the turns of collections. No test waits for a clock.
#include "rdim-server/catalog/maintenance.h"

#include "common/io/memory_file.h"
#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::test;
using catalog::Maintenance;
using catalog::MaintenanceOptions;
using std::chrono::nanoseconds;

namespace {

constexpr const char* kScrubPlace = "maintenance/scrub";
constexpr std::size_t kPage = 64;  // objects

struct Upkeep : CatalogFixture {
  MaintenanceOptions options;
  std::unique_ptr<Maintenance> maintenance;
  std::vector<SealedObject> chunks;

  Upkeep() {
    options.upload_grace = std::chrono::seconds(0);
    options.gc_interval = std::chrono::seconds(0);
    options.gc_bytes_per_s = 0;
  }
  void begin() {
    maintenance = std::make_unique<Maintenance>(*catalog, objects, refs, clock, options);
  }
  void put_chunks(std::size_t count) {
    for (std::size_t n = 0; n < count; ++n) {
      chunks.push_back(chunk());
      put(chunks.back());
    }
    std::sort(chunks.begin(), chunks.end(),
              [](const auto& a, const auto& b) { return a.ref.object_key() < b.ref.object_key(); });
  }
  // Time passes as it asks for; how long it asked to wait.
  nanoseconds scrub_step() {
    const nanoseconds wait = maintenance->scrub_step();
    clock.advance(wait);
    return wait;
  }
  struct Pass {
    std::uint64_t pages = 0;
    nanoseconds time{0}, longest{0};  // between its pages
    nanoseconds pause{0};             // behind the last
  };
  Pass scrub_pass() {
    Pass pass;
    for (;;) {
      const nanoseconds wait = scrub_step();
      ++pass.pages;
      REQUIRE(pass.pages < 1000);
      if (maintenance->last_scrub().ended_unix_s != 0) {
        pass.pause = wait;
        return pass;
      }
      pass.time += wait;
      pass.longest = std::max(pass.longest, wait);
    }
  }
  // A collection that was asked for; how long it asked to wait.
  nanoseconds collect() {
    REQUIRE(maintenance->start_collection(false).ok());
    nanoseconds time{0};
    for (int n = 0; maintenance->collection_status().running; ++n) {
      REQUIRE(n < 10'000);
      const nanoseconds wait = maintenance->collection_step();
      clock.advance(wait);
      time += wait;
    }
    return time;
  }
  std::optional<contract::RefValue> row(const char* key) { return *refs.get(key); }
  void set_row(const char* key, const std::optional<contract::RefValue>& value) {
    const auto now = row(key);
    if (now) REQUIRE(refs.remove(key, now->revision).ok());
    if (value) REQUIRE(refs.put(key, value->value, 0).ok());
  }
};

std::uint64_t bytes_of(const std::vector<SealedObject>& objects) {
  std::uint64_t sum = 0;
  for (const SealedObject& object : objects) sum += object.bytes.size();
  return sum;
}
double in_seconds(nanoseconds time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

TEST_CASE("scrub_reads_everything_once_a_period_and_no_faster_than_its_rate") {
  Upkeep world;
  world.put_chunks(10 * kPage);
  const std::uint64_t bytes = bytes_of(world.chunks);
  for (const std::uint64_t rate : {std::uint64_t{100'000}, std::uint64_t{1'000'000}}) {
    world.options.scrub_bytes_per_s = rate;
    world.begin();
    for (int round = 0; round < 2; ++round) {
      const auto pass = world.scrub_pass();
      const auto report = world.maintenance->last_scrub();
      CHECK(report.progress.objects == world.chunks.size());
      CHECK(report.progress.bytes == bytes);
      CHECK(report.findings.empty());
      CHECK(pass.pages == 10);
      // All pages but the last, behind which comes the pause.
      const double wanted = static_cast<double>(bytes) * 9 / 10 / static_cast<double>(rate);
      CHECK(in_seconds(pass.time) == Approx(wanted).epsilon(0.02));
      CHECK(in_seconds(pass.longest) <= wanted / 8);
      CHECK(pass.pause == std::chrono::hours(24));
    }
  }
}

TEST_CASE("scrub_goes_on_where_it_was_after_a_stop_and_loses_a_minute_to_a_kill") {
  Upkeep world;
  world.put_chunks(10 * kPage);
  world.options.scrub_bytes_per_s = bytes_of(world.chunks) / 200;  // 20 s a page
  world.begin();
  for (int n = 0; n < 5; ++n) world.scrub_step();
  // Saved once a minute: behind the fourth page at the latest.
  const auto killed_here = world.row(kScrubPlace);
  REQUIRE(killed_here);
  world.maintenance.reset();  // stopped
  world.begin();
  auto pass = world.scrub_pass();
  CHECK(pass.pages == 5);
  CHECK(world.maintenance->last_scrub().progress.objects == 5 * kPage);
  CHECK(world.scrub_pass().pages == 10);  // the next one is whole
  world.maintenance.reset();
  world.set_row(kScrubPlace, killed_here);
  world.begin();
  pass = world.scrub_pass();
  CHECK(pass.pages >= 6);
  CHECK(pass.pages <= 8);
  CHECK(world.row(kScrubPlace)->value.empty());
}

TEST_CASE("scrub_finds_damage_planted_ahead_of_it_now_and_behind_it_in_the_next_pass") {
  Upkeep world;
  world.put_chunks(6 * kPage);
  world.options.scrub_bytes_per_s = kMiB;
  world.begin();
  for (int n = 0; n < 3; ++n) world.scrub_step();
  const SealedObject& ahead = world.chunks[5 * kPage + 7];
  const SealedObject& behind = world.chunks[kPage + 7];
  world.objects.damage(ahead.ref.object_key());
  world.objects.damage(behind.ref.object_key());
  world.scrub_pass();
  auto report = world.maintenance->last_scrub();
  REQUIRE(report.findings.size() == 1);
  CHECK(report.findings_total == 1);
  CHECK(report.findings[0].code == "damaged-object");
  CHECK(report.findings[0].severity == contract::Severity::kError);
  CHECK(report.findings[0].where.find(ahead.ref.id.hex()) != std::string::npos);
  // It counts as absent from then on, so that whoever has it puts it again.
  const auto there = world.objects.has(std::vector{ahead.ref.object_key()});
  CHECK(!there->front());
  world.put(ahead);
  // While the next pass runs, what the last one found is still told.
  world.scrub_step();
  CHECK(world.maintenance->last_scrub().findings.size() == 1);
  world.scrub_pass();
  report = world.maintenance->last_scrub();
  REQUIRE(report.findings.size() == 1);
  CHECK(report.findings[0].where.find(behind.ref.id.hex()) != std::string::npos);
  world.put(behind);
  world.scrub_pass();
  CHECK(world.maintenance->last_scrub().findings.empty());
}

TEST_CASE("collection_reads_no_faster_than_its_rate") {
  Upkeep world;
  const ImageInfo image = world.make_image("disk");
  auto lease = world.acquire(image);
  for (int n = 0; n < 40; ++n) world.commit_tree(image, lease);
  REQUIRE(world.catalog->set_retention(image.id, catalog::RetentionPolicy{true, 0, 0, 0, 0}).ok());
  std::uint64_t node_bytes = 0;
  const auto rows = world.objects.list_rows({}, 1000);
  for (const auto& row : *rows) {
    if (row.level > 0) node_bytes += row.object_bytes;
  }
  std::map<std::uint64_t, nanoseconds> took;
  for (const std::uint64_t rate : {0U, 1000U, 2000U}) {
    world.options.gc_bytes_per_s = rate;
    world.begin();
    took[rate] = world.collect();
    REQUIRE(!world.maintenance->collection_status().failed);
    CHECK(world.maintenance->collection_status().nodes_marked == 80);
  }
  CHECK(took[0] == nanoseconds(0));
  CHECK(in_seconds(took[1000]) > static_cast<double>(node_bytes) / 1000);
  CHECK(in_seconds(took[1000]) == Approx(2 * in_seconds(took[2000])).epsilon(0.001));
}

TEST_CASE("collections_come_every_interval_also_over_a_restart") {
  Upkeep world;
  world.options.gc_interval = std::chrono::hours(24);
  world.begin();
  REQUIRE(world.collect() == nanoseconds(0));
  const auto run_due = [&] {
    int steps = 0;
    while (world.maintenance->collection_step() == nanoseconds(0)) ++steps;
    return steps > 0;
  };
  CHECK(!run_due());
  CHECK(world.maintenance->collection_status().next_in_s == 24 * 3600);
  world.clock.advance(std::chrono::hours(23));
  CHECK(!run_due());
  world.clock.advance(std::chrono::hours(1));
  CHECK(run_due());
  CHECK(world.maintenance->collection_status().run == 2);
  // Not only as long as the process lives.
  world.clock.advance(std::chrono::hours(20));
  world.begin();
  world.maintenance->load();
  CHECK(!run_due());
  world.clock.advance(std::chrono::hours(4));
  CHECK(run_due());
}

TEST_CASE("collection_that_was_stopped_goes_on_and_one_that_is_asked_for_is_a_whole_one") {
  for (const bool asked : {false, true}) {
    Upkeep world;
    io::MemoryFileSystem files;
    REQUIRE(files.make_folder("/runs").ok());
    world.options.space.fs = &files;
    world.options.space.folder = "/runs";
    world.options.gc_interval = std::chrono::hours(24);
    const ImageInfo image = world.make_image("disk");
    const ImageInfo other = world.make_image("other");
    for (const ImageInfo* of : {&image, &other}) {
      const auto lease = world.acquire(*of);
      for (int n = 0; n < 40; ++n) world.commit_tree(*of, lease);
      REQUIRE(
          world.catalog->set_retention(of->id, catalog::RetentionPolicy{true, 0, 0, 0, 0}).ok());
    }
    for (int n = 0; n < 10; ++n) world.make_tree();  // of nobody
    world.clock.advance(std::chrono::hours(2));
    world.begin();
    REQUIRE(world.maintenance->start_collection(false).ok());
    while (world.maintenance->collection_status().phase != "mark") {
      world.maintenance->collection_step();
    }
    const std::uint64_t before = world.objects.info()->objects;
    world.maintenance.reset();  // stopped with the server
    CHECK(!files.list("/runs")->empty());
    REQUIRE(world.catalog->remove_image(other.id).ok());
    world.restart();
    world.clock.advance(std::chrono::hours(2));
    world.begin();
    world.maintenance->load();
    if (asked) REQUIRE(world.maintenance->start_collection(false).ok());
    bool resumed = false;
    do {
      REQUIRE(world.maintenance->collection_step() == nanoseconds(0));
      resumed = resumed || world.maintenance->collection_status().resumed == 1;
      REQUIRE(world.maintenance->collection_status().run <= 1);
    } while (world.maintenance->collection_status().running);
    const auto status = world.maintenance->collection_status();
    INFO((asked ? "asked for" : "by itself"));
    CHECK(!status.failed);
    CHECK(status.phase == "done");
    CHECK(resumed);
    CHECK(status.resumed == (asked ? 0 : 1));
    // The image that was removed since it began goes with a whole one only.
    CHECK(world.objects.info()->objects == before - (asked ? 30 + 120 : 30));
    CHECK(files.list("/runs")->empty());
  }
}
