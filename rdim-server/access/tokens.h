// Tokens: who is logged in, in memory only: a restart of the server ends every login.
//
// Threads: thread-safe. Ownership: values. Units: CLOCK_BOOTTIME. Errors: nullopt.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "common/base/clock.h"
#include "common/trust/login.h"
#include "common/trust/session.h"

namespace dims::access {

// Who stands behind a call.
struct Caller {
  enum class Kind : std::uint8_t {
    kNobody,   // no token, or one that is no good
    kOwner,    // a server without an organisation: whoever reaches it
    kUser,     // logged in with a passphrase, perhaps on an enrolled machine
    kMachine,  // a machine alone, or for the user of a session certificate
    kJoin,     // the bearer of a join line
    kRevoked,  // a revoked machine: reads what the log orders it, reports that it is done
  };
  Kind kind = Kind::kNobody;
  trust::UserId user;  // zero: none
  MachineId machine;   // zero: none that is enrolled
  crypto::PublicKey join_key;
  // Of a machine that works for a user: no more than this allows.
  std::shared_ptr<const trust::SessionCertificate> session;
  std::string address;

  bool acts_for_user() const { return !user.is_zero(); }
};

class Tokens {
 public:
  explicit Tokens(Clock& clock) : clock_(clock) {}

  struct Issued {
    trust::SessionToken token;
    std::chrono::seconds expires_in;
  };
  Issued issue(Caller caller, std::chrono::seconds lasts, Random& random);
  std::optional<Caller> find(const trust::SessionToken& token);
  void end(const trust::SessionToken& token);

 private:
  struct Entry {
    Caller caller;
    std::chrono::nanoseconds ends;
    std::uint64_t order = 0;
  };
  void drop_old(std::chrono::nanoseconds now);

  Clock& clock_;
  std::mutex mutex_;
  std::map<Digest, Entry> entries_;  // by token_hash()
  std::uint64_t next_order_ = 0;
};

}  // namespace dims::access
