// Losses and ends: the server away, streams broken, replies that never come, shutdown.
#include <catch2/catch.hpp>

#include <filesystem>

#include <unistd.h>

#include "tests/unit/client_fixture.h"
#include "tests/unit/client_link.h"

using namespace dims;
using namespace dims::test;
using contract::Priority;

namespace {

Status get_one(contract::Remote& remote, const ImageId& image, const format::ObjectKey& key,
               Priority priority = Priority::kDemand) {
  Status outcome;
  const Status call = remote.get(image, std::span(&key, 1), priority,
                                 [&](std::size_t, const Result<Bytes>& object) {
                                   if (!object.ok()) outcome = object.error();
                                 });
  return call.ok() ? outcome : call;
}

// A folder of its own under the system's temporary one.
struct TempFolder {
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "dims-client-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path = name;
  }
  ~TempFolder() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace

TEST_CASE("a client starts without its server and finds it when it comes") {
  TempFolder folder;
  client::ClientOptions options;
  options.address = "unix:" + folder.path + "/rdim.sock";
  const auto remote = client::connect(options).value();
  const auto refused = remote->list_images();
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kUnavailable);
  CHECK(refused.error().message.find(options.address) != std::string::npos);
  CHECK(!refused.error().hint.empty());
  CHECK(!remote->counters().connected);
  CHECK(!remote->watch({}, {}).ok());
  TestServer server(options.address);
  CHECK(eventually([&] { return remote->list_images().ok(); }));
  CHECK(remote->counters().connected);
}

TEST_CASE("a server that goes and comes back is used again") {
  TempFolder folder;
  TestServer server("unix:" + folder.path + "/rdim.sock");
  client::ClientOptions options;
  options.address = server.address();
  const auto remote = client::connect(options).value();
  SeededRandom random(seed());
  const auto key = format::generate_key_file(random);
  const auto image = make_image(key, random, "disk");
  REQUIRE(server.data().create_image(image).ok());
  const Objects objects = make_objects(key.domain_key(), 20, random, 1);
  REQUIRE(remote->put(image.id, objects.items(), Priority::kWriteBack).ok());
  REQUIRE(get_one(*remote, image.id, objects.keys[0]).ok());
  auto events = remote->watch({image.id}, {}).value();
  for (int first = 0; first < 2; ++first)  // ready, and the image's branches
    REQUIRE(events->next(std::chrono::seconds(30)).ok());

  server.behaviour().set([](Behaviour& b) { b.hold_get = true; });
  Status waiting;
  std::thread caller([&] { waiting = get_one(*remote, image.id, objects.keys[1]); });
  REQUIRE(
      eventually(server.behaviour(), [](const Behaviour& b) { return b.gets_waiting_max == 1; }));
  server.stop();
  caller.join();
  REQUIRE(!waiting.ok());
  CHECK(waiting.error().code == ErrorCode::kUnavailable);
  CHECK(events->next(std::chrono::seconds(30)).error().code == ErrorCode::kUnavailable);
  CHECK(get_one(*remote, image.id, objects.keys[1]).error().code == ErrorCode::kUnavailable);
  CHECK(eventually([&] { return !remote->counters().connected; }));

  server.behaviour().set([](Behaviour& b) { b.hold_get = false; });
  server.start();
  CHECK(eventually([&] { return get_one(*remote, image.id, objects.keys[1]).ok(); }));
  CHECK(eventually([&] { return remote->has(image.id, objects.keys).ok(); }));
  CHECK(server.behaviour().hellos >= 2);
}

TEST_CASE("a broken stream fails those who wait on it, and only the next use opens another") {
  ClientFixture f;
  const Objects objects = f.stored_objects(5, 1);
  f.server.behaviour().set([](Behaviour& b) { b.break_streams = true; });
  CHECK(get_one(*f.remote, f.image.id, objects.keys[0]).error().code == ErrorCode::kUnavailable);
  CHECK(f.server.behaviour().get_streams == 1);
  CHECK(get_one(*f.remote, f.image.id, objects.keys[0]).ok());
  CHECK(f.server.behaviour().get_streams == 2);
}

TEST_CASE("a cut line under load loses no answer and gives no wrong one") {
  ClientFixture f;
  const Objects objects = f.stored_objects(200, 4);
  Link link(f.server.address(), {});
  client::ClientOptions options;
  options.address = link.address();
  const auto remote = client::connect(options).value();
  std::atomic<int> wrong{0}, rounds{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> callers;
  for (unsigned t = 0; t < 4; ++t) {
    callers.emplace_back([&, t] {
      SeededRandom random(seed() + t);
      while (!stop) {
        std::size_t answers = 0;
        const Status status =
            remote->get(f.image.id, objects.keys, t % 2 == 0 ? Priority::kDemand : Priority::kBoot,
                        [&](std::size_t index, const Result<Bytes>& object) {
                          ++answers;
                          if (!object.ok() || *object != objects.bytes[index]) ++wrong;
                        });
        if (status.ok() && answers != objects.keys.size()) ++wrong;
        if (!status.ok() && status.error().code != ErrorCode::kUnavailable) ++wrong;
        if (status.ok()) ++rounds;
      }
    });
  }
  for (int cut = 0; cut < 5; ++cut) {
    const int before = rounds;
    CHECK(eventually([&] { return rounds >= before + 4; }));  // it recovered from the last one
    link.cut();
  }
  const int before = rounds;
  CHECK(eventually([&] { return rounds >= before + 4; }));
  stop = true;
  for (auto& caller : callers) caller.join();
  CHECK(wrong == 0);
}

TEST_CASE("shutdown ends every kind of waiting call as cancelled") {
  ClientFixture f([](client::ClientOptions& options) {
    options.put_bytes_in_flight_max = 64 * kKiB;
    options.put_request_bytes = 32 * kKiB;
  });
  const Objects objects = f.stored_objects(200, 1);
  const Objects fresh = make_objects(f.key.domain_key(), 50, f.random, 2);
  f.server.behaviour().set(
      [](Behaviour& b) { b.hold_get = b.hold_put = b.hold_unary = b.hold_diff = true; });
  auto events = f.remote->watch({f.image.id}, {}).value();
  for (int first = 0; first < 2; ++first)  // ready, and the image's branches
    REQUIRE(events->next(std::chrono::seconds(30)).ok());
  std::mutex mutex;
  std::vector<ErrorCode> codes;
  std::atomic<int> started{0};
  const auto note = [&](const auto& outcome) {
    std::lock_guard lock(mutex);
    codes.push_back(outcome.ok() ? ErrorCode::kInternal : outcome.error().code);
  };
  std::vector<std::thread> callers;
  const auto start = [&](auto call) {
    callers.emplace_back([&, call] {
      ++started;
      note(call());
    });
  };
  const auto items = fresh.items();
  start([&] { return get_one(*f.remote, f.image.id, objects.keys[0]); });
  start([&] { return get_one(*f.remote, f.image.id, objects.keys[1], Priority::kPrefetch); });
  start([&] {
    return f.remote->put(f.image.id, items, Priority::kWriteBack);
  });  // waits for the budget
  start([&] { return f.remote->put(f.image.id, std::span(items).first(1), Priority::kWriteBack); });
  start([&] { return f.remote->commit({f.image.id, {}, 0, {}, Bytes(448)}); });
  start([&] {
    return f.remote->diff(f.image.id, {}, {}, [](const contract::DiffPart&) { return true; });
  });
  start([&] { return events->next(std::chrono::hours(1)); });
  REQUIRE(eventually(f.server.behaviour(), [&](const Behaviour& b) {
    return started == 7 && b.get_streams == 2 && b.put_bytes_waiting > 0;
  }));
  f.remote->shutdown();
  for (auto& caller : callers) caller.join();
  CHECK(codes == std::vector<ErrorCode>(7, ErrorCode::kCancelled));
  CHECK(get_one(*f.remote, f.image.id, objects.keys[0]).error().code == ErrorCode::kCancelled);
  CHECK(f.remote->hello().error().code == ErrorCode::kCancelled);
  CHECK(f.remote->watch({}, {}).error().code == ErrorCode::kCancelled);
  f.remote.reset();
  CHECK(events->next(std::chrono::hours(1)).error().code ==
        ErrorCode::kCancelled);  // it outlives the client
}

TEST_CASE(
    "announcements that nobody reads wait at the server, and their stream can still be ended") {
  ClientFixture f;
  auto events = f.remote->watch({}, {}).value();
  REQUIRE(events->next(std::chrono::seconds(30)).ok());
  std::vector<ImageId> removed;
  for (int i = 0; i < 300; ++i) {
    const auto image = make_image(f.key, f.random, "x");
    REQUIRE(f.server.data().create_image(image).ok());
    REQUIRE(f.server.data().remove_image(image.id).ok());
    removed.push_back(image.id);
  }
  for (int i = 0; i < 150; ++i) {
    const auto event = events->next(std::chrono::seconds(30));
    REQUIRE(event.ok());
    CHECK(event->image == removed[static_cast<std::size_t>(i)]);
  }
  SECTION("by dropping it") { events.reset(); }
  SECTION("by shutting down") { f.remote->shutdown(); }
  SECTION("by ending the client") {}
  f.remote.reset();
}

// A measurement, not a test: run with the tag [link]. The line: 50 Mbit/s, 20 ms there and back.
TEST_CASE("concurrent gets fill a long line", "[.][link]") {
  ClientFixture f;
  const Objects objects = f.stored_objects(1500, 8);
  std::uint64_t bytes = 0;
  for (const Bytes& object : objects.bytes) bytes += object.size();
  constexpr std::uint64_t kRate = 50'000'000 / 8;
  const int trip_ms = std::getenv("LINK_MS") != nullptr ? std::atoi(std::getenv("LINK_MS")) : 20;
  Link link(f.server.address(), {std::chrono::milliseconds(trip_ms / 2), kRate, 256 * kKiB});
  client::ClientOptions options;
  options.address = link.address();
  const auto remote = client::connect(options).value();
  REQUIRE(remote->hello().ok());
  const auto run = [&](const char* what, unsigned callers, std::size_t keys_a_call,
                       Priority priority) {
    std::atomic<std::size_t> next{0};
    std::atomic<int> failed{0};
    const std::uint64_t down = link.bytes_down();
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < callers; ++t) {
      threads.emplace_back([&] {
        for (;;) {
          const std::size_t first = next.fetch_add(keys_a_call);
          if (first >= objects.keys.size()) return;
          const std::size_t count = std::min(keys_a_call, objects.keys.size() - first);
          if (!remote
                   ->get(f.image.id, std::span(objects.keys).subspan(first, count), priority,
                         [&](std::size_t, const Result<Bytes>& object) {
                           failed += object.ok() ? 0 : 1;
                         })
                   .ok()) {
            ++failed;
          }
        }
      });
    }
    for (auto& thread : threads) thread.join();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    CHECK(failed == 0);
    const double share =
        static_cast<double>(link.bytes_down() - down) / seconds / static_cast<double>(kRate);
    WARN(what << ": " << static_cast<double>(bytes) / seconds / 1e6 << " MB/s of objects, "
              << share * 100 << " % of the line in " << seconds << " s");
    return share;
  };
  CHECK(run("one caller, all keys", 1, objects.keys.size(), Priority::kPrefetch) > 0.95);
  CHECK(run("4 callers, 32 keys a call", 4, 32, Priority::kDemand) > 0.95);
  // One object a caller under way: fills the line only while callers x object > rate x trip.
  const double sixteen = run("16 callers, 1 key a call", 16, 1, Priority::kDemand);
  if (trip_ms <= 20) CHECK(sixteen > 0.95);
}
