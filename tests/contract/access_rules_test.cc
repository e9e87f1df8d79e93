// What rights alone do not say: branches, versions of other images, who signs, how much is too
// much.
#include <atomic>
#include <thread>

#include "common/format/version.h"
#include "tests/contract/access_world.h"

using namespace dims;
using namespace dims::test;
using access::Caller;
using trust::Access;

namespace {

struct Rules {
  OrgFixture f{seed(), 3600};  // the world's clock
  ImageId hidden = f.random.id<ImageId>();
  ImageId second = f.random.id<ImageId>(), third = f.random.id<ImageId>();
  crypto::SigningKey session_key = crypto::signing_key_from_seed(f.random.id<Secret32>());
  std::unique_ptr<AccessWorld> world;
  contract::ImageInfo alices, secret;

  explicit Rules(bool limited = false) {
    f.say(trust::ImageAcl{second, f.alice.user, Access::kAdmin}, f.alice.sign);
    f.say(trust::ImageAcl{third, f.alice.user, Access::kAdmin}, f.alice.sign);
    if (limited) f.say(trust::Quota{f.alice.user, 100 * kMiB, 1, 40}, f.admin.sign);
    world = std::make_unique<AccessWorld>(f.records);
    alices = world->make_image(f.image, "alices", f.alice.private_domain);
    secret = world->make_image(hidden, "hidden", f.domain);
  }
  Caller user(const trust::UserSecrets& who) {
    Caller caller;
    caller.kind = Caller::Kind::kUser;
    caller.user = who.user;
    return caller;
  }
  // A session of alice's on her laptop, with this much of her image.
  trust::SessionCertificate session(Access access) {
    return trust::make_session(
        f.state(), f.alice.user, f.laptop.machine, {{f.image, access}}, 0, 86400,
        crypto::SecretSigner::from_seed(*crypto::SecretKey::from_view(session_key.seed.view())),
        f.alice.sign);
  }
  Caller laptop(Access access) {
    Caller caller;
    caller.kind = Caller::Kind::kMachine;
    caller.machine = f.laptop.machine;
    caller.user = f.alice.user;
    caller.session = std::make_shared<const trust::SessionCertificate>(session(access));
    return caller;
  }
  template <typename Request, typename Reply>
  grpc::Status dims(grpc::Status (v1::Dims::Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Reply*),
                    const Caller& caller, const Request& request, Reply* reply) {
    grpc::ClientContext context;
    world->say(context, world->token_of(caller));
    return ((*world->dims).*method)(&context, request, reply);
  }
  Bytes record_of(const contract::ImageInfo& image, std::uint64_t sequence, const VersionId& parent,
                  const crypto::SigningKey& key) {
    format::VersionRecord record;
    record.image = image.id;
    record.org = f.org;
    record.parent = parent;
    record.image_bytes = image.image_bytes;
    record.tree = image.tree;
    record.sequence = sequence;
    record.machine = f.laptop.machine;
    record.image_epoch = 1;
    record.time_unix_ns = 3600'000'000'000;
    return format::encode_version(record, key);
  }
  contract::CommitOrder order_of(const contract::ImageInfo& image, const Bytes& record) {
    contract::LeaseRequest wanted;
    wanted.image = image.id;
    wanted.session.bytes[0] = 1;
    wanted.machine.bytes[0] = 1;
    const auto lease = world->catalog->acquire_lease(wanted);
    REQUIRE(lease.ok());
    contract::CommitOrder order;
    order.image = image.id;
    order.lease = lease->lease;
    order.token = lease->token;
    order.record = record;
    return order;
  }
  VersionId commit(const contract::ImageInfo& image) {
    const auto done = world->catalog->commit(order_of(image, record_of(image, 1, {}, session_key)));
    if (!done.ok()) FAIL(done.error().to_string());
    return done->version;
  }
  v1::CreateImageRequest branch_request(const ImageId& id, const std::string& name,
                                        const VersionId& origin) {
    v1::CreateImageRequest request;
    request.set_id(field(id.view()));
    request.set_name(name);
    request.set_image_bytes(alices.image_bytes);
    request.mutable_tree()->set_leaf_pages(alices.tree.leaf_pages);
    request.mutable_tree()->set_fanout(alices.tree.fanout);
    request.mutable_tree()->set_chunk_mean_bytes(alices.tree.chunk_mean_bytes);
    request.set_domain(field(f.alice.private_domain.view()));
    request.set_key_check(std::string(32, 'k'));
    if (!origin.is_zero()) request.set_origin(field(origin.view()));
    return request;
  }
  grpc::Status create(const Caller& caller, const v1::CreateImageRequest& request) {
    v1::Image image;
    return dims(&v1::Dims::Stub::CreateImage, caller, request, &image);
  }
};

}  // namespace

TEST_CASE("a version of an image that one may not see is a version that nobody knows") {
  Rules r;
  const VersionId own = r.commit(r.alices), foreign = r.commit(r.secret);
  const VersionId unknown = r.f.random.id<VersionId>();
  const auto get = [&](const VersionId& id) {
    v1::GetVersionRequest request;
    request.set_image(field(r.f.image.view()));
    request.set_version(field(id.view()));
    v1::Version reply;
    return r.dims(&v1::Dims::Stub::GetVersion, r.user(r.f.bob), request, &reply);
  };
  CHECK(get(own).ok());
  CHECK(get(foreign).error_code() == get(unknown).error_code());
  CHECK(get(foreign).error_message() == "version " + foreign.short_hex() + " is not known here");
  CHECK(get(unknown).error_message() == "version " + unknown.short_hex() + " is not known here");
  for (const VersionId& id : {foreign, unknown}) {
    v1::DiffRequest request;
    request.set_image(field(r.f.image.view()));
    request.set_new_version(field(id.view()));
    grpc::ClientContext context;
    r.world->say(context, r.world->token_of(r.user(r.f.bob)));
    v1::DiffReply part;
    const auto stream = r.world->dims->Diff(&context, request);
    CHECK(!stream->Read(&part));
    CHECK(stream->Finish().error_message() == "version " + id.short_hex() + " is not known here");
    v1::OpenSessionRequest open;
    open.set_image(field(r.f.image.view()));
    open.set_session(std::string(16, 's'));
    open.set_mode("readonly");
    open.set_base(field(id.view()));
    v1::OpenSessionReply reply;
    CHECK(!r.dims(&v1::Dims::Stub::OpenSession, r.user(r.f.bob), open, &reply).ok());
  }
}

TEST_CASE("a branch has the access list of what it branched from, and only its writers make one") {
  Rules r;
  const VersionId origin = r.commit(r.alices);
  const ImageId branch = r.f.random.id<ImageId>();
  auto request = r.branch_request(branch, "alices.conflict", origin);
  request.set_conflict_of("alices");
  CHECK(!r.create(r.user(r.f.bob), request).ok());
  CHECK(!r.create(r.laptop(Access::kRead), request).ok());
  CHECK(!r.create(r.user(r.f.oper), request).ok());
  const grpc::Status made = r.create(r.laptop(Access::kWrite), request);
  INFO(made.error_message());
  CHECK(made.ok());
  CHECK(r.create(r.laptop(Access::kWrite), request).ok());  // the answer was lost
  const access::AccessControl& control = *r.world->control;
  CHECK(control.access(r.user(r.f.alice), branch) == Access::kAdmin);
  CHECK(control.access(r.laptop(Access::kWrite), branch) == Access::kWrite);
  CHECK(control.access(r.user(r.f.bob), branch) == Access::kRead);
  CHECK(control.access(r.user(r.f.oper), branch) == Access::kNone);
  // An id that somebody has cannot be taken, nor a list changed, by naming another origin.
  CHECK(!r.create(r.user(r.f.alice), r.branch_request(r.hidden, "mine", origin)).ok());
  auto again = r.branch_request(r.hidden, "mine", origin);
  again.set_conflict_of("alices");
  CHECK(!r.create(r.user(r.f.alice), again).ok());
  CHECK(control.access(r.user(r.f.alice), r.hidden) == Access::kNone);
  // No image without a line in the log; none of a domain that is not one's own.
  CHECK(!r.create(r.user(r.f.alice), r.branch_request(r.f.random.id<ImageId>(), "new", {})).ok());
  auto of_org = r.branch_request(r.second, "new", {});
  of_org.set_domain(field(r.f.domain.view()));
  CHECK(!r.create(r.user(r.f.alice), of_org).ok());
  CHECK(r.create(r.user(r.f.alice), r.branch_request(r.second, "new", {})).ok());
}

TEST_CASE("a conflict branch is named to whom it may be read by, and to nobody else") {
  Rules r;
  const VersionId origin = r.commit(r.alices);
  // One with the image's list, which bob may read; one with a list of its own, which he may not.
  auto shared = r.branch_request(r.f.random.id<ImageId>(), "alices.shared", origin);
  shared.set_conflict_of("alices");
  REQUIRE(r.create(r.user(r.f.alice), shared).ok());
  auto own = r.branch_request(r.second, "alices.own", origin);
  own.set_conflict_of("alices");
  REQUIRE(r.create(r.user(r.f.alice), own).ok());
  // An image that one may not write gets no branch, nor one that is not there.
  auto foreign = r.branch_request(r.third, "alices.third", {});
  foreign.set_conflict_of("hidden");
  CHECK(r.create(r.user(r.f.alice), foreign).error_message() == "access denied");
  foreign.set_conflict_of("nothing");
  CHECK(r.create(r.user(r.f.alice), foreign).error_message() == "access denied");

  const auto text = [](const auto& names) {
    std::string out;
    for (const std::string& name : names) out += name + " ";
    return out;
  };
  const auto asked = [&](const Caller& caller) {
    v1::GetImageRequest one;
    one.set_name("alices");
    v1::Image image;
    REQUIRE(r.dims(&v1::Dims::Stub::GetImage, caller, one, &image).ok());
    v1::ListImagesReply all;
    REQUIRE(r.dims(&v1::Dims::Stub::ListImages, caller, v1::ListImagesRequest{}, &all).ok());
    for (const v1::Image& row : all.images()) {
      if (row.name() == "alices") CHECK(text(row.branches()) == text(image.branches()));
      if (row.name() != "alices") CHECK(row.branches().empty());
    }
    return text(image.branches());
  };
  CHECK(asked(r.user(r.f.alice)) == "alices.own alices.shared ");
  CHECK(asked(r.user(r.f.bob)) == "alices.shared ");
  v1::OpenSessionRequest open;
  open.set_image(field(r.f.image.view()));
  open.set_session(std::string(16, 's'));
  open.set_machine(field(r.f.laptop.machine.view()));
  open.set_mode("readonly");
  v1::OpenSessionReply opened;
  REQUIRE(r.dims(&v1::Dims::Stub::OpenSession, r.laptop(Access::kRead), open, &opened).ok());
  CHECK(text(opened.image().branches()) == "alices.shared ");  // its session is for the image alone

  const auto watched = [&](const Caller& caller, auto&& then) {
    grpc::ClientContext context;
    r.world->say(context, r.world->token_of(caller));
    v1::WatchRequest request;
    request.add_images(field(r.f.image.view()));
    const auto stream = r.world->dims->Watch(&context, request);
    const auto next = [&] {
      v1::Event event;
      REQUIRE(stream->Read(&event));
      return event;
    };
    CHECK(next().kind() == v1::Event::READY);
    CHECK(next().kind() == v1::Event::NEW_VERSION);
    const v1::Event first = next();
    CHECK(first.kind() == v1::Event::BRANCHES);
    CHECK(first.image() == field(r.f.image.view()));
    then(text(first.branches()), next);
    context.TryCancel();
  };
  watched(r.user(r.f.alice), [&](const std::string& first, const auto&) {
    CHECK(first == "alices.own alices.shared ");
  });
  watched(r.user(r.f.bob), [&](const std::string& first, const auto& next) {
    CHECK(first == "alices.shared ");
    REQUIRE(
        r.world->catalog->remove_image(r.second).ok());  // not his business: the same list again
    CHECK(text(next().branches()) == "alices.shared ");
    REQUIRE(r.world->catalog->remove_image(*ImageId::from_view(as_bytes(shared.id()))).ok());
    const v1::Event event = next();
    CHECK(event.kind() == v1::Event::BRANCHES);
    CHECK(event.branches().empty());
  });
  watched(r.user(r.f.bob), [](const std::string& first, const auto&) { CHECK(first.empty()); });
}

TEST_CASE(
    "a branch is made of a branch, too, and of one that was removed by who brings its content") {
  Rules r;
  const auto branch_at = [&](const ImageId& id, int number, const VersionId& origin) {
    auto request = r.branch_request(id, "alices.conflict-" + std::to_string(number), origin);
    request.set_conflict_of("alices");
    return r.create(r.user(r.f.alice), request).error_code();
  };
  const ImageId first = r.f.random.id<ImageId>();
  const VersionId origin = r.commit(r.alices);
  REQUIRE(branch_at(first, 1, origin) == grpc::StatusCode::OK);
  const auto branch = *r.world->catalog->get_image(first);
  auto order = r.order_of(branch, r.record_of(branch, 2, origin, r.session_key));
  order.parent = origin;
  const auto made = r.world->catalog->commit(order);
  REQUIRE(made.ok());
  CHECK(branch_at(r.f.random.id<ImageId>(), 2, made->version) == grpc::StatusCode::OK);
  CHECK(branch_at(r.f.random.id<ImageId>(), 3, r.commit(r.secret)) ==
        grpc::StatusCode::PERMISSION_DENIED);
  r.world->clock.advance(std::chrono::hours(1));
  REQUIRE(r.world->catalog->remove_image(first).ok());
  CHECK(branch_at(r.f.random.id<ImageId>(), 4, made->version) == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("new keys of an image name its head, or wait for who looks again") {
  Rules r;
  // The image has no version yet: its head is version 0.
  const auto append = [&](std::uint64_t last_sequence, const VersionId& last_version = {}) {
    trust::KeyEpoch epoch = r.f.epoch(trust::KeyScope::kImage, trust::scope_id(r.f.image), 2);
    epoch.last_sequence = last_sequence;
    epoch.last_version = last_version;
    const auto at = r.world->control->book().position();
    const auto record = r.f.make(epoch, r.f.alice.sign);
    v1::AppendLogRequest request;
    request.mutable_expected()->set_seq(at.seq);
    request.mutable_expected()->set_hash(field(at.hash.view()));
    request.add_records(record.bytes.data(), record.bytes.size());
    grpc::ClientContext context;
    r.world->say(context, r.world->token_of(r.user(r.f.alice)));
    v1::AppendLogReply reply;
    return r.world->people->AppendLog(&context, request, &reply);
  };
  const auto behind = append(7);
  CHECK(behind.error_code() == grpc::StatusCode::ABORTED);
  CHECK(behind.error_message().find("has got a version since") != std::string::npos);
  CHECK(append(0, r.f.random.id<VersionId>()).error_code() == grpc::StatusCode::ABORTED);
  CHECK(append(0).ok());
}

TEST_CASE("a record whose time is not about now is not taken") {
  Rules r;
  const auto now_s = r.f.now_s;
  const auto append = [&](std::uint64_t time_s) {
    r.f.now_s = time_s;
    const Bytes record = r.f.make(trust::Policy{}, r.f.admin.sign).bytes;
    access::OrgBook& book = r.world->control->book();
    const auto done = book.append(book.position(), {record});
    return done.ok() ? "" : done.error().hint;
  };
  CHECK(append(now_s - trust::kRecordSkew_s - 1) == "set this machine's clock");
  CHECK(append(now_s + trust::kRecordSkew_s + 1) == "set this machine's clock");
  CHECK(append(now_s - trust::kRecordSkew_s) == "");
}

TEST_CASE("quotas: images, bytes, requests") {
  Rules r(true);
  CHECK(r.create(r.user(r.f.alice), r.branch_request(r.second, "one", {})).ok());
  const auto more = r.create(r.user(r.f.alice), r.branch_request(r.third, "two", {}));
  CHECK(more.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(!r.world->catalog->get_image(r.third).ok());
  r.world->clock.advance(std::chrono::minutes(3));
  int refused = 0;
  for (int i = 0; i < 50; ++i) {
    v1::ListImagesReply reply;
    const auto status =
        r.dims(&v1::Dims::Stub::ListImages, r.user(r.f.alice), v1::ListImagesRequest(), &reply);
    refused += status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED ? 1 : 0;
  }
  CHECK(refused == 10);
  v1::ListImagesReply reply;
  CHECK(r.dims(&v1::Dims::Stub::ListImages, r.user(r.f.bob), v1::ListImagesRequest(), &reply).ok());
}

TEST_CASE("a version is committed by a session of its caller's") {
  Rules r;
  const Bytes record = r.record_of(r.alices, 1, {}, r.session_key);
  const contract::CommitOrder order = r.order_of(r.alices, record);
  v1::CommitRequest request;
  request.set_image(field(order.image.view()));
  request.set_lease(field(order.lease.view()));
  request.set_token(order.token);
  request.set_record(field(record));
  v1::CommitReply reply;
  const auto unknown = r.dims(&v1::Dims::Stub::Commit, r.user(r.f.alice), request, &reply);
  CHECK(unknown.error_code() == grpc::StatusCode::PERMISSION_DENIED);
  const auto put = [&](const Caller& caller) {
    v1::PutSessionRequest session;
    session.set_certificate(field(trust::encode_session(r.session(Access::kWrite))));
    grpc::ClientContext context;
    r.world->say(context, r.world->token_of(caller));
    v1::PutSessionReply ignored;
    return r.world->people->PutSession(&context, session, &ignored);
  };
  CHECK(!put(r.user(r.f.bob)).ok());
  CHECK(put(r.laptop(Access::kWrite)).ok());
  CHECK(!r.dims(&v1::Dims::Stub::Commit, r.laptop(Access::kRead), request, &reply).ok());
  const auto done = r.dims(&v1::Dims::Stub::Commit, r.laptop(Access::kWrite), request, &reply);
  INFO(done.error_message());
  CHECK(done.ok());
  CHECK(reply.sequence() == 1);
  // With new keys of hers: whoever has the old ones makes no session any more.
  trust::UserSecrets renewed = bare_user(r.f.org, r.f.random);
  renewed.user = r.f.alice.user;
  const auto before = r.f.log->position();
  const trust::SessionCertificate old = r.session(Access::kWrite);
  r.f.say(trust::key_change_of(renewed), r.f.alice.sign);
  REQUIRE(r.world->control->book().append(before, {r.f.records.back()}).ok());
  v1::PutSessionRequest session;
  session.set_certificate(field(trust::encode_session(old)));
  v1::PutSessionReply ignored;
  grpc::ClientContext put_again;
  r.world->say(put_again, r.world->token_of(r.user(r.f.alice)));
  CHECK(r.world->people->PutSession(&put_again, session, &ignored).error_message() ==
        "session: its user has new keys");
  trust::LoginContext here{r.f.org, r.world->control->desk().challenge(), {}, r.f.laptop.machine};
  const auto login = r.world->control->desk().login_machine(
      here.nonce, here.machine, trust::sign_machine_login(here, r.f.laptop.sign),
      trust::encode_session(old), {"unix:", {}});
  REQUIRE(!login.ok());
  CHECK(login.error().message == "session: its user has new keys");
}

TEST_CASE("too many log records in one call are refused before any is looked at") {
  Rules r;
  const Bytes record = r.f.make(trust::Policy{}, r.f.admin.sign).bytes;
  const auto at = r.world->control->book().position();
  v1::AppendLogRequest request;
  request.mutable_expected()->set_seq(at.seq);
  request.mutable_expected()->set_hash(field(at.hash.view()));
  for (int i = 0; i < 8193; ++i) request.add_records(field(record));
  grpc::ClientContext context;
  r.world->say(context, r.world->token_of(r.user(r.f.bob)));
  v1::AppendLogReply reply;
  const auto status = r.world->people->AppendLog(&context, request, &reply);
  CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(status.error_message() == "8193 log records in one call");
}

TEST_CASE("who reads no replies is asked for no more requests") {
  AccessWorld world({});
  grpc::ClientContext context;
  const auto stream = world.dims->Has(&context);
  constexpr std::uint64_t kRequests = 50'000;  // far more bytes than any window on the way holds
  std::atomic<std::uint64_t> sent{0};
  std::atomic<bool> over{false};
  std::thread writer([&] {
    v1::HasRequest request;
    request.set_image(std::string(1024, 'x'));  // refused, and answered
    while (sent < kRequests && stream->Write(request)) ++sent;
    over = true;
  });
  // Until the writer stands still; on a slow machine that is seen too early, and nothing is wrong.
  for (std::uint64_t before = 1; !over && before != sent;) {
    before = sent;
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  CHECK(sent < kRequests);
  context.TryCancel();
  writer.join();
  stream->Finish();
}

TEST_CASE("present or not is said of the image's own domain alone") {
  Rules r;
  const auto base = r.world->make_image(r.f.master, "master", r.f.domain);
  contract::ImageInfo clone = r.alices;
  clone.id = r.second;
  clone.name = "clone";
  clone.origin = r.commit(base);
  REQUIRE(r.world->catalog->create_image(clone).ok());
  format::ObjectKey of_base{r.f.domain, r.f.random.id<ObjectId>()};
  format::ObjectKey own{r.f.alice.private_domain, r.f.random.id<ObjectId>()};
  const auto asks = [&](const format::ObjectKey& key, catalog::Access access) {
    return r.world->catalog->check_access(r.second, std::span(&key, 1), access).ok();
  };
  CHECK(asks(of_base, catalog::Access::kRead));
  CHECK(!asks(of_base, catalog::Access::kWrite));
  CHECK(asks(own, catalog::Access::kRead));
  CHECK(asks(own, catalog::Access::kWrite));
}

TEST_CASE("nobody speaks for another machine, nor takes its session's lease") {
  Rules r;
  const auto acquire = [&](const Caller& caller, const MachineId& machine) {
    v1::AcquireLeaseRequest request;
    request.set_image(field(r.f.image.view()));
    request.set_session(std::string(16, 's'));
    request.set_machine(field(machine.view()));
    request.set_machine_name("pc");
    v1::Lease lease;
    return r.dims(&v1::Dims::Stub::AcquireLease, caller, request, &lease);
  };
  const MachineId stranger = r.f.random.id<MachineId>();
  CHECK(!acquire(r.user(r.f.alice), r.f.laptop.machine).ok());
  CHECK(!acquire(r.laptop(Access::kWrite), r.f.desk.machine).ok());
  CHECK(!acquire(r.laptop(Access::kWrite), stranger).ok());
  CHECK(acquire(r.laptop(Access::kWrite), r.f.laptop.machine).ok());
  CHECK(acquire(r.laptop(Access::kWrite), r.f.laptop.machine).ok());
  CHECK(acquire(r.user(r.f.alice), stranger).error_message() == "access denied");

  v1::OpenSessionRequest open;
  open.set_image(field(r.f.image.view()));
  open.set_session(std::string(16, 's'));
  open.set_machine(field(r.f.laptop.machine.view()));
  open.set_machine_name("pc");
  open.set_mode("readonly");
  v1::OpenSessionReply opened;
  CHECK(!r.dims(&v1::Dims::Stub::OpenSession, r.user(r.f.bob), open, &opened).ok());
  const auto mine = r.dims(&v1::Dims::Stub::OpenSession, r.laptop(Access::kRead), open, &opened);
  INFO(mine.error_message());
  CHECK(mine.ok());
  v1::CloseSessionRequest close;
  close.set_image(open.image());
  close.set_session(open.session());
  v1::CloseSessionReply closed;
  CHECK(!r.dims(&v1::Dims::Stub::CloseSession, r.user(r.f.bob), close, &closed).ok());
  CHECK(r.dims(&v1::Dims::Stub::CloseSession, r.laptop(Access::kRead), close, &closed).ok());
}

TEST_CASE("the log is followed as long as one may, and announcements too") {
  Rules r;
  const std::string token = r.world->token_of(r.user(r.f.bob));
  grpc::ClientContext log_context, watch_context;
  r.world->say(log_context, token);
  r.world->say(watch_context, token);
  v1::GetLogRequest request;
  request.set_follow(true);
  const auto log = r.world->people->GetLog(&log_context, request);
  v1::GetLogReply part;
  REQUIRE(log->Read(&part));
  CHECK(static_cast<std::size_t>(part.records_size()) == r.f.records.size());
  CHECK(part.end().seq() == r.f.log->position().seq);
  v1::WatchRequest watched;
  r.world->make_image(r.f.master, "master", r.f.domain);
  watched.add_images(field(r.f.image.view()));
  watched.add_images(field(r.f.master.view()));
  const auto watch = r.world->dims->Watch(&watch_context, watched);
  v1::Event event;
  REQUIRE(watch->Read(&event));
  CHECK(event.kind() == v1::Event::READY);
  for (const ImageId& image : {r.f.image, r.f.master}) {
    REQUIRE(watch->Read(&event));
    CHECK(event.kind() == v1::Event::BRANCHES);
    CHECK(event.image() == field(image.view()));
  }

  const auto tell = [&](const trust::Body& body, const crypto::SecretSigner& signer) {
    const trust::Position before = r.f.log->position();
    r.f.say(body, signer);
    REQUIRE(r.world->control->book().append(before, {r.f.records.back()}).ok());
  };
  tell(trust::ImageAcl{r.f.image, r.f.bob.user, Access::kNone}, r.f.alice.sign);
  REQUIRE(log->Read(&part));
  CHECK(part.records_size() == 1);
  r.commit(r.alices);  // he is not told
  REQUIRE(r.world->catalog->remove_image(r.f.master).ok());
  REQUIRE(watch->Read(&event));
  CHECK(event.kind() == v1::Event::REMOVED);
  tell(trust::UserState{r.f.bob.user, trust::UserStatus::kDisabled, trust::Role::kUser},
       r.f.admin.sign);
  CHECK(!log->Read(&part));
  CHECK(log->Finish().error_message() == "this needs a login");
  // A stream that went on in silence would leave him without the news that he may have again.
  contract::ServerEvent news;
  news.kind = contract::ServerEvent::Kind::kNewVersion;
  news.image = r.f.image;
  r.world->catalog->events().announce(news);
  CHECK(!watch->Read(&event));
  CHECK(watch->Finish().error_message() == "this needs a login");
}

TEST_CASE("the audit log: one's own entries, all of them for administrators") {
  Rules r;
  access::Audit& audit = r.world->control->audit();
  audit.add(r.user(r.f.alice), "commit", r.f.image, "version 1");
  audit.add(r.user(r.f.bob), "login");
  const auto read = [&](const Caller& caller, const std::string& of) {
    v1::AuditRequest request;
    request.set_user(of);
    grpc::ClientContext context;
    r.world->say(context, r.world->token_of(caller));
    const auto stream = r.world->people->Audit(&context, request);
    std::string out;
    v1::AuditReply reply;
    while (stream->Read(&reply)) {
      for (const auto& entry : reply.entries()) out += entry.what() + " ";
    }
    const grpc::Status status = stream->Finish();
    return status.ok() ? out : status.error_message();
  };
  const std::string alice = field(r.f.alice.user.view()), bob = field(r.f.bob.user.view());
  CHECK(read(r.user(r.f.admin), {}) == "login commit ");
  CHECK(read(r.user(r.f.admin), alice) == "commit ");
  CHECK(read(r.user(r.f.bob), {}) == "login ");
  CHECK(read(r.user(r.f.bob), bob) == "login ");
  CHECK(read(r.user(r.f.bob), alice) == "access denied");
  CHECK(read(r.user(r.f.oper), alice) == "access denied");
}

TEST_CASE("a_log_whose_rows_hold_no_record_makes_nobodys_server_of_an_organisations") {
  OrgFixture f{seed(), 3600};
  ManualClock clock;
  SeededRandom random{seed()};
  stores::MemoryRefStore right;
  {
    auto control = access::AccessControl::open(right, clock, random, std::nullopt);
    REQUIRE(control.ok());
    clock.advance(std::chrono::seconds(trust::decode_record(f.records.front())->time_unix_s) -
                  clock.wall());
    REQUIRE((*control)->book().begin(f.records, {}).ok());
  }
  const auto rows = right.list("org/log/", "", 100);
  REQUIRE(rows.ok());
  REQUIRE(!rows->empty());
  Bytes longer = rows->front().second.value;
  longer.push_back(0);
  for (const Bytes& damaged : {Bytes(4, 0), Bytes(8, 0), Bytes(), longer}) {
    stores::MemoryRefStore refs;
    for (const auto& [key, row] : *rows) {
      const bool first = key == rows->front().first;
      REQUIRE(refs.put(key, first ? damaged : row.value, 0).ok());
    }
    const auto control = access::AccessControl::open(refs, clock, random, std::nullopt);
    REQUIRE(!control.ok());
    CHECK(control.error().code == ErrorCode::kCorrupt);
  }
}
