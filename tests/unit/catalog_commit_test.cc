// Every rule of a commit, in the order in which they are checked.
#include <algorithm>

#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::test;

TEST_CASE_METHOD(CatalogFixture, "a commit moves the head by one version and is announced") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  int woken = 0;
  const auto events = catalog->events().subscribe({image.id}, SessionId{}, [&] { ++woken; });
  const auto tree = make_tree();
  const auto record = next_record(image, tree.root.ref.object_key());
  const auto answer = catalog->commit(order(record, lease));
  REQUIRE(answer.ok());
  CHECK(answer->missing.empty());
  CHECK(!answer->repeated);
  CHECK(answer->sequence == 1);
  CHECK(answer->version == format::version_id(order(record, lease).record));
  CHECK(objects.barriers == 1);
  const auto now = catalog->get_image(image.id);
  CHECK(now->head == answer->version);
  CHECK(now->head_sequence == 1);
  const auto event = events->take();
  REQUIRE(event);
  CHECK(woken == 1);
  CHECK(event->kind == contract::ServerEvent::Kind::kNewVersion);
  CHECK(event->version == answer->version);
  CHECK(event->sequence == 1);
  CHECK(event->who->machine_name == "pc1");
  restart();
  CHECK(catalog->get_image(image.id)->head == answer->version);
}

TEST_CASE_METHOD(CatalogFixture, "a commit whose answer was lost is answered again") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  const auto tree = make_tree();
  auto record = next_record(image, tree.root.ref.object_key());
  const auto first = catalog->commit(order(record, lease));
  REQUIRE(first.ok());
  SECTION("the same order") {}
  SECTION("made again later: another time, another record") { record.time_unix_ns = 77; }
  SECTION("after a restart") { restart(); }
  SECTION("after another machine took over") {
    auto other = lease_request(image, 2);
    other.take_over = true;
    REQUIRE(catalog->acquire_lease(other).ok());
  }
  const auto again = catalog->commit(order(record, lease));
  REQUIRE(again.ok());
  CHECK(again->repeated);
  CHECK(again->version == first->version);
  CHECK(again->sequence == first->sequence);
  CHECK(catalog->get_image(image.id)->head_sequence == 1);
}

TEST_CASE_METHOD(CatalogFixture, "the first answer is given even when the image has gone on") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  const auto tree = make_tree();
  const auto record = next_record(image, tree.root.ref.object_key());
  const auto first = catalog->commit(order(record, lease));
  REQUIRE(first.ok());
  auto by_another = next_record(image, make_tree().root.ref.object_key());
  by_another.commit.journal.bytes[0] = 66;
  REQUIRE(catalog->commit(order(by_another, lease)).ok());
  const auto again = catalog->commit(order(record, lease));
  REQUIRE(again.ok());
  CHECK(again->repeated);
  CHECK(again->version == first->version);
}

TEST_CASE_METHOD(CatalogFixture, "a journal that goes back is another history") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  commit_tree(image, lease);
  commit_tree(image, lease);
  const auto tree = make_tree();
  auto record = next_record(image, tree.root.ref.object_key());
  SECTION("the newest epoch with another digest") { record.commit.epoch = 2; }
  SECTION("an older epoch") { record.commit.epoch = 1; }
  CHECK(code_of(catalog->commit(order(record, lease))) == ErrorCode::kOtherHistory);
  CHECK(catalog->get_image(image.id)->head_sequence == 2);
  // The commit id comes before lease and token.
  CHECK(code_of(catalog->commit(order(record, {}))) == ErrorCode::kOtherHistory);
}

TEST_CASE_METHOD(CatalogFixture, "without the current lease nothing is committed") {
  const ImageInfo image = make_image("disk");
  const auto tree = make_tree();
  const auto record = next_record(image, tree.root.ref.object_key());
  CHECK(code_of(catalog->commit(order(record, {}))) == ErrorCode::kStaleLease);
  const auto lease = acquire(image);
  auto wrong = lease;
  SECTION("another lease id") { wrong.lease.bytes[3] ^= 1; }
  SECTION("an older token") { --wrong.token; }
  SECTION("released") { REQUIRE(catalog->release_lease(image.id, lease).ok()); }
  SECTION("expired") { clock.advance(std::chrono::seconds(61)); }
  SECTION("taken over") {
    auto other = lease_request(image, 2);
    other.take_over = true;
    REQUIRE(catalog->acquire_lease(other).ok());
  }
  auto late = order(record, wrong);
  late.parent.bytes[0] ^= 1;  // checked after the lease
  CHECK(code_of(catalog->commit(late)) == ErrorCode::kStaleLease);
  CHECK(code_of(catalog->commit(order(record, wrong))) == ErrorCode::kStaleLease);
  CHECK(catalog->get_image(image.id)->head.is_zero());
}

TEST_CASE_METHOD(CatalogFixture,
                 "a parent that is not the head is a conflict that names the head") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  const auto stale = next_record(image, make_tree().root.ref.object_key());
  const VersionId head = commit_tree(image, lease);
  auto record = stale;
  record.commit.journal.bytes[0] = 44;
  const auto refused = catalog->commit(order(record, lease));
  REQUIRE(code_of(refused) == ErrorCode::kConflict);
  CHECK(refused.error().message.find(head.short_hex()) != std::string::npos);
}

TEST_CASE_METHOD(CatalogFixture, "a record that does not fit the image is refused") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  auto record = next_record(image, make_tree().root.ref.object_key());
  auto expected = ErrorCode::kInvalidArgument;
  contract::CommitOrder wrong;
  SECTION("of another image") {
    record.image = random.id<ImageId>();
    wrong = order(record, lease);
    wrong.image = image.id;
  }
  SECTION("another size") {
    record.image_bytes += 4096;
    wrong = order(record, lease);
  }
  SECTION("other tree parameters") {
    record.tree.fanout = 64;
    wrong = order(record, lease);
  }
  SECTION("a jump in the sequence") {
    record.sequence += 1;
    wrong = order(record, lease);
  }
  SECTION("another parent than the order") {
    record.parent.bytes[0] ^= 1;
    wrong = order(record, lease);
    wrong.parent = {};
  }
  SECTION("a broken signature") {
    wrong = order(record, lease);
    wrong.record.back() ^= 1;
    expected = ErrorCode::kCorrupt;
  }
  SECTION("cut short") {
    wrong = order(record, lease);
    wrong.record.pop_back();
    expected = ErrorCode::kCorrupt;
  }
  CHECK(code_of(catalog->commit(wrong)) == expected);
  CHECK(catalog->get_image(image.id)->head.is_zero());
}

TEST_CASE_METHOD(CatalogFixture, "what a version lacks is named, and nothing is committed") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  const auto tree = make_tree(false);
  const auto record = next_record(image, tree.root.ref.object_key());
  const auto missing = [&] {
    const auto answer = catalog->commit(order(record, lease));
    REQUIRE(answer.ok());
    REQUIRE(answer->missing.size() == 1);
    CHECK(answer->version.is_zero());
    CHECK(catalog->get_image(image.id)->head.is_zero());
    return answer->missing.front();
  };
  CHECK(missing() == tree.root.ref.object_key());
  put(tree.root);
  CHECK(missing() == tree.leaf.ref.object_key());
  put(tree.leaf);
  CHECK(missing() == tree.data.ref.object_key());
  put(tree.data);
  SECTION("and then it goes through") {
    const auto answer = catalog->commit(order(record, lease));
    REQUIRE(answer.ok());
    CHECK(answer->missing.empty());
  }
  SECTION("a damaged node counts as missing") {
    objects.damage(tree.leaf.ref.object_key());
    CHECK(missing() == tree.leaf.ref.object_key());
    put(tree.leaf);
    CHECK(catalog->commit(order(record, lease))->missing.empty());
  }
}

TEST_CASE_METHOD(CatalogFixture, "only what is new relative to the parent is looked at") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  std::vector<ObjectKey> leaves;
  for (int i = 0; i < 40; ++i) {
    const auto data = chunk();
    const auto leaf = node(1, {data.ref.object_key()});
    put(data);
    put(leaf);
    leaves.push_back(leaf.ref.object_key());
  }
  const auto root = node(2, leaves);
  put(root);
  REQUIRE(catalog->commit(order(next_record(image, root.ref.object_key()), lease)).ok());
  // An old chunk goes (as a sweep of another day may do): no later commit pays for looking at it.
  const auto fresh = make_tree();
  leaves[7] = fresh.leaf.ref.object_key();
  const auto root2 = node(2, leaves);
  put(root2);
  objects.reads = 0;
  const auto answer = catalog->commit(order(next_record(image, root2.ref.object_key()), lease));
  REQUIRE(answer.ok());
  CHECK(answer->missing.empty());
  CHECK(objects.reads <= 6);  // two roots twice, one leaf
}

TEST_CASE_METHOD(CatalogFixture, "objects of a foreign domain are no part of an image") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  DomainId foreign;
  foreign.bytes[0] = 200;
  const format::DomainKey other(foreign, 1, Secret32{});
  const auto data = chunk(other);
  const auto leaf = node(1, {data.ref.object_key()});
  const auto root = node(2, {leaf.ref.object_key()});
  for (const auto& object : {data, leaf, root}) put(object);
  const auto record = next_record(image, root.ref.object_key());
  CHECK(code_of(catalog->commit(order(record, lease))) == ErrorCode::kPermissionDenied);
  const std::vector<ObjectKey> keys{data.ref.object_key()};
  CHECK(code_of(catalog->check_access(image.id, keys, catalog::Access::kRead)) ==
        ErrorCode::kPermissionDenied);
}

TEST_CASE_METHOD(CatalogFixture, "no head moves before its objects are durable") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  const auto tree = make_tree();
  const auto record = next_record(image, tree.root.ref.object_key());
  objects.barrier_result = make_error(ErrorCode::kNoSpace, "full");
  CHECK(code_of(catalog->commit(order(record, lease))) == ErrorCode::kNoSpace);
  restart();
  CHECK(catalog->get_image(image.id)->head.is_zero());
  objects.barrier_result = {};
  const auto answer = catalog->commit(order(record, acquire(image)));
  REQUIRE(answer.ok());
  CHECK(!answer->repeated);
}

TEST_CASE_METHOD(CatalogFixture, "a commit without a journal is the same only byte for byte") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  auto record = next_record(image, make_tree().root.ref.object_key());
  record.commit = {};
  const auto first = catalog->commit(order(record, lease));
  REQUIRE(first.ok());
  const auto again = catalog->commit(order(record, lease));
  REQUIRE(again.ok());
  CHECK(again->repeated);
  record.time_unix_ns = 5;
  CHECK(code_of(catalog->commit(order(record, lease))) == ErrorCode::kConflict);
}

TEST_CASE_METHOD(CatalogFixture,
                 "a version that was let go and is committed again is there again") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  const auto record = next_record(image, make_tree().root.ref.object_key());
  const auto again = order(record, lease);
  const VersionId id = format::version_id(again.record);
  REQUIRE(refs.put(catalog::gone_key(id), as_bytes("12345678"), 0).ok());
  const auto done = catalog->commit(again);
  REQUIRE(done.ok());
  CHECK(done->version == id);
  CHECK(!*catalog->is_gone(id));
}

TEST_CASE_METHOD(CatalogFixture, "an image of zeros needs no objects") {
  const ImageInfo image = make_image("disk");
  const auto answer = catalog->commit(order(next_record(image, {}), acquire(image)));
  REQUIRE(answer.ok());
  CHECK(answer->missing.empty());
  CHECK(answer->sequence == 1);
}

TEST_CASE_METHOD(CatalogFixture, "an answer names a bounded number of missing objects") {
  catalog.reset();
  catalog::CatalogOptions options;
  options.missing_max = 10;
  catalog =
      std::move(*catalog::Catalog::open(objects, refs, GenerationId{}, clock, random, options));
  const ImageInfo image = make_image("disk");
  std::vector<ObjectKey> chunks;
  for (int i = 0; i < 50; ++i) chunks.push_back(chunk().ref.object_key());
  const auto leaf = node(1, chunks);
  put(leaf);
  const auto answer =
      catalog->commit(order(next_record(image, leaf.ref.object_key()), acquire(image)));
  REQUIRE(answer.ok());
  CHECK(answer->missing.size() == 10);
  for (const auto& key_of : answer->missing) {
    CHECK(std::count(chunks.begin(), chunks.end(), key_of) == 1);
  }
}
