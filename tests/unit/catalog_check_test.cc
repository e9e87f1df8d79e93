// Check, collection and retention on a small catalog: what is damaged by hand is found by name, and
// what can be mended is.
#include <filesystem>

#include "common/base/wire.h"
#include "rdim-server/catalog/check.h"
#include "rdim-server/catalog/collector.h"
#include "rdim-server/catalog/maintenance.h"
#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::test;
using catalog::Check;
using catalog::Collector;
using contract::CheckFinding;

namespace {

std::vector<CheckFinding> check(CatalogFixture& fixture, bool repair = false) {
  Check check(*fixture.catalog, fixture.objects, fixture.refs, {repair, {}});
  std::vector<CheckFinding> all;
  for (bool more = true; more;) {
    const auto stepped = check.step();
    REQUIRE(stepped.ok());
    more = *stepped;
    for (auto& finding : check.take_findings()) all.push_back(finding);
  }
  return all;
}

std::set<std::string> codes(const std::vector<CheckFinding>& findings) {
  std::set<std::string> out;
  for (const CheckFinding& finding : findings) out.insert(finding.code);
  return out;
}

Status collect(CatalogFixture& fixture, std::chrono::seconds grace = std::chrono::seconds(0)) {
  catalog::CollectorOptions options;
  options.upload_grace = grace;
  Collector collector(*fixture.catalog, fixture.objects, fixture.clock, options);
  for (;;) {
    const auto more = collector.step();
    if (!more.ok()) return more.error();
    if (!*more) return ok_status();
  }
}

bool has(CatalogFixture& fixture, const SealedObject& object) {
  const ObjectKey key = object.ref.object_key();
  return fixture.objects.has(std::span(&key, 1))->front();
}

void drop_row(CatalogFixture& fixture, const std::string& key) {
  const auto row = fixture.refs.get(key);
  REQUIRE((row.ok() && row->has_value()));
  REQUIRE(fixture.refs.remove(key, (*row)->revision).ok());
}

struct OneImage : CatalogFixture {
  ImageInfo image = make_image("disk");
  contract::LeaseGrant lease = acquire(image);
  SmallTree tree = make_tree();
  VersionId version;
  OneImage() {
    const auto answer =
        catalog->commit(order(next_record(image, tree.root.ref.object_key()), lease));
    REQUIRE(answer.ok());
    version = answer->version;
  }
};

}  // namespace

TEST_CASE("check_of_a_sound_store_finds_nothing") {
  OneImage fixture;
  CHECK(check(fixture).empty());
}

TEST_CASE("bit_flipped_in_an_object_is_found_dropped_and_healed_by_the_next_put") {
  OneImage fixture;
  fixture.objects.damage(fixture.tree.data.ref.object_key());
  CHECK(codes(check(fixture)) == std::set<std::string>{"damaged-object"});
  const auto repaired = check(fixture, true);
  CHECK(codes(repaired) == std::set<std::string>{"damaged-object", "incomplete-tree"});
  fixture.put(fixture.tree.data);
  CHECK(check(fixture).empty());
}

TEST_CASE("object_that_vanished_leaves_an_incomplete_tree_and_stops_the_collection") {
  OneImage fixture;
  REQUIRE(fixture.objects.remove(fixture.tree.leaf.ref.object_key()).ok());
  CHECK(codes(check(fixture)) == std::set<std::string>{"incomplete-tree"});
  fixture.clock.advance(std::chrono::hours(100));
  const Status collected = collect(fixture);
  CHECK(code_of(collected) == ErrorCode::kCorrupt);
  CHECK(has(fixture, fixture.tree.data));  // what only the lost leaf named is still there
}

TEST_CASE("chunk_that_vanished_is_an_incomplete_tree") {
  OneImage fixture;
  REQUIRE(fixture.objects.remove(fixture.tree.data.ref.object_key()).ok());
  CHECK(codes(check(fixture)) == std::set<std::string>{"incomplete-tree"});
}

TEST_CASE("dangling_head_is_found_and_stops_the_collection") {
  OneImage fixture;
  drop_row(fixture, catalog::version_key(fixture.version));
  CHECK(codes(check(fixture)).contains("dangling-head"));
  CHECK(code_of(collect(fixture)) == ErrorCode::kCorrupt);
  CHECK(has(fixture, fixture.tree.root));
}

TEST_CASE("version_whose_record_is_damaged_is_found") {
  OneImage fixture;
  const auto row = fixture.refs.get(catalog::version_key(fixture.version));
  Bytes bytes = (*row)->value;
  bytes[100] ^= 1;
  REQUIRE(fixture.refs.put(catalog::version_key(fixture.version), bytes, (*row)->revision).ok());
  CHECK(codes(check(fixture)).contains("damaged-version"));
}

TEST_CASE("records_that_lead_nowhere_are_found_and_removed") {
  OneImage fixture;
  REQUIRE(fixture.refs.put("name/ghost", fixture.random.id<ImageId>().view(), 0).ok());
  REQUIRE(
      fixture.refs.put(catalog::gone_key(fixture.random.id<VersionId>()), as_bytes("x"), 0).ok());
  drop_row(fixture, "name/disk");
  auto orphan = fixture.next_record(fixture.image, {});
  orphan.sequence = 77;
  const Bytes bytes = format::encode_version(orphan, fixture.signer);
  REQUIRE(fixture.refs.put(catalog::version_key(format::version_id(bytes)), bytes, 0).ok());
  const std::set<std::string> all{"stray-name", "stray-record", "wrong-name", "unlinked-version"};
  CHECK(codes(check(fixture)) == all);
  for (const CheckFinding& finding : check(fixture, true)) CHECK(finding.repaired);
  CHECK(check(fixture).empty());
}

TEST_CASE("removed_image_gives_its_objects_back_and_its_branch_keeps_them") {
  OneImage fixture;
  auto wanted = fixture.wanted("branch");
  wanted.origin = fixture.version;
  const auto branch = fixture.catalog->create_image(wanted);
  REQUIRE(branch.ok());
  REQUIRE(fixture.catalog->release_lease(fixture.image.id, fixture.lease).ok());
  REQUIRE(fixture.catalog->remove_image(fixture.image.id).ok());
  fixture.clock.advance(std::chrono::hours(100));
  REQUIRE(collect(fixture).ok());
  CHECK(has(fixture, fixture.tree.data));
  REQUIRE(fixture.catalog->remove_image(branch->id).ok());
  REQUIRE(collect(fixture).ok());
  CHECK(fixture.objects.info()->objects == 0);
  CHECK(fixture.refs.list("version/", "", 10)->empty());
}

TEST_CASE("upload_within_the_grace_keeps_what_its_nodes_name") {
  OneImage fixture;
  const auto tree = fixture.make_tree();  // of nobody
  fixture.clock.advance(std::chrono::hours(100));
  const ObjectKey leaf = tree.leaf.ref.object_key();
  REQUIRE(fixture.objects.touch_present(std::span(&leaf, 1)).ok());
  fixture.clock.advance(std::chrono::hours(2));
  REQUIRE(collect(fixture, std::chrono::hours(24)).ok());
  CHECK(!has(fixture, tree.root));
  CHECK(has(fixture, tree.leaf));
  CHECK(has(fixture, tree.data));
  fixture.clock.advance(std::chrono::hours(200));
  REQUIRE(collect(fixture, std::chrono::hours(24)).ok());
  CHECK(!has(fixture, tree.data));
}

TEST_CASE("retention_lets_old_versions_go_and_never_the_head_or_the_base_of_a_session") {
  OneImage fixture;
  contract::SessionRequest request;
  request.image = fixture.image.id;
  request.session.bytes[0] = 3;
  request.mode = "shared";
  REQUIRE(fixture.catalog->open_session(request).ok());  // stands on the first version
  std::vector<VersionId> later;
  for (int n = 0; n < 4; ++n) later.push_back(fixture.commit_tree(fixture.image, fixture.lease));
  REQUIRE(
      fixture.catalog->set_retention(fixture.image.id, catalog::RetentionPolicy{false, 2, 0, 0, 0})
          .ok());
  fixture.clock.advance(std::chrono::hours(100));
  REQUIRE(collect(fixture).ok());
  CHECK(!*fixture.catalog->is_gone(fixture.version));
  CHECK(has(fixture, fixture.tree.data));
  CHECK(*fixture.catalog->is_gone(later[0]));
  CHECK(*fixture.catalog->is_gone(later[1]));
  CHECK(!*fixture.catalog->is_gone(later[2]));
  CHECK(!*fixture.catalog->is_gone(later[3]));
  // The record of what went is still known; nobody can stand on it any more.
  CHECK(fixture.catalog->get_version(fixture.image.id, later[0], 0).ok());
  request.session.bytes[0] = 4;
  request.base = later[0];
  CHECK(code_of(fixture.catalog->open_session(request)) == ErrorCode::kNotFound);
  CHECK(check(fixture).empty());
}

TEST_CASE("base_of_a_machine_with_unsent_writes_stays_until_an_administrator_forgets_it") {
  OneImage fixture;
  contract::SessionRequest request;
  request.image = fixture.image.id;
  request.session.bytes[0] = 1;
  request.machine.bytes[0] = 1;
  request.machine_name = "pc1";
  request.mode = "personal";
  request.journal.bytes[0] = 7;
  request.base = fixture.version;
  REQUIRE(fixture.catalog->open_session(request).ok());
  fixture.clock.advance(std::chrono::hours(1));  // it went away with its lease
  const auto other = fixture.acquire(fixture.image, 2);
  REQUIRE(fixture.catalog->get_image(fixture.image.id)->unsent.size() == 1);
  for (int n = 0; n < 2; ++n) fixture.commit_tree(fixture.image, other);
  REQUIRE(
      fixture.catalog->set_retention(fixture.image.id, catalog::RetentionPolicy{false, 1, 0, 0, 0})
          .ok());
  fixture.clock.advance(std::chrono::hours(100));
  REQUIRE(collect(fixture).ok());
  CHECK(!*fixture.catalog->is_gone(fixture.version));
  CHECK(has(fixture, fixture.tree.data));
  // It comes back for a moment, sends nothing, and is gone again.
  request.session.bytes[0] = 11;
  request.unsent_bytes = 512;
  REQUIRE(fixture.catalog->open_session(request).ok());
  REQUIRE(collect(fixture).ok());
  CHECK(!*fixture.catalog->is_gone(fixture.version));
  REQUIRE(fixture.catalog->forget_unsent(fixture.image.id, request.machine).ok());
  fixture.clock.advance(std::chrono::hours(100));
  REQUIRE(collect(fixture).ok());
  CHECK(*fixture.catalog->is_gone(fixture.version));
  CHECK(!has(fixture, fixture.tree.data));
  CHECK(code_of(fixture.catalog->open_session(request)) == ErrorCode::kNotFound);
  CHECK(check(fixture).empty());
}

TEST_CASE("retention_keeps_the_first_of_every_hour_day_and_week") {
  using catalog::RetentionChooser;
  constexpr std::uint64_t kHour = 3'600'000'000'000;
  RetentionChooser chooser({false, 1, 2, 2, 0});
  const std::uint64_t noon = (24 * 1000 + 12) * kHour;
  CHECK(chooser.keep(noon + 2));            // last, hour, day
  CHECK(!chooser.keep(noon + 1));           // the same hour
  CHECK(chooser.keep(noon - kHour));        // the second hour
  CHECK(!chooser.keep(noon - 2 * kHour));   // no hour is left, the same day
  CHECK(chooser.keep(noon - 20 * kHour));   // the second day
  CHECK(!chooser.keep(noon - 50 * kHour));  // no day is left
  CHECK(!chooser.keep(noon));               // a clock that ran backwards makes nothing new
}

TEST_CASE("retention_texts_are_read_and_written") {
  using catalog::parse_retention;
  CHECK(catalog::text_of(*parse_retention("all")) == "all");
  CHECK(catalog::text_of(*parse_retention("last=3")) == "last=3,hourly=0,daily=0,weekly=0");
  CHECK(*parse_retention("weekly=8,last=10,hourly=24,daily=14") == catalog::RetentionPolicy{});
  for (const char* bad : {"", "last", "last=", "last=x", "last=1,", "yearly=1", "last=-1"}) {
    CHECK(!parse_retention(bad).ok());
  }
  const auto back = catalog::decode_retention(catalog::encode_retention({}));
  CHECK((back.ok() && *back == catalog::RetentionPolicy{}));
}

TEST_CASE("garbage_of_a_clock_that_was_years_ahead_goes_after_its_grace") {
  OneImage fixture;
  constexpr auto kAhead = std::chrono::hours(24 * 1000);
  fixture.clock.advance(kAhead);
  const auto tree = fixture.make_tree();  // of nobody
  fixture.clock.advance(-kAhead);
  REQUIRE(collect(fixture, std::chrono::hours(24)).ok());  // from now on it counts as young
  CHECK(has(fixture, tree.root));
  fixture.clock.advance(std::chrono::hours(30));
  REQUIRE(collect(fixture, std::chrono::hours(24)).ok());
  CHECK(!has(fixture, tree.root));
  CHECK(!has(fixture, tree.data));
  CHECK(has(fixture, fixture.tree.data));
}

TEST_CASE("check_that_nobody_reads_ends_and_lets_a_collection_begin") {
  OneImage fixture;
  catalog::Maintenance maintenance(*fixture.catalog, fixture.objects, fixture.refs, fixture.clock,
                                   {});
  auto check = maintenance.begin_check(false);
  REQUIRE(check.ok());
  REQUIRE((*check)->step().ok());
  fixture.clock.advance(std::chrono::minutes(9));
  CHECK(code_of(maintenance.begin_check(false)) == ErrorCode::kUnavailable);
  REQUIRE((*check)->step().ok());  // still read
  fixture.clock.advance(std::chrono::minutes(9));
  CHECK(code_of(maintenance.start_collection(false)) == ErrorCode::kUnavailable);
  fixture.clock.advance(std::chrono::minutes(1));
  auto second = maintenance.begin_check(false);
  REQUIRE(second.ok());
  const auto ended = (*check)->step();
  CHECK(code_of(ended) == ErrorCode::kCancelled);
  check->reset();  // takes nothing from the other
  CHECK(code_of(maintenance.start_collection(false)) == ErrorCode::kUnavailable);
  while (*(*second)->step()) {
  }
  second->reset();
  CHECK(maintenance.start_collection(false).ok());
}

TEST_CASE("collection_that_was_cut_short_leaves_a_minute_for_a_check") {
  OneImage fixture;
  Bytes row;
  Writer w(row);
  w.u8(1);
  w.u64(7);
  REQUIRE(fixture.refs.put("maintenance/collection", row, 0).ok());
  catalog::MaintenanceOptions options;
  options.scrub_bytes_per_s = 0;
  catalog::Maintenance maintenance(*fixture.catalog, fixture.objects, fixture.refs, fixture.clock,
                                   options);
  maintenance.start();
  CHECK(maintenance.collection_status().next_in_s == 60);
  CHECK(maintenance.begin_check(true).ok());
  maintenance.stop();
}

TEST_CASE("a_large_set_of_keys_has_few_run_files_at_a_time") {
  SeededRandom random(seed());
  catalog::RunSpace space;
  io::FileSystem& fs = io::posix_file_system();
  space.fs = &fs;
  space.folder = "/tmp/dims-runs-" + std::to_string(random.next());
  space.keys_in_memory_max = 8;
  REQUIRE(fs.make_folder(space.folder).ok());
  std::map<ObjectKey, std::uint8_t> model;
  std::size_t most = 0;
  {
    catalog::KeyRuns runs(space, "keys");
    for (int n = 0; n < 8 * 1200; ++n) {
      ObjectKey key;
      key.id.bytes[0] = static_cast<std::uint8_t>(random.below(64));
      key.id.bytes[1] = static_cast<std::uint8_t>(random.below(256));
      const auto flags = static_cast<std::uint8_t>(1 << random.below(3));
      model[key] = static_cast<std::uint8_t>(model[key] | flags);
      REQUIRE(runs.add(key, flags).ok());
      if (n % 64 == 0) most = std::max(most, fs.list(space.folder)->size());
    }
    CHECK(most <= 64);
    catalog::KeyCursor cursor({&runs});
    for (const auto& [key, flags] : model) {
      const auto entry = cursor.next();
      REQUIRE((entry.ok() && entry->has_value()));
      CHECK((*entry)->key == key);
      CHECK((*entry)->flags == flags);
    }
    CHECK(!cursor.next()->has_value());
  }
  CHECK(fs.list(space.folder)->empty());
  CHECK(std::filesystem::remove(space.folder));
}

TEST_CASE("sorted_runs_of_a_collection_go_to_files_and_come_back_in_order") {
  SeededRandom random(seed());
  catalog::RunSpace space;
  io::FileSystem& fs = io::posix_file_system();
  space.fs = &fs;
  space.folder = "/tmp/dims-runs-" + std::to_string(random.next());
  space.keys_in_memory_max = 64;
  REQUIRE(fs.make_folder(space.folder).ok());
  std::set<ObjectKey> model;
  {
    catalog::KeyRuns runs(space, "keys");
    for (int n = 0; n < 3000; ++n) {
      ObjectKey key;
      key.id.bytes[0] = static_cast<std::uint8_t>(random.below(8));
      key.id.bytes[1] = static_cast<std::uint8_t>(random.below(256));
      model.insert(key);
      REQUIRE(runs.add(key, 1).ok());
    }
    CHECK(!fs.list(space.folder)->empty());
    catalog::KeyCursor cursor({&runs});
    for (const ObjectKey& key : model) {
      const auto entry = cursor.next();
      REQUIRE((entry.ok() && entry->has_value()));
      CHECK((*entry)->key == key);
    }
    CHECK(!cursor.next()->has_value());
  }
  CHECK(fs.list(space.folder)->empty());
}
