#include "image-tools/rdim/newcomer.h"

namespace dims::rdim {
namespace {

constexpr int kEnrollTries = 5;

}  // namespace

Result<trust::NewUser> enroll_user(client::AccessClient& access, trust::OrgLog& log,
                                   const Newcomer& who, ByteView passphrase,
                                   const crypto::SecretSigner& key) {
  const OrgId org = log.state().org();
  DIMS_ASSIGN(trust::NewUser made,
              trust::make_user(org, who.user, who.name, passphrase, {}, system_random()));
  for (int attempt = 1;; ++attempt) {
    const trust::Position at = log.position();
    const trust::LogRecord record =
        trust::make_record(org, &at, client::unix_now_s(),
                           trust::certificate_of(made.secrets, who.name, who.role), key);
    DIMS_TRY(log.state().check(record));
    const auto enrolled = access.enroll(at, record.bytes, trust::encode_user_record(made.record));
    if (enrolled.ok()) {
      DIMS_TRY(log.append(record.bytes, at));
      return made;
    }
    if (enrolled.error().code != ErrorCode::kConflict || attempt == kEnrollTries)
      return enrolled.error();
    DIMS_ASSIGN(log, client::read_log(access, org, client::records_of(log)));
  }
}

}  // namespace dims::rdim
