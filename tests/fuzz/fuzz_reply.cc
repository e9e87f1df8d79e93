// Every reply of the wire, to the real client: the bytes of the messages, the status, its text and
// its details are anybody's. [call][flags][times][pieces]. Whatever comes back is an error or a
// value within bounds, and the next call works.
#include <google/protobuf/stubs/logging.h>
#include <spdlog/spdlog.h>

#include <cstdlib>

#include "common/client/access_client.h"
#include "common/client/admin.h"
#include "common/client/client.h"
#include "common/client/convert.h"
#include "common/client/grpc_status.h"
#include "common/client/token_carrier.h"
#include "common/format/key_file.h"
#include "rdim-server/services/convert.h"
#include "tests/contract/temp_folder.h"
#include "tests/fuzz/fuzz_wire.h"
#include "tests/fuzz/reply_server.h"

using namespace dims;
using namespace dims::fuzz;

namespace {

constexpr std::size_t kPiecesMax = 6;
constexpr std::size_t kInputMax = 32 * 1024;
// Of data[1]: the low bits are the status.
constexpr std::uint8_t kWithText = 0x20;     // the last piece is the status' text
constexpr std::uint8_t kWithDetail = 0x40;   // the last piece (before it) is its details
constexpr std::uint8_t kFreshClient = 0x80;  // that dies with what is under way

void require(bool right) {
  if (!right) std::abort();
}
template <typename Id>
Id id_of(std::uint8_t byte) {
  Id out;
  out.bytes.fill(byte);
  return out;
}
std::string text_of(ByteView bytes) { return std::string(as_text(bytes)); }

// What all calls are about.
struct Asked {
  SeededRandom random{1};
  format::KeyFile key = format::generate_key_file(random);
  contract::ImageInfo image;
  Bytes record;
  std::vector<format::ObjectKey> keys;
  std::vector<Bytes> objects;

  static const Asked& get() {
    static const Asked one;
    return one;
  }

 private:
  Asked() {
    image.id = id_of<ImageId>(1);
    image.name = "disk";
    image.image_bytes = kMiB;
    image.domain = key.domain;
    image.key_check = key.key_check(image.id);
    format::VersionRecord version;
    version.org = key.org;
    version.image = image.id;
    version.image_bytes = image.image_bytes;
    version.tree = image.tree;
    version.sequence = 1;
    format::seal_root_key(version, key.image_key(image.id), {}, random);
    record = format::encode_version(version, key.signing);
    for (std::uint8_t i = 0; i < 4; ++i) {
      auto sealed = format::seal_chunk(key.domain_key(), Bytes(kPageBytes, i));
      keys.push_back(sealed.ref.object_key());
      objects.push_back(std::move(sealed.bytes));
    }
  }
};

struct Clients {
  std::unique_ptr<contract::Remote> remote;
  std::unique_ptr<contract::Admin> admin;
  std::unique_ptr<client::AccessClient> people;

  explicit Clients(const std::string& address) {
    client::ClientOptions options;
    options.address = address;
    options.machine_name = "fuzz";
    options.keys_per_request = 2;  // so that a call has several requests
    const auto token = std::make_shared<client::LoginToken>([] {
      return Result<client::Token>(client::Token{{}, std::chrono::seconds(1000)});
    });
    remote = *client::connect(options);
    admin = *client::connect_admin(address, {}, token);
    people = *client::AccessClient::connect(address, {}, token);
  }
  ~Clients() {
    if (remote) remote->shutdown();
    if (admin) admin->shutdown();
    if (people) people->shutdown();
  }
};

using Call = std::function<void(Clients&)>;
struct NamedCall {
  const char* method;
  Call call;
};

template <typename Value>
void use(const Result<Value>& result) {
  if (!result.ok()) (void)result.error().to_string();
}
void use(const Status& status) {
  if (!status.ok()) (void)status.error().to_string();
}

void get_objects(Clients& c) {
  const Asked& a = Asked::get();
  std::vector<int> seen(a.keys.size());
  const Status got = c.remote->get(a.image.id, a.keys, contract::Priority::kDemand,
                                   [&](std::size_t i, const Result<Bytes>& object) {
                                     require(i < seen.size() && ++seen[i] == 1);
                                     if (object.ok()) require(*object == a.objects[i]);
                                   });
  if (got.ok()) require(std::find(seen.begin(), seen.end(), 0) == seen.end());
  use(got);
}

void put_objects(Clients& c) {
  const Asked& a = Asked::get();
  std::vector<contract::Remote::PutItem> items;
  for (std::size_t i = 0; i < a.keys.size(); ++i) items.push_back({a.keys[i], a.objects[i]});
  use(c.remote->put(a.image.id, items, contract::Priority::kWriteBack));
}

void watch_events(Clients& c) {
  auto events = c.remote->watch({Asked::get().image.id}, id_of<SessionId>(2));
  while (events.ok()) {
    const auto event = (*events)->next(std::chrono::seconds(60));
    if (event.ok()) continue;
    require(event.error().code != ErrorCode::kDeadlineExceeded ||
            event.error().message != "no event in time");
    break;
  }
}

std::vector<NamedCall> remote_calls() {
  const auto image = [] { return Asked::get().image.id; };
  const contract::LeaseGrant lease{id_of<LeaseId>(3), 1, std::chrono::seconds(1)};
  return {
      {"Hello",
       [](Clients& c) {
         use(c.remote->hello());
         // Its limits are in force now.
         get_objects(c);
         put_objects(c);
       }},
      {"CreateImage", [](Clients& c) { use(c.remote->create_image(Asked::get().image)); }},
      {"GetImage", [](Clients& c) { use(c.remote->find_image("disk")); }},
      {"GetImage", [=](Clients& c) { use(c.remote->get_image(image())); }},
      {"ListImages",
       [](Clients& c) {
         const auto images = c.remote->list_images();
         for (std::size_t i = 1; images.ok() && i < images->size(); ++i)
           require((*images)[i - 1].name < (*images)[i].name);
       }},
      {"RemoveImage", [=](Clients& c) { use(c.remote->remove_image(image())); }},
      {"GetVersion", [=](Clients& c) { use(c.remote->get_version(image(), {}, 0)); }},
      {"ListVersions",
       [=](Clients& c) {
         const auto versions = c.remote->list_versions(image(), 3);
         require(!versions.ok() || versions->size() <= 3);
       }},
      {"OpenSession",
       [=](Clients& c) {
         contract::SessionRequest request;
         request.image = image();
         request.journal = id_of<JournalId>(4);
         use(c.remote->open_session(request));
       }},
      {"CloseSession", [=](Clients& c) { use(c.remote->close_session(image(), {})); }},
      {"AcquireLease",
       [=](Clients& c) {
         use(c.remote->acquire_lease({image(), {}, {}, "pc"}));
       }},
      {"RenewLease", [=](Clients& c) { use(c.remote->renew_lease(image(), lease)); }},
      {"ReleaseLease", [=](Clients& c) { use(c.remote->release_lease(image(), lease)); }},
      {"Commit",
       [=](Clients& c) {
         const auto done = c.remote->commit({image(), lease.lease, 1, {}, Asked::get().record});
         require(!done.ok() || !done->version.is_zero() || !done->missing.empty());
       }},
      {"Get", get_objects},
      {"Has",
       [=](Clients& c) {
         const auto has = c.remote->has(image(), Asked::get().keys);
         require(!has.ok() || has->size() == Asked::get().keys.size());
       }},
      {"Put", put_objects},
      {"Diff",
       [=](Clients& c) {
         use(c.remote->diff(image(), {}, id_of<VersionId>(5), [](const contract::DiffPart& part) {
           require(part.keys.size() == part.nodes.size());
           for (std::size_t i = 0; i < part.keys.size(); ++i)
             require(format::object_id(part.nodes[i]) == part.keys[i].id);
           return true;
         }));
       }},
      {"Watch", watch_events},
      {"StoreInfo", [](Clients& c) { use(c.remote->store_info()); }},
  };
}

std::vector<NamedCall> admin_calls() {
  const auto image = [] { return Asked::get().image.id; };
  return {
      {"StartCollection", [](Clients& c) { use(c.admin->start_collection(true)); }},
      {"CollectionStatus", [](Clients& c) { use(c.admin->collection_status()); }},
      {"Check",
       [](Clients& c) {
         use(c.admin->check(
             false, [](const contract::CheckFinding&) {}, [](const contract::CheckProgress&) {}));
       }},
      {"LastChecks", [](Clients& c) { use(c.admin->last_checks()); }},
      {"Retention", [=](Clients& c) { use(c.admin->retention(image())); }},
      {"ForgetUnsent",
       [=](Clients& c) { use(c.admin->forget_unsent(image(), id_of<MachineId>(6))); }},
  };
}

std::vector<NamedCall> people_calls() {
  const trust::LoginContext context{id_of<OrgId>(1), id_of<trust::LoginNonce>(2), {}, {}};
  const auto user = id_of<trust::UserId>(3);
  const std::vector<Bytes> records{Bytes(10, 1)};
  const auto login = [](const Result<client::LoginAnswer>& answer) {
    require(!answer.ok() || answer->token.lasts <= std::chrono::hours(24 * 365));
  };
  return {
      {"Challenge", [](Clients& c) { use(c.people->challenge()); }},
      {"GetLoginRecord", [](Clients& c) { use(c.people->login_record("carol")); }},
      {"GetRecoveryRecord",
       [=](Clients& c) { use(c.people->recovery_record(context.org, "carol")); }},
      {"LoginUser", [=](Clients& c) { login(c.people->login_user(context, "carol", {}, {})); }},
      {"LoginMachine", [=](Clients& c) { login(c.people->login_machine(context, {}, {})); }},
      {"LoginJoin", [=](Clients& c) { login(c.people->login_join(context, {}, {})); }},
      {"Logout", [](Clients& c) { use(c.people->logout()); }},
      {"InitOrg", [=](Clients& c) { use(c.people->init_org({}, records, {}, {})); }},
      {"Enroll", [=](Clients& c) { use(c.people->enroll({}, records[0], {})); }},
      {"GetLog", [](Clients& c) { use(c.people->get_log(0)); }},
      {"GetLog",
       [](Clients& c) {
         int pages = 0;
         use(c.people->follow_log(0, [&](const client::LogPage&) { return ++pages < 40; }));
       }},
      {"AppendLog", [=](Clients& c) { use(c.people->append_log({}, records)); }},
      {"GetUserRecord", [=](Clients& c) { use(c.people->user_record(user)); }},
      {"PutUserRecord",
       [=](Clients& c) { use(c.people->put_user_record(records[0], {}, records, {})); }},
      {"PutGrants", [=](Clients& c) { use(c.people->put_grants(records)); }},
      {"GetGrants",
       [=](Clients& c) { use(c.people->grants(trust::KeyScope::kImage, records[0], user)); }},
      {"PutSession", [=](Clients& c) { use(c.people->put_session(records[0])); }},
      {"GetSessions",
       [](Clients& c) {
         const auto sessions =
             c.people->sessions(id_of<ImageId>(1), {trust::PublicKey{}, trust::PublicKey{}});
         require(!sessions.ok() || sessions->size() == 2);
       }},
      {"ListUsers", [](Clients& c) { use(c.people->list_users()); }},
      {"ListMachines", [](Clients& c) { use(c.people->list_machines()); }},
      {"ReportWipe", [](Clients& c) { use(c.people->report_wipe(1)); }},
      {"Audit", [=](Clients& c) { use(c.people->audit(0, 10, user)); }},
      {"Quota", [=](Clients& c) { use(c.people->quota(user)); }},
  };
}

const std::vector<NamedCall>& calls() {
  static const std::vector<NamedCall> all = [] {
    std::vector<NamedCall> out = remote_calls();
    for (auto& call : admin_calls()) out.push_back(std::move(call));
    for (auto& call : people_calls()) out.push_back(std::move(call));
    return out;
  }();
  return all;
}

v1::HelloReply good_hello() {
  v1::HelloReply hello;
  hello.set_protocol(1);
  hello.set_generation(std::string(GenerationId::kBytes, 'g'));
  hello.set_server_version("test");
  hello.mutable_limits()->set_max_message_bytes(4 << 20);
  hello.mutable_limits()->set_max_objects_per_request(2);
  hello.mutable_limits()->set_max_object_bytes(1 << 20);
  hello.mutable_limits()->set_max_requests_in_flight(8);
  return hello;
}

using Messages = std::vector<std::unique_ptr<google::protobuf::Message>>;

template <typename Message>
void put(Messages& out, Message message) {
  out.push_back(std::make_unique<Message>(std::move(message)));
}

template <typename Id>
std::string filled(char byte) {
  return std::string(Id::kBytes, byte);
}

// Right answers to the calls of objects, images and versions; nothing for others.
Messages good_data(const std::string& method) {
  const Asked& a = Asked::get();
  Messages out;
  contract::ImageInfo info = a.image;
  info.head = format::version_id(a.record);
  info.head_sequence = 1;
  info.holder = contract::HolderInfo{};
  info.unsent.resize(1);
  v1::Image image;
  services::to_proto(info, &image);
  if (method == "Hello") put(out, good_hello());
  if (method == "CreateImage" || method == "GetImage") put(out, image);
  if (method == "ListImages") {
    v1::ListImagesReply list;
    *list.add_images() = image;
    put(out, list);
  }
  if (method == "GetVersion" || method == "ListVersions") {
    v1::Version version;
    version.set_id(text_of(info.head.view()));
    version.set_record(text_of(a.record));
    put(out, version);
  }
  if (method == "OpenSession") {
    contract::SessionAnswer answer;
    answer.image = info;
    answer.newest_of_journal = format::CommitPoint{id_of<JournalId>(4), 1, {}};
    v1::OpenSessionReply reply;
    services::to_proto(answer, &reply);
    put(out, reply);
  }
  if (method == "AcquireLease" || method == "RenewLease") {
    v1::Lease lease;
    services::to_proto({id_of<LeaseId>(3), 1, std::chrono::seconds(60)}, &lease);
    put(out, lease);
  }
  if (method == "Commit") {
    contract::CommitAnswer answer;
    answer.version = info.head;
    answer.sequence = 1;
    answer.missing = {a.keys[0]};
    v1::CommitReply reply;
    services::to_proto(answer, &reply);
    put(out, reply);
  }
  if (method == "Get" || method == "Has" || method == "Put") {
    for (std::uint64_t request = 1; request <= 2; ++request) {
      v1::GetReply got;
      got.set_request(request);
      for (std::uint32_t i = 0; i < 2; ++i) {
        got.add_items()->set_index(i);
        got.mutable_items()->rbegin()->set_object(text_of(a.objects[2 * (request - 1) + i]));
      }
      got.set_done(true);
      v1::HasReply has;
      has.set_request(request);
      has.set_present(std::string("\1\0", 2));
      v1::PutReply stored;
      stored.set_request(request);
      stored.set_stored(2);
      if (method == "Get") put(out, got);
      if (method == "Has") put(out, has);
      if (method == "Put") put(out, stored);
    }
  }
  if (method == "Diff") {
    v1::DiffReply diff;
    for (std::size_t i = 0; i < 2; ++i) {
      *diff.add_keys() = client::to_proto(a.keys[i]);
      diff.add_nodes(text_of(a.objects[i]));
      *diff.add_removed() = client::to_proto(a.keys[i]);
    }
    put(out, diff);
  }
  if (method == "Watch") {
    contract::ServerEvent event;
    event.kind = contract::ServerEvent::Kind::kLeaseRequested;
    event.who = contract::HolderInfo{};
    v1::Event message;
    services::to_proto(event, &message);
    put(out, message);
  }
  return out;
}

// The same for people.
Messages good_people(const std::string& method) {
  Messages out;
  v1::LogPosition position;
  position.set_seq(1);
  position.set_hash(filled<Digest>('h'));
  if (method == "Challenge") {
    v1::ChallengeReply reply;
    reply.set_nonce(filled<trust::LoginNonce>('n'));
    reply.set_org(filled<OrgId>('o'));
    put(out, reply);
  }
  if (method == "GetLoginRecord") {
    v1::LoginRecord reply;
    reply.set_salt(filled<crypto::Salt>('s'));
    reply.set_memory_kib(65536);
    reply.set_passes(3);
    put(out, reply);
  }
  if (method == "GetRecoveryRecord") {
    const trust::RecoveryRecord sizes;
    v1::RecoveryRecord reply;
    reply.set_user(filled<trust::UserId>('u'));
    reply.set_recovery_key(std::string(sizes.recovery_key.size(), 'r'));
    reply.set_secrets(std::string(sizes.secrets.size(), 's'));
    put(out, reply);
  }
  if (method.starts_with("Login")) {
    v1::LoginReply reply;
    reply.set_token(filled<trust::SessionToken>('t'));
    reply.set_expires_in_s(3600);
    reply.set_user(filled<trust::UserId>('u'));
    *reply.mutable_position() = position;
    put(out, reply);
  }
  if (method == "InitOrg") {
    v1::InitOrgReply reply;
    *reply.mutable_position() = position;
    put(out, reply);
  }
  if (method == "Enroll" || method == "AppendLog") {
    v1::AppendLogReply reply;
    *reply.mutable_position() = position;
    put(out, reply);
  }
  if (method == "GetLog") {
    v1::GetLogReply reply;
    reply.add_records("record");
    *reply.mutable_end() = position;
    put(out, reply);
    put(out, reply);
  }
  return out;
}

const Method* method_of(const std::string& name) {
  for (const Method* method : methods()) {
    if (method->name() == name) return method;
  }
  return nullptr;
}

// gRPC 1.51 gives a call's end only to who has taken every message before it: behind a second
// answer to a call with one, or behind a message that cannot be parsed, a caller waits until it is
// told to stop, as for a server that never answers. So these come last.
void readable(const Method& method, std::vector<std::string>& messages) {
  if (!method.server_streaming() && messages.size() > 1) messages.resize(1);
  const auto message = new_message(method.output_type());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (!message->ParseFromString(messages[i])) messages.resize(i + 1);
  }
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  std::vector<Bytes> seeds;
  v1::ErrorDetail detail;
  detail.set_code("lease-held");
  detail.set_message("another has it");
  detail.set_holder("pc");
  detail.set_hint("wait");
  for (std::size_t i = 0; i < calls().size(); ++i) {
    const std::string name = calls()[i].method;
    Messages good = good_data(name);
    for (auto& message : good_people(name)) good.push_back(std::move(message));
    if (good.empty()) {
      const Method* const method = method_of(name);
      require(method != nullptr);
      good.push_back(new_message(method->output_type()));
      fill_in(*good.back());
    }
    const auto index = static_cast<std::uint8_t>(i);
    Bytes seed{index, 0, 0};
    for (const auto& message : good) put_piece(seed, *message);
    seeds.push_back(seed);
    seed[1] = kFreshClient | kWithDetail | 9;  // behind the reply, an end with details
    seed[2] = 1;
    put_piece(seed, detail);
    seeds.push_back(std::move(seed));
    Bytes refused{index, kWithDetail | 14, 0};
    put_piece(refused, detail);
    seeds.push_back(std::move(refused));
  }
  for (const char* text : {client::kLoginNeeded, client::kLoginEnded, "wrong version number",
                           "Custom verification check failed with error: UNAUTHENTICATED: no",
                           "Received RST_STREAM with error code 2"}) {
    for (const int status : {13, 14, 16}) {
      Bytes seed{static_cast<std::uint8_t>(seeds.size()),
                 static_cast<std::uint8_t>(kWithText | status), 0};
      const std::string words(text);
      seed.push_back(0);
      seed.push_back(static_cast<std::uint8_t>(words.size()));
      seed.insert(seed.end(), words.begin(), words.end());
      seeds.push_back(std::move(seed));
    }
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const test::TempFolder folder;
  static const std::string address = [] {
    spdlog::set_level(spdlog::level::off);
    google::protobuf::SetLogHandler(nullptr);
    setenv("GRPC_VERBOSITY", "NONE", 0);
    return "unix:" + folder.path + "/sock";
  }();
  static ReplyServer server(address);
  static Clients standing(address);
  static const Reply good{{good_hello().SerializeAsString()}, grpc::Status::OK};
  if (size < 3 || size > kInputMax) return 0;
  const std::uint8_t flags = data[1];
  std::vector<ByteView> given = pieces({data + 3, size - 3}, kPiecesMax);
  const auto last = [&](std::uint8_t flag) {
    std::string out;
    if ((flags & flag) == 0 || given.empty()) return out;
    out = text_of(given.back());
    given.pop_back();
    return out;
  };
  const std::string text = last(kWithText);
  const std::string detail = last(kWithDetail);
  Reply reply;
  reply.end = grpc::Status(static_cast<grpc::StatusCode>((flags & 0x1f) % 17), text, detail);
  for (int times = 1 + data[2] % 16; times > 0; --times) {
    for (const ByteView piece : given) reply.messages.push_back(text_of(piece));
  }
  const NamedCall& call = calls()[data[0] % calls().size()];
  readable(*method_of(call.method), reply.messages);
  const bool hello = std::string(call.method) == "Hello";
  server.tell(hello ? reply : good, hello ? Reply() : reply);
  if ((flags & kFreshClient) != 0) {
    Clients fresh(address);
    call.call(fresh);
  } else {
    call.call(standing);
  }
  // Whatever it was: the client goes on.
  if (hello) {
    server.tell(good, {});
    require(standing.remote->hello().ok());
  }
  return 0;
}
