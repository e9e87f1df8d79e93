// Bugs that servers of this kind really had, each as a test: situation_outcome.
#include "rdim-server/catalog/collector.h"
#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::test;
using catalog::Collector;
using catalog::CollectorPhase;

namespace {

// Lets something happen at the barrier of a commit: after its check, before its record.
class BarrierStore : public CountingStore {
 public:
  using CountingStore::CountingStore;
  Status barrier() override {
    if (auto action = std::exchange(at_barrier, nullptr)) action();
    return CountingStore::barrier();
  }
  std::function<void()> at_barrier;
};

struct Server {
  CatalogFixture make;
  BarrierStore objects{make.clock};
  stores::MemoryRefStore refs;
  std::unique_ptr<catalog::Catalog> catalog;
  ImageInfo image;
  contract::LeaseGrant lease;

  Server() {
    make.clock.advance(std::chrono::hours(10'000));
    restart();
    const auto made = catalog->create_image(make.wanted("disk"));
    REQUIRE(made.ok());
    image = *made;
    const auto grant = catalog->acquire_lease(make.lease_request(image, 1));
    REQUIRE(grant.ok());
    lease = *grant;
  }
  void restart() {
    catalog.reset();
    catalog = std::move(
        *catalog::Catalog::open(objects, refs, GenerationId{}, make.clock, make.random, {}));
  }
  void put(const SealedObject& object) {
    const contract::ObjectStore::PutItem item{object.ref.object_key(), object.bytes};
    REQUIRE(objects.put(std::span(&item, 1)).ok());
  }
  void put(const CatalogFixture::SmallTree& tree) {
    put(tree.data);
    put(tree.leaf);
    put(tree.root);
  }
  contract::CommitOrder order(const CatalogFixture::SmallTree& tree) {
    // The clock has moved since.
    const auto grant = catalog->acquire_lease(make.lease_request(image, 1));
    REQUIRE(grant.ok());
    lease = *grant;
    const auto now = catalog->get_image(image.id);
    format::VersionRecord record;
    record.parent = now->head;
    record.image = image.id;
    record.root = tree.root.ref.object_key();
    record.image_bytes = image.image_bytes;
    record.tree = image.tree;
    record.sequence = now->head_sequence + 1;
    record.commit.journal.bytes[0] = 5;
    record.commit.epoch = record.sequence;
    record.commit.digest = make.random.id<Digest>();
    return make.order(record, lease);
  }
  std::unique_ptr<Collector> collection() {
    catalog::CollectorOptions options;
    options.upload_grace = std::chrono::seconds(0);
    return std::make_unique<Collector>(*catalog, objects, make.clock, options);
  }
  void run_until(Collector& collector, CollectorPhase phase) {
    while (collector.phase() != phase) REQUIRE(collector.step().ok());
  }
  void finish(Collector& collector) {
    for (;;) {
      const auto more = collector.step();
      REQUIRE(more.ok());
      if (!*more) return;
    }
  }
  bool has(const SealedObject& object) {
    const ObjectKey key = object.ref.object_key();
    return objects.has(std::span(&key, 1))->front();
  }
  bool whole(const CatalogFixture::SmallTree& tree) {
    return has(tree.root) && has(tree.leaf) && has(tree.data);
  }
  CatalogFixture::SmallTree old_garbage() {
    const auto tree = make.make_tree(false);
    put(tree);
    make.clock.advance(std::chrono::hours(1000));
    return tree;
  }
};

}  // namespace

TEST_CASE("has_says_yes_and_the_sweep_comes_before_the_commit_the_commit_is_whole") {
  Server server;
  const auto tree = server.old_garbage();
  const auto collector = server.collection();
  server.run_until(*collector, CollectorPhase::kSweep);  // found as garbage already
  for (const SealedObject* object : {&tree.data, &tree.leaf, &tree.root}) {
    const ObjectKey key = object->ref.object_key();
    CHECK(server.objects.touch_present(std::span(&key, 1))->front());
  }
  server.finish(*collector);
  const auto answer = server.catalog->commit(server.order(tree));
  REQUIRE(answer.ok());
  CHECK(answer->missing.empty());
  CHECK(server.whole(tree));
}

TEST_CASE("sweep_between_the_check_of_a_commit_and_its_record_takes_nothing_of_it") {
  Server server;
  const auto tree = server.old_garbage();
  const auto collector = server.collection();
  server.run_until(*collector, CollectorPhase::kSweep);
  server.objects.at_barrier = [&] { server.finish(*collector); };
  const auto answer = server.catalog->commit(server.order(tree));
  REQUIRE(answer.ok());
  CHECK(answer->missing.empty());
  CHECK(server.whole(tree));
}

TEST_CASE("whole_collection_inside_a_commit_takes_nothing_of_it") {
  Server server;
  const auto tree = server.old_garbage();
  server.objects.at_barrier = [&] {
    server.make.clock.advance(std::chrono::hours(1));
    server.finish(*server.collection());
  };
  const auto answer = server.catalog->commit(server.order(tree));
  REQUIRE(answer.ok());
  CHECK(answer->missing.empty());
  CHECK(server.whole(tree));
}

TEST_CASE("has_of_a_node_during_a_sweep_keeps_what_the_node_names") {
  Server server;
  const auto tree = server.old_garbage();
  const auto collector = server.collection();
  server.run_until(*collector, CollectorPhase::kSweep);
  const ObjectKey root = tree.root.ref.object_key();
  CHECK(server.objects.touch_present(std::span(&root, 1))->front());
  server.finish(*collector);
  CHECK(server.whole(tree));
}

TEST_CASE("branch_of_a_version_that_is_being_let_go_is_refused_or_whole") {
  for (int steps = 0; steps < 40; ++steps) {
    Server server;
    REQUIRE(
        server.catalog->set_retention(server.image.id, catalog::RetentionPolicy{false, 1, 0, 0, 0})
            .ok());
    const auto first = server.make.make_tree(false), second = server.make.make_tree(false);
    server.put(first);
    const auto old = server.catalog->commit(server.order(first));
    REQUIRE(old.ok());
    server.put(second);
    REQUIRE(server.catalog->commit(server.order(second)).ok());
    server.make.clock.advance(std::chrono::hours(1000));
    const auto collector = server.collection();
    for (int n = 0; n < steps; ++n) REQUIRE(collector->step().ok());
    auto wanted = server.make.wanted("branch");
    wanted.origin = old->version;
    const auto branch = server.catalog->create_image(wanted);
    server.finish(*collector);
    CHECK(branch.ok() == server.whole(first));
    if (!branch.ok()) CHECK(branch.error().code == ErrorCode::kNotFound);
    CHECK(server.whole(second));
  }
}

TEST_CASE("collection_killed_at_any_step_and_begun_anew_takes_only_garbage") {
  for (int steps = 0; steps < 40; ++steps) {
    Server server;
    const auto live = server.make.make_tree(false);
    server.put(live);
    REQUIRE(server.catalog->commit(server.order(live)).ok());
    const auto garbage = server.old_garbage();
    auto collector = server.collection();
    for (int n = 0; n < steps; ++n) REQUIRE(collector->step().ok());
    collector.reset();
    server.restart();
    CHECK(server.whole(live));
    server.finish(*server.collection());
    CHECK(server.whole(live));
    CHECK(!server.has(garbage.root));
    CHECK(!server.has(garbage.data));
  }
}

TEST_CASE("upload_that_pauses_for_less_than_the_grace_is_not_collected") {
  Server server;
  const auto tree = server.make.make_tree(false);
  server.put(tree.data);
  server.put(tree.leaf);
  server.make.clock.advance(std::chrono::hours(24 * 6));
  catalog::CollectorOptions options;
  Collector collector(*server.catalog, server.objects, server.make.clock, options);
  server.finish(collector);
  CHECK(server.has(tree.leaf));
  CHECK(server.has(tree.data));
}

TEST_CASE("late_retry_of_a_commit_whose_version_was_let_go_gets_its_first_answer") {
  Server server;
  REQUIRE(
      server.catalog->set_retention(server.image.id, catalog::RetentionPolicy{false, 1, 0, 0, 0})
          .ok());
  const auto tree = server.make.make_tree(false);
  server.put(tree);
  const auto order = server.order(tree);
  const auto first = server.catalog->commit(order);
  REQUIRE(first.ok());
  const auto next = server.make.make_tree(false);
  server.put(next);
  auto later = server.order(next);
  auto record = *format::decode_version(later.record);
  record.commit.journal.bytes[0] = 6;  // another machine's
  later = server.make.order(record, server.lease);
  REQUIRE(server.catalog->commit(later).ok());
  server.make.clock.advance(std::chrono::hours(1000));
  server.finish(*server.collection());
  CHECK(*server.catalog->is_gone(first->version));
  const auto again = server.catalog->commit(order);
  REQUIRE(again.ok());
  CHECK(again->repeated);
  CHECK(again->version == first->version);
}
