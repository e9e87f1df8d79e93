// Login and enrolment messages from the network. None was made by who has the key: none may pass.
#include <google/protobuf/stubs/logging.h>

#include "common/trust/login.h"
#include "dims/v1/access.pb.h"
#include "tests/fuzz/trust_seeds.h"

using namespace dims;
using namespace dims::fuzz;
using namespace dims::trust;

namespace {

template <typename Message>
Bytes seed_of(std::uint8_t kind, Message message) {
  SmallOrg& org = SmallOrg::get();
  const auto text = [](ByteView bytes) { return std::string(as_text(bytes)); };
  message.set_nonce(text(org.org.view()));
  message.set_signature(std::string(64, 's'));
  if constexpr (requires { message.set_machine(""); })
    message.set_machine(text(org.machine.machine.view()));
  if constexpr (requires { message.set_name(""); }) message.set_name("member");
  if constexpr (requires { message.set_join_key(""); })
    message.set_join_key(text(org.member.sign.public_key.view()));
  return with_kind(kind, as_bytes(message.SerializeAsString()));
}

template <typename Message>
bool context_of(const Message& message, LoginContext& context, Signature& signature) {
  const auto nonce = LoginNonce::from_view(as_bytes(message.nonce()));
  const auto sig = Signature::from_view(as_bytes(message.signature()));
  if (!nonce || !sig) return false;
  context.org = SmallOrg::get().org;
  context.nonce = *nonce;
  signature = *sig;
  if constexpr (requires { message.machine(); }) {
    const auto machine = MachineId::from_view(as_bytes(message.machine()));
    if (!machine) return false;
    context.machine = *machine;
  }
  return true;
}

void refused(const Status& status) {
  if (status.ok()) std::abort();
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  google::protobuf::SetLogHandler(nullptr);  // it tells of every name that is not UTF-8
  v1::EnrollRequest enroll;
  enroll.set_record(std::string(as_text(SmallOrg::get().records[2])));
  return {seed_of(0, v1::LoginUserRequest()), seed_of(1, v1::LoginMachineRequest()),
          seed_of(2, v1::LoginJoinRequest()), with_kind(3, as_bytes(enroll.SerializeAsString()))};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  SmallOrg& org = SmallOrg::get();
  const int length = static_cast<int>(size - 1);
  LoginContext context;
  Signature signature;
  if (data[0] == 0) {
    v1::LoginUserRequest message;
    if (!message.ParseFromArray(data + 1, length) || !context_of(message, context, signature))
      return 0;
    refused(verify_user_login(context, message.name(), &org.member.sign.public_key, signature));
    refused(verify_user_login(context, message.name(), nullptr, signature));
  } else if (data[0] == 1) {
    v1::LoginMachineRequest message;
    if (!message.ParseFromArray(data + 1, length) || !context_of(message, context, signature))
      return 0;
    refused(verify_machine_login(org.log->state(), context, signature));
  } else if (data[0] == 2) {
    v1::LoginJoinRequest message;
    if (!message.ParseFromArray(data + 1, length) || !context_of(message, context, signature))
      return 0;
    const auto key = PublicKey::from_view(as_bytes(message.join_key()));
    if (key) refused(verify_join_login(org.log->state(), context, *key, signature));
  } else {
    v1::EnrollRequest message;
    if (!message.ParseFromArray(data + 1, length)) return 0;
    const auto record = decode_record(as_bytes(message.record()));
    if (record.ok()) refused(org.log->state().check(*record));  // a record that is in the log
  }
  return 0;
}
