// Images, names, versions, sessions.
#include "tests/unit/catalog_fixture.h"

using namespace dims;
using namespace dims::test;

TEST_CASE_METHOD(CatalogFixture, "an image is found by name and id, also after a restart") {
  const ImageInfo image = make_image("lab/debian-12.default");
  restart();
  const auto by_name = catalog->find_image("lab/debian-12.default");
  REQUIRE(by_name.ok());
  CHECK(by_name->id == image.id);
  CHECK(by_name->key_check == image.key_check);
  CHECK(by_name->image_bytes == kImageBytes);
  CHECK(catalog->get_image(image.id)->name == image.name);
  CHECK(code_of(catalog->find_image("nobody")) == ErrorCode::kNotFound);
  CHECK(code_of(catalog->get_image(random.id<ImageId>())) == ErrorCode::kNotFound);
}

TEST_CASE_METHOD(CatalogFixture, "creating the same image again is the first answer again") {
  const ImageInfo asked = wanted("disk");
  REQUIRE(catalog->create_image(asked).ok());
  CHECK(catalog->create_image(asked)->id == asked.id);
  ImageInfo other = asked;
  other.id = random.id<ImageId>();
  CHECK(code_of(catalog->create_image(other)) == ErrorCode::kAlreadyExists);  // the name
  other = asked;
  other.name = "elsewhere";
  CHECK(code_of(catalog->create_image(other)) == ErrorCode::kAlreadyExists);  // the id
  CHECK(catalog->image_count() == 1);
}

TEST_CASE_METHOD(CatalogFixture, "a creation that was cut short after the name can be repeated") {
  const ImageInfo asked = wanted("disk");
  REQUIRE(refs.put(catalog::name_key("disk"), random.id<ImageId>().view(), 0).ok());
  restart();
  CHECK(code_of(catalog->find_image("disk")) == ErrorCode::kNotFound);
  CHECK(catalog->create_image(asked).ok());
}

TEST_CASE_METHOD(CatalogFixture, "names that are none are refused") {
  for (const char* bad : {"", "/", "a//b", "/a", "a/", "..", "a/../b", ".hidden", "-v", "a b", "ä",
                          "a\nb", "a:b", "a@b"}) {
    INFO(bad);
    CHECK(code_of(catalog->create_image(wanted(bad))) == ErrorCode::kInvalidArgument);
  }
  CHECK(code_of(catalog->create_image(wanted(std::string(129, 'a')))) ==
        ErrorCode::kInvalidArgument);
  CHECK(catalog->create_image(wanted(std::string(128, 'a'))).ok());
  ImageInfo empty = wanted("e");
  empty.image_bytes = 0;
  CHECK(code_of(catalog->create_image(empty)) == ErrorCode::kInvalidArgument);
  ImageInfo odd = wanted("o");
  odd.tree.fanout = 0;
  CHECK(!catalog->create_image(odd).ok());
}

TEST_CASE_METHOD(CatalogFixture, "images are listed by name, in parts") {
  for (const char* name : {"c", "a", "b/2", "b/1"}) make_image(name);
  std::string joined, after;
  for (;;) {
    const auto part = catalog->list_images(after, 3);
    if (part.empty()) break;
    for (const ImageInfo& image : part) joined += image.name + " ";
    after = part.back().name;
  }
  CHECK(joined == "a b/1 b/2 c ");
}

TEST_CASE_METHOD(CatalogFixture, "an image in use is not removed, and says by whom") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  const auto refused = catalog->remove_image(image.id);
  CHECK(code_of(refused) == ErrorCode::kLeaseHeld);
  CHECK(refused.error().holder.find("pc1") != std::string::npos);
  REQUIRE(catalog->release_lease(image.id, lease).ok());
  const auto watcher = catalog->events().subscribe({image.id}, SessionId{}, [] {});
  CHECK(catalog->remove_image(image.id).ok());
  CHECK(watcher->take()->kind == contract::ServerEvent::Kind::kRemoved);
  CHECK(code_of(catalog->find_image("disk")) == ErrorCode::kNotFound);
  CHECK(code_of(catalog->remove_image(image.id)) == ErrorCode::kNotFound);
  restart();
  CHECK(code_of(catalog->get_image(image.id)) == ErrorCode::kNotFound);
  CHECK(make_image("disk").head.is_zero());  // the name is free
}

TEST_CASE_METHOD(CatalogFixture, "an image is removed on conditions: under a lease, at a version") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image, 1);
  const VersionId seen = commit_tree(image, lease);
  contract::ImageRemoval removal(image.id);
  removal.head = seen;
  removal.lease = lease.lease;
  removal.token = lease.token;
  SECTION("as it was seen") { CHECK(catalog->remove_image(removal).ok()); }
  SECTION("its lease has run out, and nobody has taken it") {
    clock.advance(std::chrono::hours(1));
    CHECK(catalog->remove_image(removal).ok());
  }
  SECTION("its machine came back, and has committed") {
    clock.advance(std::chrono::hours(1));
    const auto theirs = acquire(image, 2);
    commit_tree(*catalog->get_image(image.id), theirs);
    CHECK(code_of(catalog->remove_image(removal)) == ErrorCode::kStaleLease);
    REQUIRE(catalog->release_lease(image.id, theirs).ok());
    CHECK(code_of(catalog->remove_image(removal)) == ErrorCode::kStaleLease);
    removal.lease = {};
    CHECK(code_of(catalog->remove_image(removal)) == ErrorCode::kConflict);
    CHECK(catalog->get_image(image.id)->head_sequence == 2);
  }
}

TEST_CASE_METHOD(CatalogFixture, "versions are found by id, by number, and from the head") {
  const ImageInfo image = make_image("disk");
  CHECK(code_of(catalog->get_version(image.id, {}, 0)) == ErrorCode::kNotFound);
  const auto lease = acquire(image);
  std::vector<VersionId> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(commit_tree(image, lease));
  restart();
  CHECK(catalog->get_version(image.id, {}, 0)->id == ids[4]);
  for (std::uint64_t n = 1; n <= 5; ++n) {
    const auto version = catalog->get_version(image.id, {}, n);
    REQUIRE(version.ok());
    CHECK(version->id == ids[n - 1]);
    CHECK(version->record.sequence == n);
    CHECK(format::version_id(version->record_bytes) == version->id);
  }
  CHECK(catalog->get_version(image.id, ids[1], 0)->record.sequence == 2);
  CHECK(code_of(catalog->get_version(image.id, {}, 6)) == ErrorCode::kNotFound);
  CHECK(code_of(catalog->get_version(image.id, random.id<VersionId>(), 0)) == ErrorCode::kNotFound);
}

TEST_CASE_METHOD(CatalogFixture, "a branch begins as its origin and goes its own way") {
  const ImageInfo image = make_image("disk");
  const VersionId origin = commit_tree(image, acquire(image));
  ImageInfo asked = wanted("disk-conflict");
  asked.origin = origin;
  asked.conflict_of = "disk";
  const auto branch = catalog->create_image(asked);
  REQUIRE(branch.ok());
  CHECK(branch->head == origin);
  CHECK(branch->origin == origin);
  CHECK(branch->conflict_of == "disk");
  CHECK(branch->head_sequence == 1);
  const VersionId own = commit_tree(*branch, acquire(*branch));
  CHECK(catalog->get_image(branch->id)->head == own);
  CHECK(catalog->get_image(image.id)->head == origin);
  CHECK(catalog->get_version(branch->id, {}, 1)->id == origin);
  ImageInfo lost = wanted("lost");
  lost.origin = random.id<VersionId>();
  CHECK(code_of(catalog->create_image(lost)) == ErrorCode::kNotFound);
  ImageInfo grown = wanted("grown");
  grown.origin = origin;
  grown.image_bytes *= 2;
  CHECK(code_of(catalog->create_image(grown)) == ErrorCode::kInvalidArgument);
}

TEST_CASE_METHOD(CatalogFixture, "an image's conflict branches are known and announced") {
  const ImageInfo image = make_image("disk");
  const VersionId origin = commit_tree(image, acquire(image));
  make_image("other");
  const auto branch = [&](const std::string& name) {
    ImageInfo asked = wanted(name);
    asked.origin = origin;
    asked.conflict_of = "disk";
    const auto made = catalog->create_image(asked);
    REQUIRE(made.ok());
    CHECK(catalog->create_image(asked).ok());  // the answer was lost
    return *made;
  };
  const auto names = [&](const std::string& of) {
    std::string out;
    for (const auto& one : catalog->branches_of(of)) {
      CHECK(catalog->find_image(one.name)->id == one.id);
      out += one.name + " ";
    }
    return out;
  };
  using Kind = contract::ServerEvent::Kind;
  const auto watcher = catalog->events().subscribe({image.id}, SessionId{}, [] {});
  const auto told = [&] {
    const auto event = watcher->take();
    return event && event->kind == Kind::kBranches && event->image == image.id &&
           !watcher->take();  // said once, however often it is asked for
  };
  CHECK(names("disk").empty());
  const ImageInfo second = branch("disk.conflict-pc2-1");
  CHECK(told());
  const ImageInfo first = branch("disk.conflict-pc1-1");
  CHECK(told());
  CHECK(names("disk") == "disk.conflict-pc1-1 disk.conflict-pc2-1 ");
  CHECK(names("other").empty());
  CHECK(names(first.name).empty());
  restart();
  CHECK(names("disk") == "disk.conflict-pc1-1 disk.conflict-pc2-1 ");
  const auto again = catalog->events().subscribe({image.id}, SessionId{}, [] {});
  REQUIRE(catalog->remove_image(first.id).ok());
  CHECK(again->take()->kind == Kind::kBranches);
  CHECK(names("disk") == "disk.conflict-pc2-1 ");
  REQUIRE(catalog->remove_image(second.id).ok());
  CHECK(names("disk").empty());
}

TEST_CASE_METHOD(CatalogFixture, "a branch in another domain may use its origin's objects") {
  const ImageInfo image = make_image("disk");
  const VersionId origin = commit_tree(image, acquire(image));
  ImageInfo asked = wanted("private");
  asked.origin = origin;
  asked.domain.bytes[0] = 77;
  const auto branch = catalog->create_image(asked);
  REQUIRE(branch.ok());
  restart();
  const std::vector<ObjectKey> old{chunk().ref.object_key()};
  CHECK(catalog->check_access(branch->id, old, catalog::Access::kRead).ok());
  commit_tree(*branch, acquire(*branch));  // its tree lies in the origin's domain
}

TEST_CASE_METHOD(CatalogFixture, "a session pins its base and learns its journal's newest commit") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  const VersionId base = commit_tree(image, lease);
  const VersionId head = commit_tree(image, lease);
  contract::SessionRequest request;
  request.image = image.id;
  request.session.bytes[0] = 1;
  request.mode = "personal";
  request.machine_name = "pc1";
  request.base = base;
  request.journal.bytes[0] = 5;  // as next_record() says
  const auto answer = catalog->open_session(request);
  REQUIRE(answer.ok());
  CHECK(answer->image.head == head);
  REQUIRE(answer->newest_of_journal);
  CHECK(answer->newest_of_journal->epoch == 2);
  CHECK(answer->newest_version == head);
  const auto row = refs.get(catalog::session_key(image.id, request.session));
  REQUIRE(row->has_value());
  CHECK(catalog::decode_session((*row)->value)->base == base);
  CHECK(catalog->open_session(request).ok());  // again
  request.journal.bytes[0] = 6;
  CHECK(!catalog->open_session(request)->newest_of_journal);
  request.base = random.id<VersionId>();
  CHECK(code_of(catalog->open_session(request)) == ErrorCode::kOtherHistory);
  request.base = {};
  request.mode = "odd";
  CHECK(code_of(catalog->open_session(request)) == ErrorCode::kInvalidArgument);
  CHECK(catalog->close_session(image.id, request.session).ok());
  CHECK(!refs.get(catalog::session_key(image.id, request.session))->has_value());
  CHECK(catalog->close_session(image.id, request.session).ok());
}

TEST_CASE_METHOD(CatalogFixture, "a journal's new session takes the place of its former ones") {
  const ImageInfo image = make_image("disk");
  const auto lease = acquire(image);
  commit_tree(image, lease);
  const auto open = [&](std::uint8_t session, std::uint8_t machine, std::uint8_t journal) {
    contract::SessionRequest request;
    request.image = image.id;
    request.session.bytes[0] = session;
    request.machine.bytes[0] = machine;
    request.machine_name = "pc";
    request.mode = "personal";
    if (journal != 0) request.journal.bytes[0] = journal;
    REQUIRE(catalog->open_session(request).ok());
  };
  const auto there = [&](std::uint8_t session) {
    SessionId id;
    id.bytes[0] = session;
    return refs.get(catalog::session_key(image.id, id))->has_value();
  };
  open(1, 1, 7);  // its machine went away without a word
  open(2, 1, 8);  // another folder on it
  open(3, 2, 7);  // another machine's, whatever it says of the journal
  open(4, 1, 0);
  CHECK(there(1));
  open(5, 1, 7);
  CHECK(!there(1));
  for (std::uint8_t other = 2; other <= 5; ++other) CHECK(there(other));
  open(5, 1, 7);
  CHECK(there(5));
}
