// Who may write, when, and what the others are told.
#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::test;
using Kind = contract::ServerEvent::Kind;

TEST_CASE_METHOD(CatalogFixture, "one holder at a time, named to whoever asks") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  CHECK(lease.term == std::chrono::seconds(60));
  clock.advance(std::chrono::seconds(20));
  const auto refused = catalog->acquire_lease(lease_request(image, 2));
  REQUIRE(code_of(refused) == ErrorCode::kLeaseHeld);
  CHECK(refused.error().holder.find("machine pc1") == 0);
  CHECK(refused.error().holder.find("for 40 s more") != std::string::npos);
  CHECK(!refused.error().hint.empty());
  const auto holder = catalog->get_image(image.id)->holder;
  REQUIRE(holder);
  CHECK(holder->machine_name == "pc1");
  CHECK(holder->expires_in == std::chrono::seconds(40));
}

TEST_CASE_METHOD(CatalogFixture, "the holder's session gets its own lease again") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  clock.advance(std::chrono::seconds(50));
  SECTION("while it runs") {}
  SECTION("after it has expired and nobody took it") { clock.advance(std::chrono::hours(5)); }
  SECTION("after a restart") { restart(); }
  const auto again = acquire(image, 1);
  CHECK(again.lease == lease.lease);
  CHECK(again.token == lease.token);
  CHECK(catalog->get_image(image.id)->holder->expires_in == std::chrono::seconds(60));
  // Another session of the same machine is another holder.
  auto other = lease_request(image, 1);
  other.session.bytes[0] = 99;
  CHECK(code_of(catalog->acquire_lease(other)) == ErrorCode::kLeaseHeld);
}

TEST_CASE_METHOD(CatalogFixture, "the token grows with every holder, also over restarts") {
  const ImageInfo image = make_image("disk");
  std::uint64_t token = 0;
  for (std::uint8_t session = 1; session < 6; ++session) {
    const auto lease = acquire(image, session);
    CHECK(lease.token > token);
    token = lease.token;
    REQUIRE(catalog->release_lease(image.id, lease).ok());
    if (session % 2 == 0) restart();
  }
}

TEST_CASE_METHOD(CatalogFixture, "a release frees at once and may be repeated") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  CHECK(catalog->release_lease(image.id, lease).ok());
  CHECK(!catalog->get_image(image.id)->holder);
  CHECK(catalog->release_lease(image.id, lease).ok());
  const auto next = acquire(image, 2);
  CHECK(code_of(catalog->release_lease(image.id, lease)) == ErrorCode::kStaleLease);
  CHECK(catalog->renew_lease(image.id, next).ok());
  restart();
  CHECK(catalog->get_image(image.id)->holder->machine_name == "pc2");
}

TEST_CASE_METHOD(CatalogFixture, "renewing keeps the lease; only a new holder ends it") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  for (int i = 0; i < 10; ++i) {
    clock.advance(std::chrono::seconds(50));
    CHECK(catalog->renew_lease(image.id, lease).ok());
  }
  CHECK(code_of(catalog->acquire_lease(lease_request(image, 2))) == ErrorCode::kLeaseHeld);
  clock.advance(std::chrono::seconds(61));
  CHECK(catalog->get_image(image.id)->holder->expires_in.count() == 0);
  CHECK(catalog->renew_lease(image.id, lease).ok());  // nobody took it
  clock.advance(std::chrono::seconds(61));
  const auto next = acquire(image, 2);
  CHECK(next.token > lease.token);
  CHECK(code_of(catalog->renew_lease(image.id, lease)) == ErrorCode::kStaleLease);
  CHECK(code_of(catalog->acquire_lease(lease_request(image, 1))) == ErrorCode::kLeaseHeld);
}

TEST_CASE_METHOD(CatalogFixture, "after a restart every lease has a full term") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  clock.advance(std::chrono::seconds(59));
  restart();
  clock.advance(std::chrono::seconds(59));
  CHECK(code_of(catalog->acquire_lease(lease_request(image, 2))) == ErrorCode::kLeaseHeld);
  CHECK(catalog->renew_lease(image.id, lease).ok());
  clock.advance(std::chrono::seconds(61));
  CHECK(catalog->acquire_lease(lease_request(image, 2)).ok());
}

TEST_CASE_METHOD(CatalogFixture, "a take-over ends the other's lease and tells him") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  const auto of_session = [&](std::uint8_t number) {
    SessionId session;
    session.bytes[0] = number;
    return catalog->events().subscribe({image.id}, session, [] {});
  };
  const auto loser = of_session(1), bystander = of_session(3);
  const auto observer = catalog->events().subscribe({}, SessionId{}, [] {});
  CHECK(code_of(catalog->acquire_lease(lease_request(image, 2))) == ErrorCode::kLeaseHeld);
  const auto asked = loser->take();
  REQUIRE(asked);
  CHECK(asked->kind == Kind::kLeaseRequested);
  CHECK(asked->who->machine_name == "pc2");
  auto take = lease_request(image, 2);
  take.take_over = true;
  const auto taken = catalog->acquire_lease(take);
  REQUIRE(taken.ok());
  CHECK(taken->token == lease.token + 1);
  const auto lost = loser->take();
  REQUIRE(lost);
  CHECK(lost->kind == Kind::kLeaseLost);
  CHECK(lost->who->machine_name == "pc2");
  CHECK(!bystander->take());
  CHECK(observer->take()->kind == Kind::kLeaseRequested);
  CHECK(observer->take()->kind == Kind::kLeaseLost);
  CHECK(code_of(catalog->renew_lease(image.id, lease)) == ErrorCode::kStaleLease);
}

TEST_CASE_METHOD(CatalogFixture, "who is fenced loses one image and nothing else") {
  const ImageInfo one = make_image("one"), two = make_image("two");
  const auto lease_of_one = acquire(one, 1);
  const auto lease_of_two = acquire(two, 1);  // the same machine, from the same address
  auto take = lease_request(one, 2);
  take.take_over = true;
  REQUIRE(catalog->acquire_lease(take).ok());
  CHECK(code_of(catalog->renew_lease(one.id, lease_of_one)) == ErrorCode::kStaleLease);
  CHECK(catalog->renew_lease(two.id, lease_of_two).ok());
  commit_tree(two, lease_of_two);
}

TEST_CASE_METHOD(CatalogFixture, "an expired lease that somebody takes is announced as lost") {
  const ImageInfo image = make_image("disk");
  acquire(image, 1);
  SessionId session;
  session.bytes[0] = 1;
  const auto loser = catalog->events().subscribe({image.id}, session, [] {});
  clock.advance(std::chrono::seconds(61));
  acquire(image, 2);
  const auto lost = loser->take();
  REQUIRE(lost);
  CHECK(lost->kind == Kind::kLeaseLost);
}

TEST_CASE_METHOD(CatalogFixture, "a slow watcher keeps the newest events in bounded memory") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  const auto watcher = catalog->events().subscribe({image.id}, SessionId{}, [] {});
  const auto stopped = catalog->events().subscribe({image.id}, SessionId{}, [] { FAIL("woken"); });
  stopped->stop();
  VersionId newest;
  for (int i = 0; i < 20; ++i) newest = commit_tree(image, lease);
  const auto event = watcher->take();
  REQUIRE(event);
  CHECK(event->version == newest);
  CHECK(event->sequence == 20);
  CHECK(!watcher->take());
  CHECK(!stopped->take());
}

TEST_CASE_METHOD(CatalogFixture,
                 "a machine that lost its lease unreleased stays named until it reports") {
  const ImageInfo image = make_image("disk");
  auto first = acquire(image, 1);
  first.unsent_bytes = 4096;
  REQUIRE(catalog->renew_lease(image.id, first).ok());
  clock.advance(std::chrono::seconds(61));
  CHECK(catalog->get_image(image.id)->unsent.empty());  // the expired holder is still the holder
  const auto second = acquire(image, 2);
  const auto named = [&] { return catalog->get_image(image.id)->unsent; };
  REQUIRE(named().size() == 1);
  CHECK(named()[0].machine_name == "pc1");
  CHECK(named()[0].unsent_bytes == 4096);
  restart();
  REQUIRE(named().size() == 1);  // it is in the record
  REQUIRE(catalog->release_lease(image.id, second).ok());
  CHECK(named().size() == 1);  // the other's clean end says nothing about it

  contract::SessionRequest session;
  session.image = image.id;
  session.session.bytes[0] = 1;
  session.machine.bytes[0] = 1;
  session.machine_name = "pc1";
  session.mode = "personal";
  SECTION("it says that it has something left") {
    session.unsent_bytes = 512;
    REQUIRE(catalog->open_session(session).ok());
    REQUIRE(named().size() == 1);
    CHECK(named()[0].unsent_bytes == 512);
  }
  SECTION("it says that it has nothing left") {
    REQUIRE(catalog->open_session(session).ok());
    CHECK(named().empty());
  }
  SECTION("a session without writes is no report") {
    session.mode = "readonly";
    REQUIRE(catalog->open_session(session).ok());
    CHECK(named().size() == 1);
  }
  SECTION("it gets the lease again") {
    acquire(image, 1);
    CHECK(named().empty());
  }
  SECTION("it commits on its conflict branch") {
    ImageInfo branch = wanted("disk.conflict-pc1-1");
    branch.conflict_of = "disk";
    const auto made = catalog->create_image(branch);
    REQUIRE(made.ok());
    const auto lease = acquire(*made, 1);
    CHECK(named().size() == 1);
    commit_tree(*made, lease);
    CHECK(named().empty());
  }
  SECTION("an administrator forgets it") {
    MachineId machine;
    machine.bytes[0] = 1;
    REQUIRE(catalog->forget_unsent(image.id, machine).ok());
    CHECK(named().empty());
    CHECK(code_of(catalog->forget_unsent(image.id, machine)) == ErrorCode::kNotFound);
  }
}

TEST_CASE_METHOD(
    CatalogFixture,
    "an administrator ends the sessions of a machine that only read and never came back") {
  const ImageInfo image = make_image("disk");
  contract::SessionRequest session;
  session.image = image.id;
  session.session.bytes[0] = 1;
  session.machine.bytes[0] = 1;
  session.machine_name = "pc1";
  session.mode = "readonly";
  REQUIRE(catalog->open_session(session).ok());
  const std::string row = catalog::session_key(image.id, session.session);
  MachineId other;
  other.bytes[0] = 2;
  CHECK(code_of(catalog->forget_unsent(image.id, other)) == ErrorCode::kNotFound);
  CHECK(refs.get(row)->has_value());
  CHECK(catalog->forget_unsent(image.id, session.machine).ok());
  CHECK(!refs.get(row)->has_value());
  CHECK(code_of(catalog->forget_unsent(image.id, session.machine)) == ErrorCode::kNotFound);
}

TEST_CASE_METHOD(CatalogFixture,
                 "who takes over from a living holder names it; a hand-off names nobody") {
  const ImageInfo image = make_image("disk");
  const auto first = acquire(image, 1);
  auto taking = lease_request(image, 2);
  SECTION("take-over") {
    taking.take_over = true;
    REQUIRE(catalog->acquire_lease(taking).ok());
    REQUIRE(catalog->get_image(image.id)->unsent.size() == 1);
  }
  SECTION("the holder released") {
    REQUIRE(catalog->release_lease(image.id, first).ok());
    REQUIRE(catalog->acquire_lease(taking).ok());
    CHECK(catalog->get_image(image.id)->unsent.empty());
  }
}
