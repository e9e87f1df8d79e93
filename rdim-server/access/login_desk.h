// LoginDesk: who gets a token.
//
// A nonce is good for a minute and once. What a name or a machine may try is limited, and an
// unknown name cannot be told from a wrong passphrase: the same words, the same work, the same salt
// each time.
//
// Threads: thread-safe. Ownership: everything that it is given outlives it. Errors:
// kPermissionDenied; kResourceExhausted after too many tries. Durable: nothing but the server's
// salt key, made once (org/salt-key).
#pragma once

#include <deque>
#include <set>

#include "rdim-server/access/audit.h"
#include "rdim-server/access/org_book.h"
#include "rdim-server/access/people.h"
#include "rdim-server/access/tokens.h"

namespace dims::access {

// Where a call came from, as the server's transport says.
struct Peer {
  std::string address;  // "ipv4:1.2.3.4:567", "unix:"
  Digest server;        // the certificate that this end showed; zeros on a UNIX socket
};

inline constexpr std::size_t kGuessesPerMinute = 10;
inline constexpr std::chrono::seconds kUserTokenLasts{12 * 3600};
inline constexpr std::chrono::seconds kMachineTokenLasts{12 * 3600};
inline constexpr std::chrono::seconds kJoinTokenLasts{600};

// check_session(), and that its user has not got new keys since: what the old ones sign may be
// somebody else's.
Status check_session_now(const trust::OrgState& org, const trust::SessionCertificate& session);

class LoginDesk {
 public:
  static Result<std::unique_ptr<LoginDesk>> open(contract::RefStore& refs, OrgBook& book,
                                                 People& people, Tokens& tokens, Audit& audit,
                                                 Clock& clock, Random& random);

  trust::LoginNonce challenge();
  trust::LoginRecord login_record(const std::string& name);
  // For recovery words; a try to log in.
  Result<trust::RecoveryRecord> recovery_record(const std::string& name, const Peer& peer);

  struct UserLogin {
    std::string name;
    trust::LoginNonce nonce;
    MachineId machine;  // zero: none
    crypto::Signature signature, machine_signature;
  };
  struct Done {
    Tokens::Issued token;
    Caller caller;
  };
  Result<Done> login_user(const UserLogin& login, const Peer& peer);
  // `certificate`, encoded or empty: of a session whose user the machine works for.
  Result<Done> login_machine(const trust::LoginNonce& nonce, const MachineId& machine,
                             const crypto::Signature& signature, ByteView certificate,
                             const Peer& peer);
  Result<Done> login_join(const trust::LoginNonce& nonce, const crypto::PublicKey& key,
                          const crypto::Signature& signature, const Peer& peer);

 private:
  LoginDesk(OrgBook& book, People& people, Tokens& tokens, Audit& audit, Clock& clock,
            Random& random)
      : book_(book),
        people_(people),
        tokens_(tokens),
        audit_(audit),
        clock_(clock),
        random_(random),
        nonce_key_(random.id<Secret32>()) {}

  // Made here and not too old. Used only by a login that is good: so failed ones fill no table.
  Status check_nonce(const trust::LoginNonce& nonce);
  Status use_nonce(const trust::LoginNonce& nonce);
  // One try more of this name and from this place, or "too many". Taken before it is looked at, so
  // that many at once are no way round the limit.
  struct Try {
    std::string keys[2];
    std::chrono::nanoseconds time{0};
  };
  Result<Try> take_try(const std::string& name, const std::string& place);
  // It was no guess: it does not count.
  void give_back(const Try& one);
  Status check_user(const UserLogin& login, const trust::LoginContext& context, Caller& caller);
  Done issue(Caller caller, std::chrono::seconds lasts);
  void refused(const std::string& who, const Caller& caller);
  trust::LoginContext context_of(const trust::LoginNonce& nonce, const MachineId& machine,
                                 const Peer& peer) const;

  OrgBook& book_;
  People& people_;
  Tokens& tokens_;
  Audit& audit_;
  Clock& clock_;
  Random& random_;
  const Secret32 nonce_key_;
  Secret32 salt_key_;

  std::mutex mutex_;
  std::deque<std::pair<std::chrono::nanoseconds, trust::LoginNonce>> used_;  // oldest first
  std::set<trust::LoginNonce> used_set_;
  std::map<std::string, std::deque<std::chrono::nanoseconds>> tries_;
  std::deque<std::chrono::nanoseconds> refusals_;
};

}  // namespace dims::access
