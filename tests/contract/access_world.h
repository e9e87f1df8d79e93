// A real server in this process, on a UNIX socket over stores in memory, with an organisation; and
// calls of any method by its name. Threads: one owner.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <catch2/catch.hpp>

#include "rdim-server/services/server.h"
#include "rdim-server/stores/memory_stores.h"
#include "tests/contract/temp_folder.h"
#include "tests/support/org_fixture.h"
#include "tests/support/seed.h"

#include "dims/v1/access.grpc.pb.h"
#include "dims/v1/dims.grpc.pb.h"

namespace dims::test {

// A message's field of bytes.
inline std::string field(ByteView bytes) { return std::string(as_text(bytes)); }

// A store whose disk is full after so many writes.
struct LimitedRefStore : stores::MemoryRefStore {
  std::atomic<int> writes_left{-1};  // -1: no limit

  Status may_write() {
    if (writes_left == 0) return make_error(ErrorCode::kNoSpace, "no space is left");
    if (writes_left > 0) --writes_left;
    return ok_status();
  }
  Result<std::uint64_t> put(const std::string& key, ByteView value,
                            std::uint64_t expected_revision) override {
    DIMS_TRY(may_write());
    return MemoryRefStore::put(key, value, expected_revision);
  }
  Status put_all(const std::vector<contract::RefPut>& rows) override {
    DIMS_TRY(may_write());
    return MemoryRefStore::put_all(rows);
  }
  Status remove(const std::string& key, std::uint64_t expected_revision) override {
    DIMS_TRY(may_write());
    return MemoryRefStore::remove(key, expected_revision);
  }
};

struct AccessWorld {
  // Without records there is no organisation; with a secret the server is prepared for one.
  explicit AccessWorld(const std::vector<Bytes>& records, const std::string& secret = {});
  ~AccessWorld() { server->stop(std::chrono::milliseconds(0)); }

  contract::ImageInfo make_image(const ImageId& id, const std::string& name,
                                 const DomainId& domain) {
    contract::ImageInfo image;
    image.id = id;
    image.name = name;
    image.image_bytes = 64 * kMiB;
    image.domain = domain;
    image.key_check = random.id<Digest>();
    const auto made = catalog->create_image(image);
    REQUIRE(made.ok());
    return *made;
  }
  std::string token_of(const access::Caller& caller) {
    const auto issued = control->tokens().issue(caller, std::chrono::hours(1), random);
    return std::string(as_text(issued.token.view()));
  }
  void say(grpc::ClientContext& context, const std::string& token) {
    if (!token.empty()) context.AddMetadata("dims-token-bin", token);
  }

  // What came back first: the status, or an error within the reply.
  struct Outcome {
    grpc::StatusCode code = grpc::StatusCode::OK;
    std::string text;
    // The gate's word, and nobody else's.
    bool denied() const { return text == "access denied" || text == "this needs a login"; }
  };
  Outcome call(const google::protobuf::MethodDescriptor& method,
               const google::protobuf::Message& request, const std::string& token);

  ManualClock clock;
  SeededRandom random{seed()};
  TempFolder folder;
  stores::MemoryObjectStore objects{clock};
  LimitedRefStore refs;
  std::unique_ptr<access::AccessControl> control;
  std::unique_ptr<catalog::Catalog> catalog;
  std::unique_ptr<catalog::Maintenance> maintenance;
  std::unique_ptr<services::RdimServer> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Dims::Stub> dims;
  std::unique_ptr<v1::Access::Stub> people;
};

inline AccessWorld::AccessWorld(const std::vector<Bytes>& records, const std::string& secret) {
  std::optional<Digest> bootstrap;
  if (!secret.empty()) bootstrap = access::bootstrap_digest(as_bytes(secret));
  auto opened = access::AccessControl::open(refs, clock, random, bootstrap);
  REQUIRE(opened.ok());
  control = std::move(*opened);
  if (!records.empty()) {
    // Records are appended in their own time.
    const auto first = trust::decode_record(records.front());
    REQUIRE(first.ok());
    clock.advance(std::chrono::seconds(first->time_unix_s) - clock.wall());
    REQUIRE(control->book().begin(records, {}).ok());
  }
  auto images = catalog::Catalog::open(objects, refs, GenerationId{}, clock, random, {});
  REQUIRE(images.ok());
  catalog = std::move(*images);
  catalog::MaintenanceOptions upkeep;
  upkeep.space.fs = &io::posix_file_system();
  upkeep.space.folder = folder.path;
  maintenance = std::make_unique<catalog::Maintenance>(*catalog, objects, refs, clock, upkeep);
  services::ServerOptions options;
  options.listen = {"unix:" + folder.path + "/sock"};
  options.version = "test";
  auto started = services::RdimServer::start(*catalog, objects, *maintenance, *control, options);
  REQUIRE(started.ok());
  server = std::move(*started);
  channel = grpc::CreateChannel(options.listen[0], grpc::InsecureChannelCredentials());
  dims = v1::Dims::NewStub(channel);
  people = v1::Access::NewStub(channel);
}

inline AccessWorld::Outcome AccessWorld::call(const google::protobuf::MethodDescriptor& method,
                                              const google::protobuf::Message& request,
                                              const std::string& token) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  say(context, token);
  grpc::CompletionQueue queue;
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    REQUIRE(queue.Next(&tag, &ok));
    return ok;
  };
  // On the wire every kind of call is a stream of messages each way.
  const std::string name = "/" + method.service()->full_name() + "/" + method.name();
  const auto stream = stub.PrepareCall(&context, name, &queue);
  void* const tag = &context;
  stream->StartCall(tag);
  Outcome out;
  bool read = false;
  grpc::ByteBuffer reply;
  if (wait()) {
    const std::string bytes = request.SerializeAsString();
    const grpc::Slice slice(bytes);
    stream->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), tag);
    wait();
    stream->Read(&reply, tag);
    read = wait();
  }
  if (read) {
    // An error within the reply of a stream's request.
    const auto* const factory = google::protobuf::MessageFactory::generated_factory();
    std::unique_ptr<google::protobuf::Message> message(
        const_cast<google::protobuf::MessageFactory*>(factory)
            ->GetPrototype(method.output_type())
            ->New());
    grpc::Slice whole;
    REQUIRE(reply.DumpToSingleSlice(&whole).ok());
    REQUIRE(message->ParseFromArray(whole.begin(), static_cast<int>(whole.size())));
    const auto* const field = method.output_type()->FindFieldByName("error");
    if (field != nullptr && message->GetReflection()->HasField(*message, field)) {
      const auto& detail = dynamic_cast<const v1::ErrorDetail&>(
          message->GetReflection()->GetMessage(*message, field));
      out.text = detail.message();
      out.code = grpc::StatusCode::UNKNOWN;
    }
    context.TryCancel();
  }
  grpc::Status status;
  stream->Finish(&status, tag);
  wait();
  if (!read) {
    out.code = status.error_code();
    out.text = status.error_message();
  }
  return out;
}

inline std::vector<const google::protobuf::MethodDescriptor*> all_methods() {
  std::vector<const google::protobuf::MethodDescriptor*> out;
  for (const auto* file : {v1::Event::descriptor()->file(), v1::AuditEntry::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        out.push_back(file->service(s)->method(m));
      }
    }
  }
  return out;
}

}  // namespace dims::test
