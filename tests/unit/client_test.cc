// Moving objects: many callers on shared streams, bounded memory, verified bytes.
#include <catch2/catch.hpp>

#include <algorithm>
#include <numeric>

#include "tests/unit/client_fixture.h"

using namespace dims;
using namespace dims::test;
using contract::Priority;

namespace {

std::size_t streams_opened(Behaviour& behaviour) {
  std::lock_guard lock(behaviour.mutex);
  return behaviour.get_streams;
}

// What get() delivers, in the order of the keys.
std::vector<Result<Bytes>> get_all(contract::Remote& remote, const ImageId& image,
                                   std::span<const format::ObjectKey> keys, Priority priority,
                                   Status& status) {
  std::vector<Result<Bytes>> out(keys.size(),
                                 Result<Bytes>(make_error(ErrorCode::kInternal, "not delivered")));
  const auto caller = std::this_thread::get_id();
  status = remote.get(image, keys, priority, [&](std::size_t index, Result<Bytes> object) {
    if (std::this_thread::get_id() != caller) std::abort();
    out.at(index) = std::move(object);
  });
  return out;
}

}  // namespace

TEST_CASE("many callers get exactly what they ask for over two shared streams") {
  ClientFixture f;
  const Objects objects = f.stored_objects(300);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      SeededRandom random(seed() + t);
      for (int round = 0; round < 20; ++round) {
        std::vector<std::size_t> picks(1 + random.below(round % 4 == 0 ? 200 : 3));
        std::vector<format::ObjectKey> keys;
        for (auto& pick : picks) {
          pick = static_cast<std::size_t>(random.below(objects.keys.size()));
          keys.push_back(objects.keys[pick]);
        }
        Status status;
        const auto got = get_all(*f.remote, f.image.id, keys,
                                 t % 2 == 0 ? Priority::kDemand : Priority::kPrefetch, status);
        if (!status.ok()) ++wrong;
        for (std::size_t i = 0; i < picks.size(); ++i) {
          if (!got[i].ok() || *got[i] != objects.bytes[picks[i]]) ++wrong;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(streams_opened(f.server.behaviour()) == 2);
  CHECK(f.server.behaviour().hellos == 1);
  CHECK(f.server.behaviour().keys_per_request_max <= 64);
  CHECK(f.remote->counters().objects_received > 0);
  CHECK(f.remote->counters().connected);
}

TEST_CASE("a large get keeps many requests in flight") {
  ClientFixture f;
  const Objects objects = f.stored_objects(64 * 9, 1);
  // Nothing is answered before eight requests wait: a client that asks one by one would never end.
  f.server.behaviour().set([](Behaviour& b) { b.hold_get_until = 8; });
  Status status;
  const auto got = get_all(*f.remote, f.image.id, objects.keys, Priority::kPrefetch, status);
  REQUIRE(status.ok());
  for (std::size_t i = 0; i < got.size(); ++i) REQUIRE(*got[i] == objects.bytes[i]);
  CHECK(f.server.behaviour().gets_waiting_max == 8);
}

TEST_CASE("the server's limits are kept") {
  ClientFixture f;
  f.server.behaviour().set([](Behaviour& b) {
    b.limits.set_max_objects_per_request(5);
    b.limits.set_max_requests_in_flight(2);
    b.limits.set_max_message_bytes(100 * 1024);
  });
  const Objects objects = make_objects(f.key.domain_key(), 60, f.random, 4);
  const auto stored = f.remote->put(f.image.id, objects.items(), Priority::kWriteBack);
  REQUIRE(stored.ok());
  CHECK(*stored == 60);
  Status status;
  const auto got = get_all(*f.remote, f.image.id, objects.keys, Priority::kDemand, status);
  REQUIRE(status.ok());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(*got[i] == objects.bytes[i]);
  const auto present = f.remote->has(f.image.id, objects.keys);
  REQUIRE(present.ok());
  CHECK(std::count(present->begin(), present->end(), true) == 60);
  CHECK(f.server.behaviour().keys_per_request_max == 5);
  CHECK(f.server.behaviour().gets_waiting_max <= 2);
}

TEST_CASE("no keys and no objects are no request") {
  ClientFixture f;
  CHECK(f.remote->get(f.image.id, {}, Priority::kDemand, [](std::size_t, Result<Bytes>) { FAIL(); })
            .ok());
  CHECK(f.remote->has(f.image.id, {})->empty());
  CHECK(*f.remote->put(f.image.id, {}, Priority::kWriteBack) == 0);
}

TEST_CASE("has tells present from absent, in order") {
  ClientFixture f;
  const Objects there = f.stored_objects(150, 1);
  const Objects away = make_objects(f.key.domain_key(), 150, f.random, 1);
  std::vector<format::ObjectKey> keys;
  for (std::size_t i = 0; i < 150; ++i) {
    keys.push_back(there.keys[i]);
    keys.push_back(away.keys[i]);
  }
  const auto present = f.remote->has(f.image.id, keys);
  REQUIRE(present.ok());
  for (std::size_t i = 0; i < keys.size(); ++i) CHECK((*present)[i] == (i % 2 == 0));
}

TEST_CASE("many callers put; what is there already is not stored again") {
  ClientFixture f;
  const Objects objects = make_objects(f.key.domain_key(), 200, f.random);
  std::atomic<std::uint64_t> stored{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto items = objects.items();
      const auto fresh =
          f.remote->put(f.image.id, std::span(items).subspan(t * 25, 125), Priority::kWriteBack);
      if (fresh.ok()) stored += *fresh;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(stored == 200);
  CHECK(f.server.data().object_count() == 200);
  CHECK(f.server.behaviour().put_streams == 1);
}

TEST_CASE("puts wait while too much is unanswered") {
  constexpr std::uint64_t kBudget = kMiB;
  ClientFixture f([](client::ClientOptions& options) {
    options.put_bytes_in_flight_max = kBudget;
    options.put_request_bytes = 128 * kKiB;
  });
  const Objects objects = make_objects(f.key.domain_key(), 160, f.random);  // about 2.9 MB
  f.server.behaviour().set([](Behaviour& b) { b.hold_put = true; });
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto items = objects.items();
      if (!f.remote->put(f.image.id, std::span(items).subspan(t * 40, 40), Priority::kWriteBack)
               .ok())
        ++failed;
    });
  }
  CHECK(eventually(f.server.behaviour(),
                   [](const Behaviour& b) { return b.put_bytes_waiting > kBudget / 2; }));
  f.server.behaviour().set([](Behaviour& b) { b.hold_put = false; });
  for (auto& thread : threads) thread.join();
  CHECK(failed == 0);
  CHECK(f.server.data().object_count() == 160);
  CHECK(f.server.behaviour().put_bytes_waiting_max <= kBudget);
}

TEST_CASE("a bulk transfer whose caller sleeps does not hold up a demand read") {
  ClientFixture f;
  const Objects objects = f.stored_objects(600, 32);
  std::mutex mutex;
  std::condition_variable changed;
  bool demand_done = false, bulk_started = false;
  std::thread bulk([&] {
    (void)f.remote->get(f.image.id, objects.keys, Priority::kPrefetch,
                        [&](std::size_t, const Result<Bytes>&) {
                          std::unique_lock lock(mutex);
                          bulk_started = true;
                          changed.notify_all();
                          changed.wait(lock, [&] { return demand_done; });
                        });
  });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return bulk_started; });
  }
  Status status;
  const auto got =
      get_all(*f.remote, f.image.id, std::span(objects.keys).first(1), Priority::kDemand, status);
  {
    std::lock_guard lock(mutex);
    demand_done = true;
    changed.notify_all();
  }
  bulk.join();
  REQUIRE(status.ok());
  CHECK(*got[0] == objects.bytes[0]);
}

TEST_CASE("a damaged or missing object fails alone") {
  ClientFixture f;
  const Objects objects = f.stored_objects(100, 2);
  f.server.data().damage_object(objects.keys[17]);
  f.server.data().drop_object(objects.keys[80]);
  Status status;
  const auto got = get_all(*f.remote, f.image.id, objects.keys, Priority::kDemand, status);
  REQUIRE(status.ok());
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (i == 17) {
      REQUIRE(!got[i].ok());
      CHECK(got[i].error().code == ErrorCode::kCorrupt);
    } else if (i == 80) {
      REQUIRE(!got[i].ok());
      CHECK(got[i].error().code == ErrorCode::kNotFound);
    } else {
      REQUIRE(got[i].ok());
      CHECK(*got[i] == objects.bytes[i]);
    }
  }
}

TEST_CASE("a damaged object is refused by the server and nothing of the call is stored") {
  ClientFixture f;
  Objects objects = make_objects(f.key.domain_key(), 3, f.random, 1);
  objects.bytes[1][200] ^= 4;
  const auto stored = f.remote->put(f.image.id, objects.items(), Priority::kWriteBack);
  REQUIRE(!stored.ok());
  CHECK(stored.error().code == ErrorCode::kCorrupt);
  CHECK(f.server.data().object_count() == 0);
}

TEST_CASE("an image that is not there fails the call, and the client goes on") {
  ClientFixture f;
  const Objects objects = f.stored_objects(200, 1);
  Status status;
  get_all(*f.remote, f.random.id<ImageId>(), objects.keys, Priority::kDemand, status);
  REQUIRE(!status.ok());
  CHECK(status.error().code == ErrorCode::kNotFound);
  CHECK(!status.error().hint.empty());
  const auto got = get_all(*f.remote, f.image.id, objects.keys, Priority::kDemand, status);
  REQUIRE(status.ok());
  CHECK(*got[199] == objects.bytes[199]);
}

TEST_CASE("a server that breaks the protocol is found out") {
  using Lie = Behaviour::Lie;
  ClientFixture f;
  const Objects objects = f.stored_objects(10, 1);
  for (const Lie lie : {Lie::kWrongIndex, Lie::kTwice, Lie::kLeaveOut}) {
    INFO("lie " << static_cast<int>(lie));
    f.server.behaviour().set([&](Behaviour& b) { b.lie = lie; });
    Status status;
    get_all(*f.remote, f.image.id, objects.keys, Priority::kDemand, status);
    REQUIRE(!status.ok());
    CHECK(status.error().code == ErrorCode::kInternal);
  }
  f.server.behaviour().set([](Behaviour& b) { b.lie = Lie::kShortHas; });
  const auto present = f.remote->has(f.image.id, objects.keys);
  REQUIRE(!present.ok());
  CHECK(present.error().code == ErrorCode::kInternal);
  f.server.behaviour().set([](Behaviour& b) { b.lie = Lie::kNone; });
  Status status;
  get_all(*f.remote, f.image.id, objects.keys, Priority::kDemand, status);
  CHECK(status.ok());
}

TEST_CASE("requests of a failed call are cancelled at the server") {
  using Lie = Behaviour::Lie;
  ClientFixture f;
  const Objects objects = f.stored_objects(64 * 8, 1);
  f.server.behaviour().set([](Behaviour& b) {
    b.lie = Lie::kLeaveOut;
    b.hold_get_until = 8;
    b.hold_get_after_one = true;  // else all may be answered before the first answer is looked at
  });
  Status status;
  get_all(*f.remote, f.image.id, objects.keys, Priority::kDemand, status);
  REQUIRE(!status.ok());
  CHECK(eventually(f.server.behaviour(), [](const Behaviour& b) { return b.cancels > 0; }));
}
