// The calls of the contract, run against the real client over the wire and against the fake: both
// must agree.
#include <catch2/catch.hpp>

#include "common/format/version.h"
#include "tests/support/fake_remote.h"
#include "tests/unit/client_fixture.h"

using namespace dims;
using namespace dims::test;
using contract::ServerEvent;

namespace {

// A small tree in the store and the record of a version that names it.
struct Draft {
  Objects objects;  // chunk, leaf
  Bytes record;
  VersionId id;
};

class Story {
 public:
  // data: what the server holds, where the test can look into it.
  Story(contract::Remote& remote, FakeServer* data) : remote_(remote), data_(data) {}

  Draft draft(const VersionId& parent, std::uint64_t sequence, const format::CommitPoint& commit) {
    Bytes page(kPageBytes);
    random_.fill(page);
    const auto chunk = format::seal_chunk(key_.domain_key(), page);
    format::Leaf leaf;
    leaf.extents.push_back({3, 1, 0, chunk.ref});
    const auto node = format::encode_leaf(key_.domain_key(), leaf);
    format::VersionRecord record;
    record.org = key_.org;
    record.parent = parent;
    record.image = image_.id;
    record.root = node.ref.object_key();
    record.image_bytes = image_.image_bytes;
    record.sequence = sequence;
    record.commit = commit;
    format::seal_root_key(record, key_.image_key(image_.id), node.ref.key, random_);
    Draft out;
    out.objects = {{chunk.ref.object_key(), node.ref.object_key()}, {chunk.bytes, node.bytes}};
    out.record = format::encode_version(record, key_.signing);
    out.id = format::version_id(out.record);
    return out;
  }

  void run() {
    images();
    sessions_and_leases();
    commits();
    differences();
    ends();
  }

 private:
  void images() {
    if (data_ != nullptr) CHECK(remote_.hello()->generation == data_->hello().generation);
    const auto missing = remote_.find_image("disk");
    REQUIRE(!missing.ok());
    CHECK(missing.error().code == ErrorCode::kNotFound);
    CHECK(!missing.error().hint.empty());
    for (const char* name : {"a", "disk", "e", "f", "g"}) {
      const auto made = remote_.create_image(
          name == std::string("disk") ? image_ : make_image(key_, random_, name));
      REQUIRE(made.ok());
      CHECK(made->name == name);
    }
    CHECK(remote_.create_image(image_).ok());  // the id is the idempotency key
    CHECK(remote_.create_image(make_image(key_, random_, "disk")).error().code ==
          ErrorCode::kAlreadyExists);
    const auto list = remote_.list_images();
    REQUIRE(list.ok());
    REQUIRE(list->size() == 5);
    CHECK((*list)[4].name == "g");
    for (const auto& found : {remote_.find_image("disk"), remote_.get_image(image_.id)}) {
      REQUIRE(found.ok());
      CHECK(found->id == image_.id);
      CHECK(found->image_bytes == image_.image_bytes);
      CHECK(found->tree == image_.tree);
      CHECK(found->domain == image_.domain);
      CHECK(found->key_check == image_.key_check);
      CHECK(found->head.is_zero());
      CHECK(!found->holder);
    }
    CHECK(remote_.get_version(image_.id, {}, 0).error().code == ErrorCode::kNotFound);
  }

  void sessions_and_leases() {
    session_ = {image_.id, random_.id<SessionId>(), random_.id<MachineId>(), "one", "personal", {},
                journal_};
    const auto opened = remote_.open_session(session_);
    REQUIRE(opened.ok());
    CHECK(opened->image.name == "disk");
    CHECK(!opened->newest_of_journal);
    if (data_ != nullptr) CHECK(data_->open_sessions(image_.id) == 1);
    auto elsewhere = session_;
    elsewhere.base = random_.id<VersionId>();
    CHECK(remote_.open_session(elsewhere).error().code == ErrorCode::kOtherHistory);

    contract::LeaseRequest ask{image_.id, session_.session, session_.machine, "one", false};
    const auto lease = remote_.acquire_lease(ask);
    REQUIRE(lease.ok());
    CHECK(lease->term.count() > 0);
    CHECK(remote_.acquire_lease(ask)->lease == lease->lease);
    contract::LeaseRequest other{image_.id, random_.id<SessionId>(), random_.id<MachineId>(), "two",
                                 false};
    const auto refused = remote_.acquire_lease(other);
    REQUIRE(!refused.ok());
    CHECK(refused.error().code == ErrorCode::kLeaseHeld);
    CHECK(refused.error().holder.find("one") != std::string::npos);
    const auto shown = remote_.get_image(image_.id);
    REQUIRE(shown->holder);
    CHECK(shown->holder->machine_name == "one");
    CHECK(shown->holder->machine == session_.machine);
    CHECK(shown->holder->expires_in.count() > 0);
    other.take_over = true;
    const auto taken = remote_.acquire_lease(other);
    REQUIRE(taken.ok());
    CHECK(taken->token > lease->token);
    CHECK(remote_.renew_lease(image_.id, *lease).error().code == ErrorCode::kStaleLease);
    CHECK(remote_.renew_lease(image_.id, *taken).ok());
    CHECK(remote_.release_lease(image_.id, *taken).ok());
    CHECK(remote_.release_lease(image_.id, *taken).ok());  // its first answer may have been lost
    lease_ = remote_.acquire_lease(ask).value();
  }

  contract::CommitOrder order(const Draft& draft, const VersionId& parent) {
    return {image_.id, lease_.lease, lease_.token, parent, draft.record};
  }

  void commits() {
    first_ = draft({}, 1, {journal_, 5, random_.id<Digest>()});
    const auto lacking = remote_.commit(order(first_, {}));
    REQUIRE(lacking.ok());
    CHECK(lacking->missing ==
          std::vector{first_.objects.keys[1]});  // what lies below it is not known yet
    if (data_ != nullptr) CHECK(data_->head(image_.id).is_zero());
    REQUIRE(remote_.put(image_.id, first_.objects.items(), contract::Priority::kWriteBack).ok());
    auto stale = order(first_, {});
    ++stale.token;
    CHECK(remote_.commit(stale).error().code == ErrorCode::kStaleLease);
    const auto done = remote_.commit(order(first_, {}));
    REQUIRE(done.ok());
    CHECK(done->version == first_.id);
    CHECK(done->sequence == 1);
    CHECK(!done->repeated);
    const auto again = remote_.commit(stale);  // the commit id is looked at before the token
    REQUIRE(again.ok());
    CHECK(again->repeated);
    CHECK(again->version == first_.id);

    const Draft side = draft({}, 1, {random_.id<JournalId>(), 1, {}});
    REQUIRE(remote_.put(image_.id, side.objects.items(), contract::Priority::kWriteBack).ok());
    CHECK(remote_.commit(order(side, {})).error().code == ErrorCode::kConflict);
    const Draft old = draft(first_.id, 2, {journal_, 5, random_.id<Digest>()});
    CHECK(remote_.commit(order(old, first_.id)).error().code == ErrorCode::kOtherHistory);

    second_ = draft(first_.id, 2, {journal_, 9, random_.id<Digest>()});
    REQUIRE(remote_.put(image_.id, second_.objects.items(), contract::Priority::kWriteBack).ok());
    CHECK(remote_.commit(order(second_, first_.id))->sequence == 2);
    const auto reopened = remote_.open_session(session_);
    REQUIRE(reopened->newest_of_journal);
    CHECK(reopened->newest_of_journal->epoch == 9);
    CHECK(reopened->newest_of_journal->journal == journal_);
    CHECK(reopened->newest_version == second_.id);
  }

  void differences() {
    CHECK(remote_.get_version(image_.id, {}, 0)->id == second_.id);
    CHECK(remote_.get_version(image_.id, first_.id, 0)->record_bytes == first_.record);
    CHECK(remote_.get_version(image_.id, {}, 1)->id == first_.id);
    const auto versions = remote_.list_versions(image_.id, 0);
    REQUIRE(versions->size() == 2);
    CHECK((*versions)[0].id == second_.id);
    CHECK((*versions)[1].record.sequence == 1);
    CHECK(remote_.list_versions(image_.id, 1)->size() == 1);

    std::vector<format::ObjectKey> keys, removed;
    const auto collect = [&](const contract::DiffPart& part) {
      keys.insert(keys.end(), part.keys.begin(), part.keys.end());
      removed.insert(removed.end(), part.removed.begin(), part.removed.end());
      for (std::size_t i = 0; i < part.keys.size(); ++i)
        CHECK(format::object_id(part.nodes[i]) == part.keys[i].id);
      return true;
    };
    CHECK(remote_.diff(image_.id, first_.id, second_.id, collect).ok());
    CHECK(keys == std::vector{second_.objects.keys[1]});
    CHECK(removed == std::vector{first_.objects.keys[1]});
    keys.clear();
    CHECK(remote_.diff(image_.id, {}, first_.id, collect).ok());
    CHECK(keys == std::vector{first_.objects.keys[1]});
    const auto stopped =
        remote_.diff(image_.id, {}, second_.id, [](const contract::DiffPart&) { return false; });
    CHECK(stopped.error().code == ErrorCode::kCancelled);
    keys.clear();
    removed.clear();
    CHECK(remote_.diff(image_.id, random_.id<VersionId>(), second_.id, collect)
              .ok());  // as if it were empty
    CHECK(keys == std::vector{second_.objects.keys[1]});
    CHECK(removed.empty());
    const auto unknown = remote_.diff(image_.id, first_.id, random_.id<VersionId>(), collect);
    REQUIRE(!unknown.ok());
    CHECK(unknown.error().code == ErrorCode::kOtherHistory);
  }

  // Announcements, the clean release and the removal.
  void ends() {
    using Kind = ServerEvent::Kind;
    auto events = remote_.watch({image_.id}, session_.session).value();
    const auto next = [&] { return events->next(std::chrono::seconds(30)); };
    REQUIRE(next()->kind == Kind::kReady);
    const auto none = next();
    REQUIRE(none.ok());
    CHECK(none->kind == Kind::kBranches);
    CHECK(none->image == image_.id);
    CHECK(none->branches.empty());
    CHECK(events->next(std::chrono::milliseconds(1)).error().code == ErrorCode::kDeadlineExceeded);
    const Draft third = draft(second_.id, 3, {journal_, 10, random_.id<Digest>()});
    REQUIRE(remote_.put(image_.id, third.objects.items(), contract::Priority::kDemand).ok());
    REQUIRE(remote_.commit(order(third, second_.id)).ok());
    const auto announced = next();
    REQUIRE(announced.ok());
    CHECK(announced->kind == Kind::kNewVersion);
    CHECK(announced->version == third.id);
    CHECK(announced->sequence == 3);
    CHECK(announced->who->machine_name == "one");
    contract::LeaseRequest other{image_.id, random_.id<SessionId>(), random_.id<MachineId>(), "two",
                                 false};
    CHECK(!remote_.acquire_lease(other).ok());
    const auto asked = next();
    REQUIRE(asked.ok());
    CHECK(asked->kind == Kind::kLeaseRequested);
    CHECK(asked->who->machine_name == "two");
    other.take_over = true;
    const auto taken = remote_.acquire_lease(other);
    REQUIRE(taken.ok());
    CHECK(next()->kind == Kind::kLeaseLost);
    CHECK(remote_.close_session(image_.id, session_.session).ok());
    if (data_ != nullptr) CHECK(data_->open_sessions(image_.id) == 0);
    const auto info = remote_.store_info();
    REQUIRE(info.ok());
    CHECK(info->images == 5);
    CHECK(info->objects == 8);
    CHECK(info->puts_stored == 8);
    if (data_ != nullptr) CHECK(info->generation == data_->hello().generation);
    CHECK(remote_.remove_image(image_.id).error().code == ErrorCode::kLeaseHeld);
    REQUIRE(remote_.release_lease(image_.id, *taken).ok());
    REQUIRE(remote_.remove_image(image_.id).ok());
    CHECK(next()->kind == Kind::kRemoved);
    CHECK(remote_.remove_image(image_.id).error().code == ErrorCode::kNotFound);
    remote_.shutdown();
    CHECK(next().error().code == ErrorCode::kCancelled);
    CHECK(remote_.list_images().error().code == ErrorCode::kCancelled);
  }

  contract::Remote& remote_;
  FakeServer* data_;
  SeededRandom random_{seed()};
  format::KeyFile key_ = format::generate_key_file(random_);
  contract::ImageInfo image_ = make_image(key_, random_, "disk", kMiB);
  JournalId journal_ = random_.id<JournalId>();
  contract::SessionRequest session_;
  contract::LeaseGrant lease_;
  Draft first_, second_;
};

}  // namespace

TEST_CASE("every call arrives and is answered over the wire") {
  TestServer server;
  client::ClientOptions options;
  options.address = server.address();
  const auto remote = client::connect(options).value();
  Story(*remote, &server.data()).run();
}

// Against a server that runs already and is empty: DIMS_TEST_SERVER=HOST:PORT test_client
// "[server]".
TEST_CASE("every call is answered by a server of its own process", "[.][server]") {
  REQUIRE(std::getenv("DIMS_TEST_SERVER") != nullptr);
  client::ClientOptions options;
  options.address = std::getenv("DIMS_TEST_SERVER");
  const auto remote = client::connect(options).value();
  Story(*remote, nullptr).run();
}

TEST_CASE("the fake server keeps the same rules without a wire") {
  FakeRemote remote;
  Story(remote, &remote.server()).run();
}

TEST_CASE("the fake's network can be spoiled") {
  FakeRemote remote;
  SeededRandom random(seed());
  const auto key = format::generate_key_file(random);
  const auto image = make_image(key, random, "disk");
  REQUIRE(remote.create_image(image).ok());
  const Objects objects = make_objects(key.domain_key(), 3, random, 1);

  remote.lose_replies(RemoteCall::kPut, 1);
  const auto lost = remote.put(image.id, objects.items(), contract::Priority::kWriteBack);
  CHECK(lost.error().code == ErrorCode::kUnavailable);
  CHECK(remote.server().object_count() == 3);
  CHECK(*remote.put(image.id, objects.items(), contract::Priority::kWriteBack) == 0);

  remote.fail(RemoteCall::kHas, make_error(ErrorCode::kNoSpace, "full"));
  CHECK(remote.has(image.id, objects.keys).error().code == ErrorCode::kNoSpace);
  CHECK(remote.has(image.id, objects.keys).ok());

  remote.server().damage_object(objects.keys[1]);
  std::vector<bool> good;
  const auto sink = [&](std::size_t, const Result<Bytes>& object) { good.push_back(object.ok()); };
  REQUIRE(remote.get(image.id, objects.keys, contract::Priority::kDemand, sink).ok());
  CHECK(good == std::vector{true, false, true});
  CHECK(remote.keys_got() == objects.keys);
  CHECK(remote.calls(RemoteCall::kGet) == 1);

  remote.hold(RemoteCall::kGet);
  std::thread away([&] {
    CHECK(remote.get(image.id, objects.keys, contract::Priority::kDemand, sink).error().code ==
          ErrorCode::kUnavailable);
  });
  REQUIRE(eventually([&] { return remote.waiting(RemoteCall::kGet) == 1; }));
  auto events = remote.watch({}, {}).value();
  CHECK(events->next(std::chrono::seconds(0)).ok());
  remote.set_available(false);
  away.join();
  CHECK(events->next(std::chrono::seconds(1)).error().code == ErrorCode::kUnavailable);
  CHECK(remote.find_image("disk").error().code == ErrorCode::kUnavailable);
  remote.set_available(true);
  remote.release(RemoteCall::kGet);
  CHECK(remote.find_image("disk").ok());
}
