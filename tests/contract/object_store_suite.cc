#include "tests/contract/object_store_suite.h"

#include <algorithm>
#include <set>
#include <thread>
#include <catch2/catch.hpp>

#include "common/base/wire.h"

namespace dims::test {

using contract::ObjectStore;
using contract::PutOutcome;
using format::ObjectKey;

TestObject test_object(std::uint64_t number, std::uint8_t domain) {
  DomainId id;
  id.bytes[0] = domain;
  Secret32 secret;
  secret.bytes[0] = domain;
  const format::DomainKey key(id, 1, secret);
  Bytes page(kPageBytes);
  SeededRandom(number + 1).fill(page);
  format::SealedObject sealed = format::seal_chunk(key, page);
  return {sealed.ref.object_key(), std::move(sealed.bytes)};
}

std::vector<ObjectStore::PutItem> items_of(const std::vector<TestObject>& objects) {
  std::vector<ObjectStore::PutItem> items;
  for (const TestObject& object : objects) items.push_back(object.item());
  return items;
}

Result<Bytes> get_one(ObjectStore& store, const ObjectKey& key) {
  Result<Bytes> out = make_error(ErrorCode::kInternal, "the sink was not called");
  store.get(std::span(&key, 1), [&](std::size_t index, Result<Bytes> object) {
    if (index == 0) out = std::move(object);
    return true;
  });
  return out;
}

namespace {

using Open = std::function<std::unique_ptr<ObjectStoreFixture>()>;

ErrorCode code_of(const Result<Bytes>& result) {
  REQUIRE(!result.ok());
  return result.error().code;
}

void puts_and_gets(ObjectStore& store) {
  const std::vector<TestObject> objects{test_object(1), test_object(2), test_object(3, 2)};
  const auto first = store.put(items_of(objects));
  REQUIRE(first.ok());
  CHECK(*first == std::vector<PutOutcome>(3, PutOutcome::kStored));
  const auto again = store.put(items_of({objects[0], test_object(4)}));
  REQUIRE(again.ok());
  CHECK(*again == std::vector<PutOutcome>{PutOutcome::kPresent, PutOutcome::kStored});
  for (const TestObject& object : objects) {
    const auto back = get_one(store, object.key);
    REQUIRE(back.ok());
    CHECK(*back == object.bytes);
  }
  CHECK(code_of(get_one(store, test_object(99).key)) == ErrorCode::kNotFound);
  ObjectKey elsewhere = objects[0].key;
  elsewhere.domain = objects[2].key.domain;
  CHECK(code_of(get_one(store, elsewhere)) == ErrorCode::kNotFound);
  const auto none = store.put({});
  REQUIRE(none.ok());
  CHECK(none->empty());
}

void the_same_object_twice_in_one_put(ObjectStore& store) {
  const TestObject object = test_object(1);
  const auto outcomes = store.put(items_of({object, object}));
  REQUIRE(outcomes.ok());
  CHECK(*outcomes == std::vector<PutOutcome>{PutOutcome::kStored, PutOutcome::kPresent});
  CHECK(store.info()->objects == 1);
  CHECK(store.info()->object_bytes == object.bytes.size());
}

void bad_bytes_are_refused(ObjectStore& store) {
  const TestObject good = test_object(1);
  TestObject bad = test_object(2);
  bad.bytes.back() ^= 1;
  TestObject foreign = test_object(3);
  foreign.key.domain.bytes[5] = 7;
  TestObject rubbish{test_object(4).key, Bytes(100, 3)};
  for (const TestObject& wrong : {bad, foreign, rubbish}) {
    const auto outcome = store.put(items_of({good, wrong}));
    REQUIRE(!outcome.ok());
    CHECK(outcome.error().code == ErrorCode::kCorrupt);
    // Nothing of the call was stored, not even the good one.
    const std::vector<ObjectKey> keys{good.key, wrong.key};
    CHECK(*store.has(keys) == std::vector<bool>{false, false});
  }
  CHECK(store.info()->objects == 0);
}

void get_stops_when_told(ObjectStore& store) {
  const std::vector<TestObject> objects{test_object(1), test_object(2), test_object(3)};
  REQUIRE(store.put(items_of(objects)).ok());
  const std::vector<ObjectKey> keys{objects[0].key, test_object(50).key, objects[1].key,
                                    objects[2].key};
  std::set<std::size_t> seen;
  store.get(keys, [&](std::size_t index, Result<Bytes> object) {
    CHECK(object.ok() == (index != 1));
    CHECK(seen.insert(index).second);
    return true;
  });
  CHECK(seen.size() == 4);
  int calls = 0;
  store.get(keys, [&](std::size_t, Result<Bytes>) { return ++calls < 2; });
  CHECK(calls == 2);
}

void has_touch_remove(ObjectStore& store, ManualClock& clock) {
  const TestObject here = test_object(1), absent = test_object(2);
  REQUIRE(store.put(items_of({here})).ok());
  const std::vector<ObjectKey> keys{absent.key, here.key};
  CHECK(*store.has(keys) == std::vector<bool>{false, true});
  clock.advance(std::chrono::hours(30));
  CHECK(store.touch(keys).ok());
  CHECK(*store.has(keys) == std::vector<bool>{false, true});  // touching makes nothing
  CHECK(store.remove(here.key).ok());
  CHECK(*store.has(keys) == std::vector<bool>{false, false});
  CHECK(code_of(get_one(store, here.key)) == ErrorCode::kNotFound);
  const Status twice = store.remove(here.key);
  REQUIRE(!twice.ok());
  CHECK(twice.error().code == ErrorCode::kNotFound);
  CHECK(store.info()->objects == 0);
  CHECK(store.put(items_of({here}))->front() == PutOutcome::kStored);
}

void lists_in_key_order(ObjectStore& store) {
  std::vector<TestObject> objects;
  for (std::uint64_t i = 0; i < 40; ++i) {
    objects.push_back(test_object(i, static_cast<std::uint8_t>(i % 3)));
  }
  REQUIRE(store.put(items_of(objects)).ok());
  std::vector<ObjectKey> expected;
  for (const TestObject& object : objects) expected.push_back(object.key);
  std::sort(expected.begin(), expected.end());
  std::vector<ObjectKey> listed;
  std::optional<ObjectKey> after;
  for (;;) {
    const auto part = store.list(after, 7);
    REQUIRE(part.ok());
    if (part->empty()) break;
    CHECK(part->size() <= 7);
    listed.insert(listed.end(), part->begin(), part->end());
    after = listed.back();
  }
  CHECK(listed == expected);
  // From a key that is not there.
  ObjectKey between = expected[10];
  between.id.bytes[31] ^= 1;
  const auto rest = store.list(between, 100);
  REQUIRE(rest.ok());
  const auto count = std::count_if(expected.begin(), expected.end(),
                                   [&](const auto& key) { return key > between; });
  CHECK(rest->size() == static_cast<std::size_t>(count));
}

void damage_is_reported_and_heals(ObjectStoreFixture& fixture) {
  const TestObject object = test_object(1), other = test_object(2);
  REQUIRE(fixture.store().put(items_of({object, other})).ok());
  REQUIRE(fixture.store().barrier().ok());
  fixture.damage(object.key);
  ObjectStore& store = fixture.store();  // opened anew
  CHECK(code_of(get_one(store, object.key)) == ErrorCode::kCorrupt);
  CHECK(get_one(store, other.key).ok());
  // From now on it counts as absent, so that whoever has it sends it again.
  CHECK(*store.has(std::span(&object.key, 1)) == std::vector<bool>{false});
  CHECK(store.info()->objects == 1);
  CHECK(store.put(items_of({object}))->front() == PutOutcome::kStored);
  const auto healed = get_one(store, object.key);
  REQUIRE(healed.ok());
  CHECK(*healed == object.bytes);
  CHECK(store.info()->objects == 2);
}

void many_at_once(ObjectStore& store) {
  constexpr std::uint64_t kObjects = 60;
  std::vector<TestObject> objects;
  for (std::uint64_t i = 0; i < kObjects; ++i) objects.push_back(test_object(i));
  std::array<std::uint64_t, 4> stored{};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < stored.size(); ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < objects.size(); ++i) {
        const std::size_t at = (i + t * 7) % objects.size();
        const auto outcome = store.put(std::vector{objects[at].item()});
        if (outcome.ok() && outcome->front() == PutOutcome::kStored) ++stored[t];
        if (i % 20 == 0 && !store.barrier().ok()) stored[t] += 1000;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::uint64_t sum = 0;
  for (const std::uint64_t count : stored) sum += count;
  CHECK(sum == kObjects);  // each was new to exactly one
  CHECK(store.info()->objects == kObjects);
}

void sweeps_only_what_nobody_touched(ObjectStore& store, ManualClock& clock) {
  using contract::RemoveOutcome;
  const std::vector<TestObject> objects{test_object(1), test_object(2), test_object(3)};
  REQUIRE(store.put(items_of(objects)).ok());
  clock.advance(std::chrono::minutes(1));
  const std::uint64_t mark = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock.wall()).count());
  REQUIRE(store.set_touch_floor(mark).ok());
  // Younger than the step, and renewed all the same: a mark has begun. Also with a clock set back.
  clock.advance(-std::chrono::minutes(30));
  REQUIRE(store.touch(std::vector{objects[1].key}).ok());
  const std::vector<ObjectKey> keys{objects[0].key, objects[1].key, objects[2].key,
                                    test_object(9).key};
  const auto present = store.touch_present(std::vector{objects[2].key, test_object(9).key});
  REQUIRE(present.ok());
  CHECK(*present == std::vector<bool>{true, false});
  const auto outcomes = store.remove_untouched(keys, mark);
  REQUIRE(outcomes.ok());
  CHECK(*outcomes == std::vector<RemoveOutcome>{RemoveOutcome::kRemoved, RemoveOutcome::kTouched,
                                                RemoveOutcome::kTouched, RemoveOutcome::kAbsent});
  const auto rows = store.list_rows({}, 10);
  REQUIRE(rows.ok());
  REQUIRE(rows->size() == 2);
  CHECK(store.info()->objects == 2);
  for (const auto& row : *rows) {
    CHECK(row.touched_s >= mark);
    CHECK(row.level == 0);
  }
  REQUIRE(store.reclaim([] { return false; }).ok());
  CHECK(get_one(store, objects[1].key).ok());
}

// A server ran once with a clock that was years ahead.
void a_touch_in_the_future_is_set_right_by_the_next(ObjectStore& store, ManualClock& clock) {
  const TestObject object = test_object(1);
  clock.advance(std::chrono::hours(24 * 1000));
  REQUIRE(store.put(items_of({object})).ok());
  clock.advance(-std::chrono::hours(24 * 1000));
  const auto now = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock.wall()).count());
  CHECK(store.list_rows({}, 10)->front().touched_s > now + 24 * 3600);
  REQUIRE(store.touch(std::vector{object.key}).ok());
  CHECK(store.list_rows({}, 10)->front().touched_s == now);
  // Never below the mark of a collection.
  REQUIRE(store.set_touch_floor(now + 7200).ok());
  REQUIRE(store.touch(std::vector{object.key}).ok());
  CHECK(store.list_rows({}, 10)->front().touched_s == now + 7200);
}

void audit_finds_and_mends(ObjectStoreFixture& fixture) {
  const auto store = [&]() -> ObjectStore& { return fixture.store(); };
  std::vector<TestObject> objects;
  for (std::uint64_t n = 0; n < 9; ++n) objects.push_back(test_object(n));
  REQUIRE(store().put(items_of(objects)).ok());
  const auto pages = [&](bool mend) {
    std::vector<contract::StoreFinding> all;
    std::optional<ObjectKey> after;
    std::uint64_t seen = 0;
    do {
      const auto page = store().audit(after, 2, kMiB, mend);
      REQUIRE(page.ok());
      seen += page->objects;
      all.insert(all.end(), page->findings.begin(), page->findings.end());
      after = page->last;
    } while (after);
    CHECK(seen == 9);
    return all;
  };
  CHECK(pages(false).empty());
  fixture.damage(objects[4].key);
  const auto found = pages(false);
  REQUIRE(found.size() == 1);
  CHECK(found[0].key == objects[4].key);
  CHECK(found[0].kind == contract::StoreFinding::Kind::kDamagedObject);
  CHECK(!found[0].mended);
  const auto mended = pages(true);
  REQUIRE(mended.size() == 1);
  CHECK(mended[0].mended);
  CHECK(!store().has(std::vector{objects[4].key})->front());
  REQUIRE(store().put(std::vector{objects[4].item()}).ok());
  CHECK(pages(false).empty());
}

}  // namespace

void object_store_suite(const Open& open) {
  const auto fixture = open();
  ObjectStore& store = fixture->store();
  SECTION("put and get") { puts_and_gets(store); }
  SECTION("one put, twice the same") { the_same_object_twice_in_one_put(store); }
  SECTION("wrong hash refused") { bad_bytes_are_refused(store); }
  SECTION("get stops when told") { get_stops_when_told(store); }
  SECTION("has, touch, remove") { has_touch_remove(store, fixture->clock); }
  SECTION("list") { lists_in_key_order(store); }
  SECTION("damage") { damage_is_reported_and_heals(*fixture); }
  SECTION("sweep") { sweeps_only_what_nobody_touched(store, fixture->clock); }
  SECTION("a clock that was wrong") {
    a_touch_in_the_future_is_set_right_by_the_next(store, fixture->clock);
  }
  SECTION("audit") { audit_finds_and_mends(*fixture); }
  SECTION("many threads") { many_at_once(store); }
}

}  // namespace dims::test
