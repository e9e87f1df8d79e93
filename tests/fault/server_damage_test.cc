// `rdim check` and what it mends: every kind of damage to a server's store, planted by name, is
// found by its code and by no other; repair does what it says and takes nothing that is whole.
#include <spdlog/spdlog.h>

#include <map>
#include <set>
#include <catch2/catch.hpp>

#include "rdim-server/catalog/check.h"
#include "rdim-server/catalog/collector.h"
#include "tests/contract/temp_folder.h"
#include "tests/support/seed.h"
#include "tests/support/store_corruptors.h"

using namespace dims;
using namespace dims::test;
using format::ObjectKey;
using format::SealedObject;

namespace {

using Codes = std::set<std::string>;

// An image with four versions of its own trees; a branch of the second with a commit; a session on
// the third; an upload of nobody.
struct DamageWorld {
  struct Tree {
    SealedObject chunk, leaf, root;
  };
  TempFolder folder;
  ManualClock clock;
  SeededRandom random{seed()};
  std::unique_ptr<stores::Store> store;
  std::unique_ptr<catalog::Catalog> catalog;
  contract::ImageInfo disk, branch;
  SessionId session;
  std::map<VersionId, Tree> versions;
  std::vector<VersionId> of_disk;
  VersionId of_branch;
  Tree stray;
  crypto::SigningKey signer = crypto::signing_key_from_seed(Secret32{});

  DamageWorld() {
    clock.advance(std::chrono::hours(1000));
    open();
    disk = make_image("disk", {});
    for (int n = 0; n < 4; ++n) of_disk.push_back(commit(disk));
    branch = make_image("branch", of_disk[1]);
    of_branch = commit(branch);
    contract::SessionRequest request;
    request.image = disk.id;
    request.session = session = random.id<SessionId>();
    request.mode = "shared";
    request.base = of_disk[2];
    REQUIRE(catalog->open_session(request).ok());
    stray = put_tree();
  }
  ~DamageWorld() { close(); }

  std::string path() const { return folder.path + "/store"; }
  Status try_open() {
    stores::StoreOptions options;
    options.folder = path();
    options.write_buffer_bytes = kMiB;
    DIMS_ASSIGN(store, stores::Store::open(options, clock, random));
    catalog::CatalogOptions wanted;
    wanted.retention.all = true;
    DIMS_ASSIGN(catalog, catalog::Catalog::open(store->objects(), store->refs(),
                                                store->generation(), clock, random, wanted));
    return ok_status();
  }
  void open() { REQUIRE(try_open().ok()); }
  void close() {
    catalog.reset();
    store.reset();
  }

  contract::ImageInfo make_image(const std::string& name, const VersionId& origin) {
    contract::ImageInfo image;
    image.id = random.id<ImageId>();
    image.name = name;
    image.image_bytes = 64 * kMiB;
    image.domain.bytes[0] = 9;
    image.origin = origin;
    auto made = catalog->create_image(image);
    REQUIRE(made.ok());
    return *made;
  }
  void put(const SealedObject& object) {
    const contract::ObjectStore::PutItem item{object.ref.object_key(), object.bytes};
    REQUIRE(store->objects().put(std::span(&item, 1)).ok());
  }
  Tree put_tree() {
    DomainId domain;
    domain.bytes[0] = 9;
    const format::DomainKey key(domain, 1, Secret32{});
    Bytes page(kPageBytes), data(16);
    random.fill(page);
    Tree tree;
    tree.chunk = format::seal_chunk(key, page);
    tree.leaf =
        format::seal_node(key, format::ObjectKind::kLeaf, 1, {tree.chunk.ref.object_key()}, data);
    tree.root =
        format::seal_node(key, format::ObjectKind::kInner, 2, {tree.leaf.ref.object_key()}, data);
    for (const SealedObject* object : {&tree.chunk, &tree.leaf, &tree.root}) put(*object);
    return tree;
  }
  format::VersionRecord record_of(const contract::ImageInfo& image, const ObjectKey& root) {
    const auto now = catalog->get_image(image.id);
    REQUIRE(now.ok());
    format::VersionRecord record;
    record.parent = now->head;
    record.image = image.id;
    record.root = root;
    record.image_bytes = image.image_bytes;
    record.tree = image.tree;
    record.sequence = now->head_sequence + 1;
    record.commit = {random.id<JournalId>(), 1, random.id<Digest>()};
    return record;
  }
  VersionId commit(const contract::ImageInfo& image) {
    contract::LeaseRequest request;
    request.image = image.id;
    request.session.bytes[0] = 1;
    const auto lease = catalog->acquire_lease(request);
    REQUIRE(lease.ok());
    const Tree tree = put_tree();
    const auto record = record_of(image, tree.root.ref.object_key());
    contract::CommitOrder order{image.id, lease->lease, lease->token, record.parent,
                                format::encode_version(record, signer)};
    const auto answer = catalog->commit(order);
    REQUIRE((answer.ok() && answer->missing.empty()));
    versions[answer->version] = tree;
    return answer->version;
  }
  void put_again(const VersionId& version) {
    const Tree& tree = versions.at(version);
    for (const SealedObject* object : {&tree.chunk, &tree.leaf, &tree.root}) put(*object);
  }

  std::vector<contract::CheckFinding> check(bool repair = false) {
    catalog::Check check(*catalog, store->objects(), store->refs(), {repair, {}, 3, kMiB});
    std::vector<contract::CheckFinding> all;
    for (bool more = true; more;) {
      const auto stepped = check.step();
      INFO((stepped.ok() ? "" : stepped.error().to_string()));
      REQUIRE(stepped.ok());
      more = *stepped;
      for (auto& finding : check.take_findings()) all.push_back(finding);
    }
    return all;
  }
  Codes codes(bool repair = false) {
    Codes out;
    for (const auto& finding : check(repair)) out.insert(finding.code);
    return out;
  }
  // A look that changes nothing: a damaged object that is read counts as absent from then on.
  std::set<VersionId> whole() {
    std::set<VersionId> out;
    for (const auto& [id, tree] : versions) {
      bool there = store->refs().get(catalog::version_key(id))->has_value();
      for (const SealedObject* object : {&tree.chunk, &tree.leaf, &tree.root}) {
        const ObjectKey key = object->ref.object_key();
        store->objects().get(std::span(&key, 1), [&](std::size_t, Result<Bytes> got) {
          there = there && got.ok() && *got == object->bytes;
          return true;
        });
      }
      if (there) out.insert(id);
    }
    return out;
  }
  Status collect() {
    clock.advance(std::chrono::hours(24 * 30));
    catalog::CollectorOptions options;
    catalog::Collector collector(*catalog, store->objects(), clock, options);
    for (;;) {
      DIMS_ASSIGN(const bool more, collector.step());
      if (!more) return ok_status();
    }
  }
};

struct Damage {
  const char* name;
  std::function<void(DamageWorld&, StoreCorruptor&)> plant;  // while the server is down
  Codes found;
  Codes left;                     // after a repair; what it does not say it mends
  std::vector<std::size_t> hurt;  // versions of the disk that cannot be whole any more
  bool put_heals = false;         // what is left
  bool live = false;              // planted beside the running server, through `refs`
  std::function<void(DamageWorld&)> plant_live = nullptr;
};

ObjectKey chunk_of(DamageWorld& w, std::size_t version) {
  return w.versions.at(w.of_disk[version]).chunk.ref.object_key();
}
ObjectKey leaf_of(DamageWorld& w, std::size_t version) {
  return w.versions.at(w.of_disk[version]).leaf.ref.object_key();
}
ObjectKey stray_chunk(DamageWorld& w) { return w.stray.chunk.ref.object_key(); }

std::vector<Damage> objects_damaged() {
  using W = DamageWorld;
  using C = StoreCorruptor;
  return {
      {"a bit of a chunk",
       [](W& w, C& c) { c.flip_bit(chunk_of(w, 0)); },
       {"damaged-object"},
       {"incomplete-tree"},
       {0},
       true},
      {"half of a chunk",
       [](W& w, C& c) { c.cut_short(chunk_of(w, 0)); },
       {"damaged-object"},
       {"incomplete-tree"},
       {0},
       true},
      {"another chunk's bytes",
       [](W& w, C& c) { c.misdirect(chunk_of(w, 3), chunk_of(w, 0)); },
       {"damaged-object"},
       {"incomplete-tree"},
       {0},
       true},
      {"another leaf's bytes",
       [](W& w, C& c) { c.misdirect(leaf_of(w, 3), leaf_of(w, 0)); },
       {"damaged-object", "incomplete-tree"},
       {"incomplete-tree"},
       {0},
       true},
      {"a bit of an object of nobody",
       [](W& w, C& c) { c.flip_bit(stray_chunk(w)); },
       {"damaged-object"},
       {},
       {}},
      {"the bytes of a chunk",
       [](W& w, C& c) { c.lose_bytes(chunk_of(w, 0)); },
       {"missing-bytes"},
       {"incomplete-tree"},
       {0},
       true},
      {"the bytes of an object of nobody",
       [](W& w, C& c) { c.lose_bytes(stray_chunk(w)); },
       {"missing-bytes"},
       {},
       {}},
      {"the row of an object of nobody",
       [](W& w, C& c) { c.lose_row(stray_chunk(w)); },
       {"stray-bytes"},
       {},
       {}},
      {"the row of a chunk",
       [](W& w, C& c) { c.lose_row(chunk_of(w, 0)); },
       {"stray-bytes", "incomplete-tree"},
       {},
       {}},
      {"a chunk",
       [](W& w, C& c) { c.lose_object(chunk_of(w, 0)); },
       {"incomplete-tree"},
       {"incomplete-tree"},
       {0},
       true},
      {"a leaf",
       [](W& w, C& c) { c.lose_object(leaf_of(w, 0)); },
       {"incomplete-tree"},
       {"incomplete-tree"},
       {0},
       true},
      {"the level in a chunk's row",
       [](W& w, C& c) { c.wrong_level(chunk_of(w, 0)); },
       {"wrong-row"},
       {},
       {}},
      {"the level in a leaf's row",
       [](W& w, C& c) { c.wrong_level(leaf_of(w, 0)); },
       {"wrong-row"},
       {},
       {}},
      {"the length in a row",
       [](W& w, C& c) { c.wrong_length(chunk_of(w, 0)); },
       {"wrong-row"},
       {},
       {}},
      {"the row of an object of nobody is rubbish",
       [](W& w, C& c) { c.scribble_row(stray_chunk(w)); },
       {"damaged-row"},
       {},
       {}},
      {"the row of a chunk is rubbish",
       [](W& w, C& c) { c.scribble_row(chunk_of(w, 0)); },
       {"damaged-row", "incomplete-tree"},
       {},
       {}},
  };
}

std::vector<Damage> records_damaged() {
  using W = DamageWorld;
  using C = StoreCorruptor;
  const auto version = [](W& w, std::size_t n) { return catalog::version_key(w.of_disk[n]); };
  const auto same = [](Damage damage) {
    damage.left = damage.found;
    return damage;
  };
  std::vector<Damage> out{
      {"the name of an image",
       [](W&, C& c) { c.lose_record("name/disk"); },
       {"wrong-name"},
       {},
       {}},
      {"a name leads to another image",
       [](W& w, C& c) { c.put_record("name/disk", w.branch.id.view()); },
       {"wrong-name"},
       {},
       {}},
      {"a name of nothing",
       [](W& w, C& c) { c.put_record("name/ghost", w.random.id<ImageId>().view()); },
       {"stray-name"},
       {},
       {}},
      {"a session of no image",
       [](W& w, C& c) {
         const catalog::SessionRecord record{{}, "pc", "shared", {}, {}, 1};
         c.put_record(catalog::session_key(w.random.id<ImageId>(), w.session),
                      catalog::encode_session(record));
       },
       {"stray-record"},
       {},
       {}},
      {"a retention of no image",
       [](W& w, C& c) {
         c.put_record(catalog::retention_key(w.random.id<ImageId>()), as_bytes("x"));
       },
       {"stray-record"},
       {},
       {}},
      {"a version that nobody knows was let go",
       [](W& w, C& c) {
         c.put_record(catalog::gone_key(w.random.id<VersionId>()), as_bytes("12345678"));
       },
       {"stray-record"},
       {},
       {}},
      {"a version that no image leads to",
       [](W& w, C& c) {
         format::VersionRecord record;
         record.image = w.disk.id;
         record.image_bytes = w.disk.image_bytes;
         record.tree = w.disk.tree;
         record.sequence = 77;
         const Bytes bytes = format::encode_version(record, w.signer);
         c.put_record(catalog::version_key(format::version_id(bytes)), bytes);
       },
       {"unlinked-version"},
       {},
       {}},
  };
  out.push_back(same(
      {"a session's record is rubbish",
       [](W& w, C& c) { c.put_record(catalog::session_key(w.disk.id, w.session), as_bytes("?")); },
       {"damaged-record"},
       {},
       {}}));
  out.push_back(same({"the record of the head",
                      [=](W& w, C& c) { c.lose_record(version(w, 3)); },
                      {"dangling-head"},
                      {},
                      {3}}));
  out.push_back(same({"the record of an older version",
                      [=](W& w, C& c) { c.lose_record(version(w, 0)); },
                      {"missing-parent"},
                      {},
                      {0}}));
  out.push_back(same({"the record of a session's base",
                      [=](W& w, C& c) { c.lose_record(version(w, 2)); },
                      {"missing-parent", "unknown-base"},
                      {},
                      {2}}));
  out.push_back(same({"a bit of a version's record",
                      [=](W& w, C& c) { c.flip_bit(version(w, 0)); },
                      {"damaged-version"},
                      {},
                      {}}));
  out.push_back(
      same({"the head was let go",
            [](W& w, C& c) { c.put_record(catalog::gone_key(w.of_disk[3]), as_bytes("12345678")); },
            {"dropped-head"},
            {},
            {}}));
  out.push_back(
      same({"the origin of a branch was let go",
            [](W& w, C& c) { c.put_record(catalog::gone_key(w.of_disk[1]), as_bytes("12345678")); },
            {"dropped-head"},
            {},
            {}}));
  out.push_back(same(
      {"a session stands on what nobody knows",
       [](W& w, C& c) {
         const catalog::SessionRecord record{{}, "pc", "shared", w.random.id<VersionId>(), {}, 1};
         c.put_record(catalog::session_key(w.disk.id, w.session), catalog::encode_session(record));
       },
       {"unknown-base"},
       {},
       {}}));
  Damage live{"an image's record beside the running server", nullptr, {"image-record"}, {}, {}};
  live.plant_live = [](W& w) {
    const std::string key = catalog::image_key(w.disk.id);
    const auto row = w.store->refs().get(key);
    REQUIRE(w.store->refs().remove(key, (*row)->revision).ok());
  };
  out.push_back(live);
  return out;
}

void plant_and_look(const Damage& damage) {
  INFO("damage: " << damage.name);
  DamageWorld world;
  REQUIRE(world.codes() == Codes{});
  REQUIRE(world.whole().size() == 5);
  if (damage.plant) {
    world.close();
    {
      StoreCorruptor corruptor(world.path());
      damage.plant(world, corruptor);
    }
    world.open();
  } else {
    damage.plant_live(world);
  }
  CHECK(world.codes() == damage.found);
  // A check alone changes nothing but what reading it forgets.
  for (const auto& finding : world.check(true)) {
    INFO("finding: " << finding.code << " " << finding.what << " " << finding.where);
    CHECK((finding.repaired || damage.left.contains(finding.code)));
    CHECK(!finding.hint.empty());
  }
  CHECK(world.codes() == damage.left);
  std::set<VersionId> wanted;
  for (const auto& [id, tree] : world.versions) wanted.insert(id);
  for (const std::size_t n : damage.hurt) wanted.erase(world.of_disk[n]);
  CHECK(world.whole() == wanted);
  // A second repair has nothing to do, a restart changes nothing.
  world.close();
  world.open();
  CHECK(world.codes(true) == damage.left);
  CHECK(world.whole() == wanted);
  if (damage.put_heals) {
    for (const std::size_t n : damage.hurt) world.put_again(world.of_disk[n]);
    CHECK(world.codes() == Codes{});
    CHECK(world.whole().size() == 5);
  }
  // Where nothing fatal is left a collection takes the upload of nobody and nothing else.
  if (damage.put_heals || damage.left.empty()) {
    const Status collected = world.collect();
    INFO((collected.ok() ? "" : collected.error().to_string()));
    REQUIRE(collected.ok());
    CHECK(world.store->objects().list({}, 100)->size() == 15);
    CHECK(world.whole().size() == 5);
    CHECK(world.codes() == Codes{});
  }
}

}  // namespace

TEST_CASE("damaged_objects_and_rows_are_found_by_their_codes_and_mended_as_far_as_they_can_be") {
  spdlog::set_level(spdlog::level::off);
  for (const Damage& damage : objects_damaged()) plant_and_look(damage);
}

TEST_CASE("damaged_records_are_found_by_their_codes_and_mended_as_far_as_they_can_be") {
  spdlog::set_level(spdlog::level::off);
  for (const Damage& damage : records_damaged()) plant_and_look(damage);
}

TEST_CASE("what_a_version_needs_and_has_lost_stops_every_collection_until_it_is_mended") {
  spdlog::set_level(spdlog::level::off);
  const auto stops = [](const std::function<void(DamageWorld&, StoreCorruptor&)>& plant) {
    DamageWorld world;
    world.close();
    {
      StoreCorruptor corruptor(world.path());
      plant(world, corruptor);
    }
    world.open();
    const std::uint64_t before = world.store->objects().info()->objects;
    const Status collected = world.collect();
    CHECK(!collected.ok());
    if (!collected.ok()) CHECK(collected.error().code == ErrorCode::kCorrupt);
    // A node that was found damaged counts as absent; nothing else went.
    CHECK(world.store->objects().info()->objects + 1 >= before);
  };
  stops([](DamageWorld& w, StoreCorruptor& c) { c.lose_object(leaf_of(w, 0)); });
  stops([](DamageWorld& w, StoreCorruptor& c) { c.flip_bit(leaf_of(w, 0)); });
  stops([](DamageWorld& w, StoreCorruptor& c) { c.misdirect(leaf_of(w, 3), leaf_of(w, 0)); });
  stops(
      [](DamageWorld& w, StoreCorruptor& c) { c.lose_record(catalog::version_key(w.of_disk[3])); });
  stops(
      [](DamageWorld& w, StoreCorruptor& c) { c.lose_record(catalog::version_key(w.of_disk[0])); });
  stops([](DamageWorld& w, StoreCorruptor& c) { c.flip_bit(catalog::version_key(w.of_disk[0])); });
  stops([](DamageWorld& w, StoreCorruptor& c) {
    c.put_record(catalog::session_key(w.disk.id, w.session), as_bytes("?"));
  });
}
