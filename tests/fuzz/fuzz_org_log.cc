// Records of the organisation's log from a malicious server or member: signed ones, and bodies that
// somebody signs as an administrator.
#include "tests/fuzz/trust_seeds.h"

using namespace dims;
using namespace dims::fuzz;
using namespace dims::trust;

std::vector<Bytes> fuzz_seeds() {
  SmallOrg& org = SmallOrg::get();
  std::vector<Bytes> out;
  for (const Bytes& record : org.records) {
    out.push_back(with_kind(0, record));
    const auto decoded = decode_record(record);
    out.push_back(
        with_kind(static_cast<std::uint8_t>(decoded->kind()), encode_body(decoded->body)));
  }
  for (const Body& body :
       {Body(UserState{}), Body(KeyChange{}), Body(MachineRevoke{}), Body(MachineWipe{}),
        Body(JoinKey{}), Body(JoinCancel{}), Body(Policy{}), Body(Quota{})})
    out.push_back(with_kind(static_cast<std::uint8_t>(kind_of(body)), encode_body(body)));
  return out;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  SmallOrg& org = SmallOrg::get();
  const ByteView rest(data + 1, size - 1);
  if (data[0] == 0) {
    const auto record = decode_record(rest);
    if (!record.ok()) return 0;
    same(record->bytes, rest);
    (void)org.log->state().check(*record);
    return 0;
  }
  const auto body = decode_body(static_cast<RecordKind>(data[0]), rest);
  if (!body.ok()) return 0;
  same(encode_body(*body), rest);  // one reading, one spelling
  OrgState state = org.log->state();
  for (const auto* signer : {&org.root, &org.member.sign}) {
    if (state.apply(org.make(*body, *signer)).ok()) (void)state.images_of(org.member.user);
  }
  return 0;
}
