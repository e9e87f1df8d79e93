// The calls of service Access: login, the organisation's log, records, grants, certificates.
//
// Threads: thread-safe. Ownership: destroy it when no call is running; it shares the token that it
// is given. Errors: as the server typed them; kUnavailable when it cannot be reached; connect():
// kInvalidArgument. What comes back is checked for its form only: who uses it checks it against the
// log (common/trust).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/client/known_servers.h"
#include "common/client/login_token.h"
#include "common/trust/org_log.h"
#include "common/trust/user_record.h"

namespace dims::client {

struct LogPage {
  std::vector<Bytes> records;
  trust::Position end;
};
struct LoginAnswer {
  Token token;
  trust::UserId user;
  trust::Position position;
};
struct SeenUser {
  trust::UserId user;
  std::uint64_t last_login_unix_s = 0;
  MachineId last_machine;
  std::uint64_t used_bytes = 0;
  std::uint32_t images = 0;
};
struct SeenMachine {
  MachineId machine;
  std::uint64_t last_seen_unix_s = 0;
  std::string last_address;
  std::uint64_t wiped_seq = 0;
};
struct AuditLine {
  std::uint64_t number = 0;
  std::uint64_t time_unix_s = 0;
  std::string what, detail, address;
  trust::UserId user;
  MachineId machine;
  ImageId image;
};
struct QuotaUse {
  std::uint64_t used_bytes = 0, limit_bytes = 0;
  std::uint32_t images = 0, limit_images = 0;
};

class AccessClient {
 public:
  // `token` nullptr: for the open calls only.
  static Result<std::unique_ptr<AccessClient>> connect(const std::string& address,
                                                       const KnownServers& known,
                                                       std::shared_ptr<LoginToken> token = {});
  virtual ~AccessClient() = default;

  // What the next login answers: nonce, organisation, and who the server showed to be.
  virtual Result<trust::LoginContext> challenge() = 0;
  virtual Result<trust::LoginRecord> login_record(const std::string& name) = 0;
  // `org`: of the answer; the words show whether it is right.
  virtual Result<trust::RecoveryRecord> recovery_record(const OrgId& org,
                                                        const std::string& name) = 0;
  // machine_signature: of the context's machine; ignored if that is zero.
  virtual Result<LoginAnswer> login_user(const trust::LoginContext& context,
                                         const std::string& name, const trust::Signature& signature,
                                         const trust::Signature& machine_signature) = 0;
  // certificate: of a session for whose user the machine works; empty: for itself.
  virtual Result<LoginAnswer> login_machine(const trust::LoginContext& context,
                                            const trust::Signature& signature,
                                            ByteView certificate) = 0;
  virtual Result<LoginAnswer> login_join(const trust::LoginContext& context,
                                         const trust::PublicKey& key,
                                         const trust::Signature& signature) = 0;
  virtual Status logout() = 0;

  virtual Result<trust::Position> init_org(ByteView bootstrap_secret,
                                           const std::vector<Bytes>& records, ByteView user_record,
                                           const std::vector<Bytes>& grants) = 0;
  virtual Result<trust::Position> enroll(const trust::Position& expected, ByteView record,
                                         ByteView user_record) = 0;
  virtual Result<LogPage> get_log(std::uint64_t from_seq) = 0;
  // The same and then what comes, for as long as `sink` says true; the error that ended it else.
  using LogSink = std::function<bool(const LogPage&)>;
  virtual Status follow_log(std::uint64_t from_seq, const LogSink& sink) = 0;
  virtual Result<trust::Position> append_log(const trust::Position& expected,
                                             const std::vector<Bytes>& records) = 0;

  // user zero: the caller's own.
  virtual Result<Bytes> user_record(const trust::UserId& user) = 0;
  // New keys come with their log record and what was granted to the old ones, in one step; the same
  // once more changes nothing.
  virtual Status put_user_record(ByteView record, const trust::Position& expected,
                                 const std::vector<Bytes>& log_records,
                                 const std::vector<Bytes>& grants) = 0;

  virtual Status put_grants(const std::vector<Bytes>& grants) = 0;
  // recipient zero: the caller.
  virtual Result<std::vector<Bytes>> grants(trust::KeyScope scope, ByteView id,
                                            const trust::UserId& recipient) = 0;
  virtual Status put_session(ByteView certificate) = 0;
  // In order; empty: unknown.
  virtual Result<std::vector<Bytes>> sessions(const ImageId& image,
                                              const std::vector<trust::PublicKey>& keys) = 0;

  virtual Result<std::vector<SeenUser>> list_users() = 0;
  virtual Result<std::vector<SeenMachine>> list_machines() = 0;
  virtual Status report_wipe(std::uint64_t seq) = 0;
  virtual Result<std::vector<AuditLine>> audit(std::uint64_t since_unix_s, std::uint32_t limit,
                                               const trust::UserId& user) = 0;
  virtual Result<QuotaUse> quota(const trust::UserId& user) = 0;
  virtual void shutdown() = 0;
};

}  // namespace dims::client
