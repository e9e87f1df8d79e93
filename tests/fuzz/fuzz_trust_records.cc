// Users' records, grants, session certificates, pins, machine files, from a malicious server or a
// damaged disk. The first byte says which.
#include "common/trust/session.h"
#include "tests/fuzz/trust_seeds.h"

using namespace dims;
using namespace dims::fuzz;
using namespace dims::trust;

std::vector<Bytes> fuzz_seeds() {
  SmallOrg& org = SmallOrg::get();
  UserRecord record;
  record.org = org.org;
  record.user = org.member.user;
  record.name = "member";
  (void)renew_words(record, org.member, org.random);
  const auto grant = make_grant(org.log->state(), KeyScope::kImage, scope_id(org.image), 1,
                                org.secret, org.member.user, org.admin.user, org.admin.sign);
  const auto session =
      make_session(org.log->state(), org.member.user, org.machine.machine,
                   {{org.image, Access::kWrite}}, 1000, 2000, org.signer(), org.member.sign);
  const auto machine = encode_machine(org.machine, nullptr, org.random);
  return {with_kind(0, encode_user_record(record)), with_kind(1, *grant),
          with_kind(2, encode_session(session)), with_kind(3, encode_pin(org.log->pin())),
          with_kind(4, machine.view())};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  SmallOrg& org = SmallOrg::get();
  const OrgState& state = org.log->state();
  const ByteView rest(data + 1, size - 1);
  if (data[0] == 0) {
    const auto record = decode_user_record(rest);
    if (!record.ok()) return 0;
    same(encode_user_record(*record), rest);
    (void)check_user_record(state, *record);
  } else if (data[0] == 1) {
    const auto secret = open_grant(state, rest, org.member.user, org.member.box);
    if (secret.ok() && !(secret->key() == org.secret)) std::abort();
  } else if (data[0] == 2) {
    const auto session = decode_session(rest);
    if (!session.ok()) return 0;
    same(encode_session(*session), rest);
    (void)check_session_use(state, *session,
                            {org.machine.machine, org.image, Access::kWrite, 1500});
  } else if (data[0] == 3) {
    const auto pin = decode_pin(rest);
    if (pin.ok()) (void)OrgLog::open(org.org, org.records, &*pin);
  } else {
    (void)decode_machine(rest, nullptr);
  }
  return 0;
}
