// Every call of the contract x everybody x own, other, unknown image: refused where it should be.
// What should be is said here a second time, by hand.
#include <map>
#include <set>

#include "rdim-server/services/gate.h"
#include "tests/contract/access_world.h"

using namespace dims;
using namespace dims::test;
using access::Caller;

namespace {

enum class Need {
  kNothing,
  kToken,
  kJoin,
  kMember,
  kMachine,
  kUser,
  kHimself,  // of who calls
  kSee,
  kRead,
  kWrite,
  kAdmin,  // of the image
  kOperator,
  kOwnNewImage,
};

const std::map<std::string, Need>& needs() {
  static const std::map<std::string, Need> table = {{"Hello", Need::kMember},
                                                    {"CreateImage", Need::kOwnNewImage},
                                                    {"GetImage", Need::kSee},
                                                    {"ListImages", Need::kMember},
                                                    {"RemoveImage", Need::kAdmin},
                                                    {"GetVersion", Need::kSee},
                                                    {"ListVersions", Need::kSee},
                                                    {"OpenSession", Need::kRead},
                                                    {"CloseSession", Need::kRead},
                                                    {"AcquireLease", Need::kWrite},
                                                    {"RenewLease", Need::kWrite},
                                                    {"ReleaseLease", Need::kWrite},
                                                    {"Commit", Need::kWrite},
                                                    {"Has", Need::kWrite},
                                                    {"Get", Need::kRead},
                                                    {"Put", Need::kWrite},
                                                    {"Diff", Need::kRead},
                                                    {"Watch", Need::kRead},
                                                    {"StoreInfo", Need::kOperator},
                                                    {"StartCollection", Need::kOperator},
                                                    {"CollectionStatus", Need::kOperator},
                                                    {"Check", Need::kOperator},
                                                    {"LastChecks", Need::kOperator},
                                                    {"Retention", Need::kSee},
                                                    {"Retention, change", Need::kAdmin},
                                                    {"ForgetUnsent", Need::kAdmin},
                                                    {"Challenge", Need::kNothing},
                                                    {"GetLoginRecord", Need::kNothing},
                                                    {"GetRecoveryRecord", Need::kNothing},
                                                    {"LoginUser", Need::kNothing},
                                                    {"LoginMachine", Need::kNothing},
                                                    {"LoginJoin", Need::kNothing},
                                                    {"Logout", Need::kNothing},
                                                    {"InitOrg", Need::kNothing},
                                                    {"Enroll", Need::kJoin},
                                                    {"GetLog", Need::kToken},
                                                    {"AppendLog", Need::kHimself},
                                                    {"GetUserRecord", Need::kHimself},
                                                    {"PutUserRecord", Need::kHimself},
                                                    {"PutGrants", Need::kHimself},
                                                    {"GetGrants", Need::kUser},
                                                    {"PutSession", Need::kUser},
                                                    {"GetSessions", Need::kSee},
                                                    {"ListUsers", Need::kOperator},
                                                    {"ListMachines", Need::kOperator},
                                                    {"ReportWipe", Need::kMachine},
                                                    {"Audit", Need::kUser},
                                                    {"Quota", Need::kUser}};
  return table;
}

enum class Who {
  kNobody,
  kForged,
  kJoin,
  kMachine,
  kMachineForAlice,
  kRevokedMachine,
  kRevokedForAlice,
  kAlice,
  kBob,
  kOper,
  kAdmin,
  kDisabled
};
constexpr Who kEverybody[] = {
    Who::kNobody,         Who::kForged,          Who::kJoin,  Who::kMachine, Who::kMachineForAlice,
    Who::kRevokedMachine, Who::kRevokedForAlice, Who::kAlice, Who::kBob,     Who::kOper,
    Who::kAdmin,          Who::kDisabled};
enum class Which { kAlices, kMaster, kHidden, kNone };
constexpr Which kImages[] = {Which::kAlices, Which::kMaster, Which::kHidden, Which::kNone};

// 0 none, 1 read, 2 write, 3 admin: as the fixture's log says.
int rights(Who who, Which image) {
  if (image == Which::kAlices) {
    if (who == Who::kAlice) return 3;
    if (who == Who::kMachineForAlice) return 1;  // the certificate says no more
    if (who == Who::kBob) return 1;
  }
  if (image == Which::kMaster) {
    if (who == Who::kOper) return 2;
    if (who == Who::kAlice || who == Who::kBob || who == Who::kAdmin) return 1;
  }
  return 0;
}

bool allowed(Who who, Which image, Need need) {
  const bool himself =
      who == Who::kAlice || who == Who::kBob || who == Who::kOper || who == Who::kAdmin;
  const bool machine = who == Who::kMachine || who == Who::kMachineForAlice;
  const bool administers = who == Who::kAdmin || (himself && rights(who, image) == 3);
  switch (need) {
    case Need::kNothing:
      return true;
    case Need::kToken:
      return himself || machine || who == Who::kJoin || who == Who::kRevokedMachine;
    case Need::kJoin:
      return who == Who::kJoin;
    case Need::kMember:
      return himself || machine;
    case Need::kMachine:
      return machine || who == Who::kRevokedMachine;
    case Need::kUser:
      return himself || who == Who::kMachineForAlice;
    case Need::kHimself:
      return himself;
    case Need::kSee:
      return rights(who, image) >= 1 || administers;
    case Need::kRead:
      return rights(who, image) >= 1;
    case Need::kWrite:
      return rights(who, image) >= 2;
    case Need::kAdmin:
      return administers;
    case Need::kOperator:
      return who == Who::kOper || who == Who::kAdmin;
    case Need::kOwnNewImage:
      return who == Who::kAlice && image == Which::kAlices;
  }
  return false;
}

struct Matrix {
  OrgFixture f{seed(), 3600};  // the world's clock
  crypto::SecretSigner join = crypto::SecretSigner::from_seed(crypto::SecretKey::random(f.random));
  trust::UserSecrets gone = bare_user(f.org, f.random);
  ImageId hidden = f.random.id<ImageId>();
  ImageId none = f.random.id<ImageId>();
  std::unique_ptr<AccessWorld> world;
  std::shared_ptr<const trust::SessionCertificate> session;

  Matrix() {
    f.say(trust::JoinKey{join.public_key, true, "", trust::Role::kUser, {}, f.now_s + 600},
          f.oper.sign);
    f.say(trust::certificate_of(gone, "gone", trust::Role::kAdministrator), f.admin.sign);
    f.say(trust::ImageAcl{f.image, gone.user, trust::Access::kAdmin}, f.alice.sign);
    f.say(trust::MachineRevoke{f.desk.machine}, f.admin.sign);
    f.say(trust::UserState{gone.user, trust::UserStatus::kDisabled, trust::Role::kAdministrator},
          f.admin.sign);
    const auto key = crypto::SecretSigner::from_seed(crypto::SecretKey::random(f.random));
    session = std::make_shared<const trust::SessionCertificate>(
        trust::make_session(f.state(), f.alice.user, f.laptop.machine,
                            {{f.image, trust::Access::kRead}}, 0, 86400, key, f.alice.sign));
    world = std::make_unique<AccessWorld>(f.records);
    world->make_image(f.image, "alices", f.alice.private_domain);
    REQUIRE(world->control->people().put_image(f.image, {f.alice.user, {}}).ok());
    world->make_image(f.master, "master", f.domain);
    world->make_image(hidden, "hidden", f.domain);
  }

  ImageId id_of(Which image) const {
    switch (image) {
      case Which::kAlices:
        return f.image;
      case Which::kMaster:
        return f.master;
      case Which::kHidden:
        return hidden;
      case Which::kNone:
        break;
    }
    return none;
  }
  std::string token_of(Who who) {
    Caller caller;
    caller.kind = Caller::Kind::kUser;
    switch (who) {
      case Who::kNobody:
        return {};
      case Who::kForged:
        return std::string(32, 'x');
      case Who::kJoin:
        caller.kind = Caller::Kind::kJoin;
        caller.join_key = join.public_key;
        break;
      case Who::kMachineForAlice:
        caller.user = f.alice.user;
        caller.session = session;
        [[fallthrough]];
      case Who::kMachine:
        caller.kind = Caller::Kind::kMachine;
        caller.machine = f.laptop.machine;
        break;
      case Who::kRevokedForAlice:
        caller.user = f.alice.user;
        caller.session = session;
        [[fallthrough]];
      case Who::kRevokedMachine:
        caller.kind = Caller::Kind::kMachine;
        caller.machine = f.desk.machine;
        break;
      case Who::kAlice:
        caller.user = f.alice.user;
        break;
      case Who::kBob:
        caller.user = f.bob.user;
        break;
      case Who::kOper:
        caller.user = f.oper.user;
        break;
      case Who::kAdmin:
        caller.user = f.admin.user;
        break;
      case Who::kDisabled:
        caller.user = gone.user;
        break;
    }
    return world->token_of(caller);
  }

  std::unique_ptr<google::protobuf::Message> request_of(
      const google::protobuf::MethodDescriptor& method, const ImageId& image, bool change) {
    std::unique_ptr<google::protobuf::Message> request(
        google::protobuf::MessageFactory::generated_factory()
            ->GetPrototype(method.input_type())
            ->New());
    const auto* const reflection = request->GetReflection();
    const std::string id(as_text(image.view()));
    for (int i = 0; i < method.input_type()->field_count(); ++i) {
      const auto* const field = method.input_type()->field(i);
      const bool names_image =
          field->name() == "image" || (field->name() == "id" && method.service()->name() == "Dims");
      if (names_image) reflection->SetString(request.get(), field, id);
      if (field->name() == "images") reflection->AddString(request.get(), field, id);
      if (field->name() == "protocol") reflection->SetUInt32(request.get(), field, 1);
      if (field->name() == "change") reflection->SetBool(request.get(), field, change);
      if (field->name() == "domain") {
        reflection->SetString(request.get(), field,
                              std::string(as_text(f.alice.private_domain.view())));
      }
    }
    return request;
  }
};

}  // namespace

TEST_CASE("every call has its line in the gate's table, and every line its call") {
  std::set<std::string> called, ruled, said;
  for (const auto* method : all_methods()) {
    called.insert(method->full_name());
    said.insert(method->name());
  }
  for (const services::RpcRule& rule : services::rpc_rules()) ruled.emplace(rule.method);
  CHECK(called == ruled);
  for (const auto& [name, need] : needs()) {
    if (name != "Retention, change") CHECK(said.contains(name));
  }
  CHECK(needs().size() == said.size() + 1);
}

TEST_CASE("every call, by everybody, on every image") {
  Matrix m;
  std::size_t calls = 0, refused = 0;
  for (const auto* method : all_methods()) {
    for (const bool change : {false, true}) {
      if (change && method->name() != "Retention") continue;
      const std::string name = method->name() + (change ? ", change" : "");
      const auto need = needs().find(name);
      REQUIRE(need != needs().end());
      for (const Which image : kImages) {
        const auto request = m.request_of(*method, m.id_of(image), change);
        for (const Who who : kEverybody) {
          const auto outcome = m.world->call(*method, *request, m.token_of(who));
          INFO(name << ", who " << static_cast<int>(who) << ", image " << static_cast<int>(image)
                    << ": " << outcome.code << " " << outcome.text);
          CHECK(outcome.denied() == !allowed(who, image, need->second));
          ++calls;
          if (outcome.denied()) ++refused;
        }
      }
    }
  }
  WARN(calls << " calls, " << refused << " refused");
}

TEST_CASE("an image that one may not see is like one that is not there") {
  Matrix m;
  for (const auto* method : all_methods()) {
    const auto hidden =
        m.world->call(*method, *m.request_of(*method, m.hidden, false), m.token_of(Who::kBob));
    const auto none =
        m.world->call(*method, *m.request_of(*method, m.none, false), m.token_of(Who::kBob));
    INFO(method->name());
    CHECK(hidden.code == none.code);
    CHECK(hidden.text == none.text);
  }
  for (const char* name : {"hidden", "nothing"}) {
    grpc::ClientContext context;
    m.world->say(context, m.token_of(Who::kBob));
    v1::GetImageRequest request;
    request.set_name(name);
    v1::Image image;
    const grpc::Status status = m.world->dims->GetImage(&context, request, &image);
    CHECK(status.error_code() == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(status.error_message() == "access denied");
  }
  grpc::ClientContext context;
  m.world->say(context, m.token_of(Who::kBob));
  v1::ListImagesReply list;
  REQUIRE(m.world->dims->ListImages(&context, {}, &list).ok());
  REQUIRE(list.images_size() == 2);
  CHECK(list.images(0).name() == "alices");
  CHECK(list.images(1).name() == "master");
}

TEST_CASE("one person's server asks nobody, a prepared one lets nobody in") {
  const OrgFixture f(seed());
  AccessWorld open({});
  AccessWorld prepared({}, "secret");
  for (const auto* method : all_methods()) {
    const std::unique_ptr<google::protobuf::Message> request(
        google::protobuf::MessageFactory::generated_factory()
            ->GetPrototype(method->input_type())
            ->New());
    INFO(method->full_name());
    if (method->service()->name() == "Dims") {
      CHECK(!open.call(*method, *request, {}).denied());
      CHECK(prepared.call(*method, *request, {}).text == "this server has no organisation yet");
    } else {
      open.call(*method, *request, {});  // no harm
      prepared.call(*method, *request, {});
    }
  }
}
