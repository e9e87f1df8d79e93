// Every call of the wire, to a living server over a UNIX socket: the bytes of the messages are
// anybody's. [method][caller][pieces]. Whatever comes, the server answers and lives.
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/generic/generic_stub.h>
#include <spdlog/spdlog.h>

#include <atomic>

#include "rdim-server/services/server.h"
#include "rdim-server/stores/memory_stores.h"
#include "tests/contract/temp_folder.h"
#include "tests/fuzz/fuzz_wire.h"
#include "tests/fuzz/trust_seeds.h"

using namespace dims;
using namespace dims::fuzz;

namespace {

constexpr std::size_t kMessagesMax = 4;

// A second a call: limits per minute must not hide what lies behind them.
class CallClock : public Clock {
 public:
  std::chrono::nanoseconds boottime() override { return std::chrono::seconds(now_s.load()); }
  // The time of SmallOrg's records: the log takes no others.
  std::chrono::nanoseconds wall() override { return std::chrono::seconds(1000); }
  std::atomic<std::int64_t> now_s{1'800'000'000};
};

struct LivingServer {
  CallClock clock;
  SeededRandom random{1};
  test::TempFolder folder;
  stores::MemoryObjectStore objects{clock};
  stores::MemoryRefStore refs;
  std::unique_ptr<access::AccessControl> control;
  std::unique_ptr<catalog::Catalog> catalog;
  std::unique_ptr<catalog::Maintenance> maintenance;
  std::unique_ptr<services::RdimServer> server;
  std::unique_ptr<grpc::GenericStub> stub;
  std::vector<std::string> tokens{""};  // of nobody, a user, an administrator, a machine

  static LivingServer& get() {
    static LivingServer one;
    return one;
  }
  ~LivingServer() {
    stub.reset();
    server->stop(std::chrono::milliseconds(0));
  }

  // The first status or reply; false: no answer at all.
  bool call(const Method& method, const std::string& token, const std::vector<ByteView>& messages) {
    ++clock.now_s;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    if (!token.empty()) context.AddMetadata("dims-token-bin", token);
    grpc::CompletionQueue queue;
    const auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      if (!queue.Next(&tag, &ok)) std::abort();
      return ok;
    };
    const auto stream = stub->PrepareCall(&context, path_of(method), &queue);
    void* const tag = &context;
    stream->StartCall(tag);
    bool up = wait();
    for (const ByteView message : messages) {
      if (!up) break;
      stream->Write(buffer_of(message), tag);
      up = wait();
      if (!method.client_streaming()) break;
    }
    stream->WritesDone(tag);
    wait();
    grpc::ByteBuffer reply;
    stream->Read(&reply, tag);
    const bool answered = wait();
    context.TryCancel();  // what else would come
    grpc::Status status;
    stream->Finish(&status, tag);
    wait();
    return answered || status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED;
  }

 private:
  LivingServer() {
    spdlog::set_level(spdlog::level::off);
    google::protobuf::SetLogHandler(nullptr);
    SmallOrg& org = SmallOrg::get();
    control = std::move(*access::AccessControl::open(refs, clock, random, std::nullopt));
    if (!control->book().begin(org.records, {}).ok()) std::abort();
    catalog = std::move(*catalog::Catalog::open(objects, refs, GenerationId{}, clock, random, {}));
    contract::ImageInfo image;
    image.id = org.image;
    image.name = "disk";
    image.image_bytes = kMiB;
    image.domain = org.domain;
    if (!catalog->create_image(image).ok()) std::abort();
    catalog::MaintenanceOptions upkeep;
    upkeep.space.fs = &io::posix_file_system();
    upkeep.space.folder = folder.path;
    maintenance = std::make_unique<catalog::Maintenance>(*catalog, objects, refs, clock, upkeep);
    services::ServerOptions options;
    options.listen = {"unix:" + folder.path + "/sock"};
    options.version = "test";
    auto started = services::RdimServer::start(*catalog, objects, *maintenance, *control, options);
    if (!started.ok()) std::abort();
    server = std::move(*started);
    stub = std::make_unique<grpc::GenericStub>(
        grpc::CreateChannel(options.listen[0], grpc::InsecureChannelCredentials()));
    access::Caller caller;
    caller.kind = access::Caller::Kind::kUser;
    for (const trust::UserId& user : {org.member.user, org.admin.user}) {
      caller.user = user;
      tokens.push_back(token_of(caller));
    }
    caller = {};
    caller.kind = access::Caller::Kind::kMachine;
    caller.machine = org.machine.machine;
    tokens.push_back(token_of(caller));
  }
  std::string token_of(const access::Caller& caller) {
    const auto issued = control->tokens().issue(caller, std::chrono::hours(24 * 365 * 10), random);
    return std::string(as_text(issued.token.view()));
  }
};

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  std::vector<Bytes> seeds;
  const auto all = methods();
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::uint8_t caller = 1; caller <= 3; ++caller) {
      const auto message = new_message(all[i]->input_type());
      fill_in(*message);
      const auto* const image = all[i]->input_type()->FindFieldByName("image");
      if (image != nullptr && image->type() == google::protobuf::FieldDescriptor::TYPE_BYTES) {
        message->GetReflection()->SetString(message.get(), image,
                                            std::string(as_text(SmallOrg::get().image.view())));
      }
      Bytes seed{static_cast<std::uint8_t>(i), caller};
      put_piece(seed, *message);
      seeds.push_back(std::move(seed));
    }
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto all = methods();
  if (size < 2 || size > 64 * 1024) return 0;
  LivingServer& server = LivingServer::get();
  const Method& method = *all[data[0] % all.size()];
  const std::string& token = server.tokens[data[1] % server.tokens.size()];
  if (!server.call(method, token, pieces({data + 2, size - 2}, kMessagesMax))) std::abort();
  return 0;
}
