// The wire contract against the real server, by its raw stub.
#include <signal.h>
#include <grpcpp/grpcpp.h>

#include <catch2/catch.hpp>

#include "common/crypto/sign.h"
#include "common/format/version.h"
#include "tests/contract/server_channel.h"
#include "tests/contract/temp_folder.h"
#include "tests/support/seed.h"

#include "dims/v1/dims.grpc.pb.h"

using namespace dims;

namespace {

template <typename IdType>
std::string field(const IdType& id) {
  return std::string(as_text(id.view()));
}

struct Wire {
  test::TempFolder folder;
  SeededRandom random{test::seed()};
  std::unique_ptr<test::ServerProcess> server;
  std::unique_ptr<v1::Dims::Stub> stub;
  DomainId domain = random.id<DomainId>();
  format::DomainKey key{domain, 1, random.id<Secret32>()};
  crypto::SigningKey signer = crypto::signing_key_from_seed(random.id<Secret32>());
  v1::Image image;
  ImageId image_id = random.id<ImageId>();

  Wire() { start(); }
  void start(const std::vector<std::string>& more = {}) {
    stub.reset();
    server.reset();
    server = std::make_unique<test::ServerProcess>(folder.path + "/data", more);
    stub = v1::Dims::NewStub(test::channel_to(*server));
  }

  void create(const std::string& name) {
    v1::CreateImageRequest request;
    request.set_id(field(image_id));
    request.set_name(name);
    request.set_image_bytes(kGiB);
    request.mutable_tree()->set_leaf_pages(256);
    request.mutable_tree()->set_fanout(32);
    request.mutable_tree()->set_chunk_mean_bytes(format::TreeParameters{}.chunk_mean_bytes);
    request.set_domain(field(domain));
    grpc::ClientContext context;
    REQUIRE(stub->CreateImage(&context, request, &image).ok());
  }
  v1::Lease acquire() {
    v1::AcquireLeaseRequest request;
    request.set_image(field(image_id));
    request.set_session(std::string(16, 's'));
    request.set_machine(std::string(16, 'm'));
    request.set_machine_name("pc");
    grpc::ClientContext context;
    v1::Lease lease;
    REQUIRE(stub->AcquireLease(&context, request, &lease).ok());
    return lease;
  }

  format::SealedObject chunk(std::size_t pages = 1) {
    Bytes data(pages * kPageBytes);
    random.fill(data);
    return format::seal_chunk(key, data, false);
  }
  void add_key(const format::SealedObject& object, v1::ObjectKey* out) {
    out->set_domain(field(object.ref.domain));
    out->set_id(field(object.ref.id));
  }
  v1::PutReply put(const std::vector<format::SealedObject>& objects) {
    grpc::ClientContext context;
    const auto stream = stub->Put(&context);
    v1::PutRequest request;
    request.set_request(7);
    request.set_image(field(image_id));
    for (const auto& object : objects) {
      add_key(object, request.add_keys());
      request.add_objects(object.bytes.data(), object.bytes.size());
    }
    v1::PutReply reply;
    REQUIRE(stream->Write(request));
    REQUIRE(stream->Read(&reply));
    stream->WritesDone();
    REQUIRE(stream->Finish().ok());
    CHECK(reply.request() == 7);
    return reply;
  }
  v1::CommitReply commit(const v1::Lease& lease, const format::ObjectKey& root,
                         const VersionId& parent, std::uint64_t sequence) {
    format::VersionRecord record;
    record.image = image_id;
    record.parent = parent;
    record.root = root;
    record.image_bytes = kGiB;
    record.sequence = sequence;
    record.commit = {JournalId{{1}}, sequence, random.id<Digest>()};
    const Bytes bytes = format::encode_version(record, signer);
    v1::CommitRequest request;
    request.set_image(field(image_id));
    request.set_lease(lease.lease());
    request.set_token(lease.token());
    if (!parent.is_zero()) request.set_parent(field(parent));
    request.set_record(bytes.data(), bytes.size());
    grpc::ClientContext context;
    v1::CommitReply reply;
    const auto status = stub->Commit(&context, request, &reply);
    INFO(status.error_message());
    REQUIRE(status.ok());
    return reply;
  }
};

v1::ErrorDetail detail_of(const grpc::Status& status) {
  v1::ErrorDetail detail;
  REQUIRE(detail.ParseFromString(status.error_details()));
  return detail;
}

}  // namespace

TEST_CASE_METHOD(Wire, "hello tells the limits and the generation, which a restart keeps") {
  const auto hello = [&] {
    grpc::ClientContext context;
    v1::HelloRequest request;
    request.set_protocol(1);
    v1::HelloReply reply;
    REQUIRE(stub->Hello(&context, request, &reply).ok());
    return reply;
  };
  const auto first = hello();
  CHECK(first.limits().max_message_bytes() == 4 * kMiB);
  CHECK(first.limits().max_requests_in_flight() >= 16);
  CHECK(first.limits().max_objects_per_request() >= 128);
  CHECK(first.limits().max_object_bytes() == format::kMaxObjectBytes);
  CHECK(first.generation().size() == 16);
  start();
  CHECK(hello().generation() == first.generation());
  grpc::ClientContext context;
  v1::HelloRequest future;
  future.set_protocol(2);
  v1::HelloReply reply;
  const auto status = stub->Hello(&context, future, &reply);
  CHECK(status.error_code() == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(detail_of(status).code() == "unsupported");
}

TEST_CASE_METHOD(Wire, "put, has, get, commit, diff and watch, over a kill of the server") {
  create("disk");
  grpc::ClientContext watch_context;
  v1::WatchRequest watch_request;
  watch_request.add_images(field(image_id));
  auto watch = stub->Watch(&watch_context, watch_request);
  v1::Event event;
  REQUIRE(watch->Read(&event));
  CHECK(event.kind() == v1::Event::READY);
  REQUIRE(watch->Read(&event));
  CHECK(event.kind() == v1::Event::BRANCHES);
  CHECK(event.branches().empty());

  const auto data = chunk();
  const auto leaf = format::seal_node(key, format::ObjectKind::kLeaf, 1, {data.ref.object_key()},
                                      as_bytes("leaf"));
  const auto lease = acquire();
  auto reply = commit(lease, leaf.ref.object_key(), {}, 1);
  REQUIRE(reply.missing_size() == 1);
  CHECK(reply.missing(0).id() == field(leaf.ref.id));
  const auto stored = put({data, leaf});
  CHECK(stored.stored() == 2);
  CHECK(put({leaf}).present() == 1);

  grpc::ClientContext has_context;
  const auto has = stub->Has(&has_context);
  v1::HasRequest has_request;
  has_request.set_request(3);
  has_request.set_image(field(image_id));
  add_key(data, has_request.add_keys());
  add_key(chunk(), has_request.add_keys());
  REQUIRE(has->Write(has_request));
  v1::HasReply has_reply;
  REQUIRE(has->Read(&has_reply));
  CHECK(has_reply.present() == std::string("\1\0", 2));

  reply = commit(lease, leaf.ref.object_key(), {}, 1);
  REQUIRE(reply.missing_size() == 0);
  CHECK(reply.sequence() == 1);
  REQUIRE(watch->Read(&event));
  CHECK(event.kind() == v1::Event::NEW_VERSION);
  CHECK(event.version() == reply.version());
  CHECK(event.who().machine_name() == "pc");

  CHECK(server->end(SIGKILL) == 128 + SIGKILL);
  start();
  // Who listens again hears of what was announced meanwhile.
  grpc::ClientContext again_context;
  auto again = stub->Watch(&again_context, watch_request);
  REQUIRE(again->Read(&event));
  CHECK(event.kind() == v1::Event::READY);
  REQUIRE(again->Read(&event));
  CHECK(event.kind() == v1::Event::NEW_VERSION);
  CHECK(event.version() == reply.version());
  CHECK(event.sequence() == 1);
  REQUIRE(again->Read(&event));
  CHECK(event.kind() == v1::Event::BRANCHES);
  again_context.TryCancel();
  grpc::ClientContext get_context;
  v1::GetImageRequest by_name;
  by_name.set_name("disk");
  v1::Image now;
  REQUIRE(stub->GetImage(&get_context, by_name, &now).ok());
  CHECK(now.head() == reply.version());
  grpc::ClientContext diff_context;
  v1::DiffRequest diff_request;
  diff_request.set_image(field(image_id));
  diff_request.set_new_version(reply.version());
  const auto diff = stub->Diff(&diff_context, diff_request);
  v1::DiffReply part;
  REQUIRE(diff->Read(&part));
  REQUIRE(part.keys_size() == 1);
  CHECK(part.keys(0).id() == field(leaf.ref.id));
  CHECK(part.nodes(0) == std::string(as_text(leaf.bytes)));
  CHECK(!diff->Read(&part));
  CHECK(diff->Finish().ok());
}

TEST_CASE_METHOD(Wire, "one stream carries many gets; answers are cut into bounded messages") {
  create("disk");
  constexpr std::size_t kObjects = 40, kPages = 32;  // 5 MiB
  std::vector<format::SealedObject> objects;
  for (std::size_t i = 0; i < kObjects; ++i) {
    objects.push_back(chunk(kPages));
    CHECK(put({objects.back()}).stored() == 1);
  }
  grpc::ClientContext context;
  const auto stream = stub->Get(&context);
  constexpr std::uint64_t kRequests = 50;
  for (std::uint64_t n = 0; n < kRequests; ++n) {
    v1::GetRequest request;
    request.set_request(n);
    request.set_image(field(image_id));
    request.set_priority(n % 2 == 0 ? v1::PRIORITY_PREFETCH : v1::PRIORITY_DEMAND);
    // The first asks for everything, the others for one and one that is not there.
    if (n == 0) {
      for (const auto& object : objects) add_key(object, request.add_keys());
    } else {
      add_key(objects[n % kObjects], request.add_keys());
      add_key(chunk(), request.add_keys());
    }
    REQUIRE(stream->Write(request));
  }
  std::vector<std::size_t> items(kRequests);
  std::vector<bool> done(kRequests);
  std::size_t messages_of_first = 0, open = kRequests;
  v1::GetReply reply;
  while (open > 0 && stream->Read(&reply)) {
    REQUIRE(reply.request() < kRequests);
    REQUIRE(!done[reply.request()]);
    CHECK(reply.ByteSizeLong() < 2 * kMiB);
    if (reply.request() == 0) ++messages_of_first;
    for (const auto& item : reply.items()) {
      ++items[reply.request()];
      if (reply.request() == 0 || item.index() == 0) {
        const auto& object =
            objects[reply.request() == 0 ? item.index() : reply.request() % kObjects];
        CHECK(item.object() == std::string(as_text(object.bytes)));
      } else {
        CHECK(item.error().code() == "not-found");
      }
    }
    if (reply.done()) {
      done[reply.request()] = true;
      --open;
    }
  }
  CHECK(open == 0);
  CHECK(items[0] == kObjects);
  CHECK(items[1] == 2);
  CHECK(messages_of_first >= 4);
  stream->WritesDone();
  CHECK(!stream->Read(&reply));
  CHECK(stream->Finish().ok());
}

TEST_CASE_METHOD(Wire, "a cancelled request is not answered to its end") {
  create("disk");
  constexpr std::size_t kObjects = 64;
  std::vector<format::SealedObject> objects;
  for (std::size_t i = 0; i < kObjects; ++i) {
    objects.push_back(chunk(32));
    put({objects.back()});
  }
  grpc::ClientContext context;
  const auto stream = stub->Get(&context);
  constexpr std::uint64_t kBulk = 60;  // far more than the stream's buffers hold
  for (std::uint64_t n = 1; n <= kBulk; ++n) {
    v1::GetRequest request;
    request.set_request(n);
    request.set_image(field(image_id));
    request.set_priority(v1::PRIORITY_PREFETCH);
    for (const auto& object : objects) add_key(object, request.add_keys());
    REQUIRE(stream->Write(request));
  }
  v1::GetRequest cancel;
  for (std::uint64_t n = 1; n <= kBulk; ++n) cancel.add_cancel(n);
  REQUIRE(stream->Write(cancel));
  v1::GetRequest last;
  last.set_request(1000);
  last.set_image(field(image_id));
  add_key(objects[0], last.add_keys());
  REQUIRE(stream->Write(last));
  stream->WritesDone();
  std::size_t items = 0;
  bool last_done = false;
  v1::GetReply reply;
  while (stream->Read(&reply)) {
    items += static_cast<std::size_t>(reply.items_size());
    if (reply.request() == 1000) last_done = reply.done();
  }
  CHECK(stream->Finish().ok());
  CHECK(last_done);
  CHECK(items < kBulk * kObjects);  // all of it would be 480 MiB
}

TEST_CASE_METHOD(Wire, "what is wrong with a request is in its reply, and the stream lives on") {
  create("disk");
  auto bad = chunk();
  bad.bytes.back() ^= 1;
  const auto refused = put({chunk(), bad});
  CHECK(refused.error().code() == "corrupt");
  CHECK(refused.stored() == 0);

  grpc::ClientContext context;
  const auto stream = stub->Put(&context);
  v1::PutRequest request;
  v1::PutReply reply;
  request.set_image(std::string(3, 'x'));  // an id of a wrong length
  REQUIRE(stream->Write(request));
  REQUIRE(stream->Read(&reply));
  CHECK(reply.error().code() == "invalid-argument");
  request.set_image(std::string(16, 'x'));  // no such image
  REQUIRE(stream->Write(request));
  REQUIRE(stream->Read(&reply));
  CHECK(reply.error().code() == "not-found");
  request.set_image(field(image_id));
  add_key(chunk(), request.add_keys());  // a key without an object
  REQUIRE(stream->Write(request));
  REQUIRE(stream->Read(&reply));
  CHECK(reply.error().code() == "invalid-argument");
  const auto good = chunk();
  request.clear_keys();
  add_key(good, request.add_keys());
  request.add_objects(good.bytes.data(), good.bytes.size());
  REQUIRE(stream->Write(request));
  REQUIRE(stream->Read(&reply));
  CHECK(reply.stored() == 1);
}

TEST_CASE_METHOD(Wire, "a call that fails says why, with code, holder and hint") {
  create("disk");
  acquire();
  v1::AcquireLeaseRequest request;
  request.set_image(field(image_id));
  request.set_session(std::string(16, 't'));
  request.set_machine(std::string(16, 'n'));
  grpc::ClientContext context;
  v1::Lease lease;
  const auto status = stub->AcquireLease(&context, request, &lease);
  CHECK(status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
  const auto detail = detail_of(status);
  CHECK(detail.code() == "lease-held");
  CHECK(detail.holder().find("machine pc") == 0);
  CHECK(!detail.hint().empty());
  grpc::ClientContext watch_context;
  v1::WatchRequest watch_request;
  watch_request.add_images(std::string(16, 'z'));
  const auto watch = stub->Watch(&watch_context, watch_request);
  v1::Event event;
  CHECK(!watch->Read(&event));
  CHECK(watch->Finish().error_code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE_METHOD(Wire, "versions are streamed newest first") {
  create("disk");
  const auto lease = acquire();
  VersionId parent;
  for (std::uint64_t n = 1; n <= 5; ++n) {
    const auto reply = commit(lease, {}, parent, n);
    parent = *VersionId::from_view(as_bytes(reply.version()));
  }
  for (const std::uint32_t limit : {0u, 2u}) {
    grpc::ClientContext context;
    v1::ListVersionsRequest request;
    request.set_image(field(image_id));
    request.set_limit(limit);
    const auto stream = stub->ListVersions(&context, request);
    v1::Version version;
    std::uint64_t sequence = 5, count = 0;
    while (stream->Read(&version)) {
      const auto record = format::decode_version(as_bytes(version.record()));
      REQUIRE(record.ok());
      CHECK(record->sequence == sequence--);
      ++count;
    }
    CHECK(stream->Finish().ok());
    CHECK(count == (limit == 0 ? 5 : limit));
  }
}
