// People: what the server keeps for users and machines beside the log: users' sealed records,
// grants, certificates of sessions, when somebody was last here. It can read none of the secrets.
//
//   org/user/<user>                              a user's record (common/trust/user_record.h)
//   org/grant/<user>/<scope>/<id>/<epoch>        a grant, by its recipient
//   org/session/<key>                            a session's certificate, by its key
//   org/image/<image>                            who made an image, and what it is a branch of
//   org/seen/<u|m>/<id>                          last login
//
// Threads: thread-safe. Ownership: the store outlives it. Errors: kNotFound, kConflict (another
// generation), kCorrupt, those of the store. Durable on return: what was put.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "common/contract/ref_store.h"
#include "common/trust/grant.h"
#include "common/trust/login.h"
#include "common/trust/session.h"
#include "common/trust/user_record.h"

namespace dims::access {

// What a login needs of a user's record, in memory: known and unknown names cost the same.
struct LoginFacts {
  trust::LoginRecord login;
  crypto::PublicKey login_key;
  std::optional<trust::RecoveryRecord> recovery;
};

struct Seen {
  std::uint64_t time_unix_s = 0;
  MachineId machine;            // of a user: where
  std::string address;          // of a machine
  std::uint64_t wiped_seq = 0;  // of a machine: the newest wipe that it has done
};

class People {
 public:
  static Result<std::unique_ptr<People>> open(contract::RefStore& refs);

  // The record is checked by the caller (trust::check_user_record). Its generation must be the one
  // after what is stored; the first may be any.
  Status put_user(const trust::UserRecord& record);
  // The rows of such a record and of grants, for who writes them in one step with others; then
  // user_stored(). Nothing is written here.
  Result<std::vector<contract::RefPut>> rows_of(const trust::UserRecord& record,
                                                const std::vector<Bytes>& grants);
  void user_stored(const trust::UserRecord& record);
  Result<Bytes> user_record(const trust::UserId& user);
  std::optional<LoginFacts> login_facts(const trust::UserId& user);

  // Checked by the caller. All of them in one step; of two for the same the later one stays.
  Status put_grants(const std::vector<Bytes>& grants);
  // Of one recipient; scope and id narrow it down.
  Result<std::vector<Bytes>> grants(const trust::UserId& recipient,
                                    std::optional<trust::KeyScope> scope, const trust::ScopeId& id);

  Status put_session(const trust::SessionCertificate& certificate, ByteView bytes);
  // Empty when it is not known.
  Result<Bytes> session(const crypto::PublicKey& key);

  // An image's maker, and for a branch the image whose access list it has (zero: its own). Once
  // said it stays: kAlreadyExists for another word.
  struct ImageRow {
    trust::UserId owner;
    ImageId branch_of;
    friend bool operator==(const ImageRow&, const ImageRow&) = default;
  };
  Status put_image(const ImageId& image, const ImageRow& row);
  std::optional<ImageRow> image(const ImageId& image);
  Status forget_image(const ImageId& image);
  std::vector<ImageId> images_of(const trust::UserId& owner);

  Status saw_user(const trust::UserId& user, Seen seen);
  Status saw_machine(const MachineId& machine, Seen seen);  // keeps wiped_seq
  Status machine_wiped(const MachineId& machine, std::uint64_t seq);
  Seen seen_user(const trust::UserId& user);
  Seen seen_machine(const MachineId& machine);

 private:
  explicit People(contract::RefStore& refs) : refs_(refs) {}
  Result<contract::RefPut> user_row(const trust::UserRecord& record);
  Status add_grants(const std::vector<Bytes>& grants, std::vector<contract::RefPut>& rows);
  Status put_row(const std::string& key, ByteView value);
  Status save_seen(const std::string& key, const Seen& seen);

  contract::RefStore& refs_;
  std::mutex mutex_;
  std::map<trust::UserId, LoginFacts> facts_;
  std::map<std::string, Seen> seen_;  // by row
  std::map<ImageId, ImageRow> images_;
};

}  // namespace dims::access
