// A host that moves: when its connections are made anew, and what becomes of the calls under way.
#include <list>
#include <catch2/catch.hpp>

#include "common/client/roaming.h"
#include "tests/support/fake_network.h"
#include "tests/unit/client_fixture.h"

using namespace dims;
using namespace dims::test;
using client::NetworkChange;
using client::NetworkWay;

namespace {

const NetworkWay kHome{"192.0.2.7", 2, "192.0.2.254"};
const NetworkWay kCafe{"198.51.100.9", 3, "198.51.100.1"};

// A Roaming whose rebuilds are only counted.
struct Watched {
  explicit Watched(std::optional<NetworkWay> way) {
    network->set_way(std::move(way));
    roaming = std::make_unique<client::Roaming>(
        client::Roaming::Parts{network, "server.example", [this] { return connected.load(); },
                               [this](const std::string&) { ++rebuilt; }});
  }
  // Until the burst has been looked at.
  void announce(const std::vector<NetworkChange>& burst) {
    const std::uint64_t before = roaming->counts().changes;
    network->announce(burst);
    REQUIRE(eventually([&] { return roaming->counts().changes > before; }));
    REQUIRE(eventually([&] { return roaming->counts().rebuilt == rebuilt; }));
  }

  std::shared_ptr<FakeNetwork> network = std::make_shared<FakeNetwork>();
  std::atomic<bool> connected{true};
  std::atomic<std::uint64_t> rebuilt{0};
  std::unique_ptr<client::Roaming> roaming;
};

NetworkChange gone(const std::string& address) { return {{address}, {}, false}; }
NetworkChange down(unsigned link) { return {{}, {link}, false}; }

}  // namespace

TEST_CASE("changes that concern others leave the connections alone") {
  Watched w(kHome);
  w.announce({NetworkChange{}});                   // a container comes
  w.announce({down(9), gone("172.17.0.1")});       // and goes
  w.announce({NetworkChange{}, NetworkChange{}});  // an address is renewed
  w.network->set_way_to("203.0.113.5", kHome);
  w.roaming->reached("ipv4:203.0.113.5:7000");
  w.network->set_way(kCafe);  // the way to elsewhere changes, the server's does not
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 0);
}

TEST_CASE("another way to the server makes the connections anew, once") {
  Watched w(kHome);
  w.roaming->reached("ipv4:203.0.113.5:7000");
  w.network->set_way(kCafe);
  w.announce({gone(kHome.source), down(2), NetworkChange{}});
  CHECK(w.rebuilt == 1);
  CHECK(w.roaming->counts().because.find(kCafe.source) != std::string::npos);
  CHECK(w.roaming->counts().because.find(kHome.source) != std::string::npos);
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 1);
  NetworkWay other_gateway = kCafe;
  other_gateway.gateway = "198.51.100.2";
  w.network->set_way(other_gateway);
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 2);
}

TEST_CASE("no way at all changes nothing, and what comes after it decides") {
  Watched w(kHome);
  w.network->set_way(std::nullopt);
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 0);
  w.network->set_way(kHome);  // only a route had been away: the connections live
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 0);
  w.network->set_way(std::nullopt);
  w.announce({down(kHome.link)});
  w.network->set_way(kHome);  // the same network? perhaps another with the same numbers
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 1);
  w.network->set_way(std::nullopt);
  w.announce({gone(kHome.source)});
  w.network->set_way(kCafe);
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 2);
}

TEST_CASE("a link or an address that was gone for a moment makes the connections anew") {
  Watched w(kHome);
  w.announce({down(kHome.link), NetworkChange{}});
  CHECK(w.rebuilt == 1);
  w.announce({gone(kHome.source), NetworkChange{}});
  CHECK(w.rebuilt == 2);
  NetworkChange overrun;
  overrun.overrun = true;
  w.announce({overrun});
  CHECK(w.rebuilt == 3);
  w.network->set_way(std::nullopt);
  w.announce({down(kHome.link)});
  w.network->set_way(kHome);
  w.roaming->reached("ipv4:203.0.113.5:7000");  // an answer: what was lost is behind us
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 3);
}

TEST_CASE("a host that gets its first address does not wait for its turn") {
  Watched w(std::nullopt);
  w.connected = false;
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 0);
  w.network->set_way(kHome);
  w.announce({NetworkChange{}});
  CHECK(w.rebuilt == 1);
}

TEST_CASE("the address in a peer is found") {
  CHECK(client::address_of_peer("ipv4:192.0.2.1:7000") == "192.0.2.1");
  CHECK(client::address_of_peer("ipv6:[2001:db8::1]:7000") == "2001:db8::1");
  CHECK(client::address_of_peer("ipv6:%5B2001:db8::1%5D:7000") == "2001:db8::1");
  CHECK(client::address_of_peer("ipv6:%5Bfe80::1%25eth0%5D:7000") == "fe80::1%eth0");
  CHECK(client::address_of_peer("unix:/run/rdim.sock") == "");
  CHECK(client::address_of_peer("") == "");
}

TEST_CASE("this host's own network is seen") {
  const auto network = client::system_network_watch();
  REQUIRE(network);
  const auto own = network->way_to("127.0.0.1");
  REQUIRE(own);
  CHECK(own->source == "127.0.0.1");
  CHECK(own->link != 0);
  CHECK(!network->way_to("not a number"));
  CHECK(!network->way_to(""));
  std::thread waiting([&] {
    NetworkChange change;
    while (network->next(std::nullopt, change) != client::NetworkWatch::Woken::kStopped) {
    }
  });
  network->stop();
  waiting.join();
}

TEST_CASE("calls under way on an old connection end as unavailable, and the next use a new one") {
  const auto network = std::make_shared<FakeNetwork>();
  network->set_way(kHome);
  ClientFixture f([&](client::ClientOptions& options) { options.network = network; });
  const Objects objects = f.stored_objects(5, 1);
  const Objects fresh = make_objects(f.key.domain_key(), 3, f.random, 1);
  auto events = f.remote->watch({f.image.id}, {}).value();
  for (int first = 0; first < 2; ++first)  // ready, and the image's branches
    REQUIRE(events->next(std::chrono::seconds(30)).ok());
  std::atomic<int> woken{0};
  f.remote->on_rebuilt([&] { ++woken; });
  f.server.behaviour().set(
      [](Behaviour& b) { b.hold_get = b.hold_put = b.hold_unary = b.hold_diff = true; });

  std::mutex mutex;
  std::vector<ErrorCode> codes;
  std::list<std::thread> callers;
  const auto start = [&](auto call) {
    callers.emplace_back([&, call] {
      const auto outcome = call();
      std::lock_guard lock(mutex);
      codes.push_back(outcome.ok() ? ErrorCode::kInternal : outcome.error().code);
    });
  };
  const auto get = [&](contract::Priority priority) {
    return f.remote->get(f.image.id, std::span(objects.keys).first(1), priority,
                         [](std::size_t, const Result<Bytes>&) {});
  };
  const auto items = fresh.items();
  start([&] { return get(contract::Priority::kDemand); });
  start([&] { return get(contract::Priority::kPrefetch); });
  start([&] { return f.remote->put(f.image.id, items, contract::Priority::kWriteBack); });
  REQUIRE(eventually(f.server.behaviour(), [](const Behaviour& b) {
    return b.gets_waiting_max >= 1 && b.put_bytes_waiting > 0;
  }));
  network->set_way(kCafe);
  network->announce({gone(kHome.source)});
  for (auto& caller : callers) caller.join();
  CHECK(codes == std::vector<ErrorCode>(3, ErrorCode::kUnavailable));
  CHECK(events->next(std::chrono::seconds(30)).error().code == ErrorCode::kUnavailable);
  REQUIRE(eventually([&] { return woken == 1; }));

  f.server.behaviour().set(
      [](Behaviour& b) { b.hold_get = b.hold_put = b.hold_unary = b.hold_diff = false; });
  CHECK(get(contract::Priority::kDemand).ok());
  CHECK(f.remote->put(f.image.id, items, contract::Priority::kWriteBack).ok());
  CHECK(f.remote->list_images().ok());
  CHECK(f.remote->watch({f.image.id}, {}).ok());
  const contract::RemoteCounters counters = f.remote->counters();
  CHECK(counters.rebuilt == 1);
  CHECK(counters.losses == 0);
  CHECK(counters.network_changes == 1);
  CHECK(f.server.behaviour().hellos == 2);
  f.remote->on_rebuilt({});
  // Without anybody who calls, and while nothing is under way.
  network->set_way(kHome);
  network->announce({NetworkChange{}});
  REQUIRE(eventually([&] { return f.remote->counters().rebuilt == 2; }));
  CHECK(eventually([&] { return f.remote->list_images().ok(); }));
  CHECK(woken == 1);
}

TEST_CASE("a call that blocks its caller does not outlive its connection") {
  const auto network = std::make_shared<FakeNetwork>();
  network->set_way(kHome);
  ClientFixture f([&](client::ClientOptions& options) { options.network = network; });
  REQUIRE(f.remote->list_images().ok());
  f.server.behaviour().set([](Behaviour& b) { b.hold_unary = true; });
  std::atomic<bool> ended{false};
  Result<contract::CommitAnswer> answer = make_error(ErrorCode::kInternal, "not asked");
  std::thread caller([&] {
    answer = f.remote->commit({f.image.id, {}, 0, {}, Bytes(448)});
    ended = true;
  });
  // Whenever it is under way: the network changes until it has ended.
  CHECK(eventually([&] {
    network->announce({down(kHome.link)});
    return ended.load();
  }));
  f.server.behaviour().set([](Behaviour& b) { b.hold_unary = false; });
  caller.join();
  REQUIRE(!answer.ok());
  CHECK(answer.error().code == ErrorCode::kUnavailable);
}
