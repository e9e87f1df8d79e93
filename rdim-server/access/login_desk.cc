#include "rdim-server/access/login_desk.h"

#include <algorithm>

#include <spdlog/spdlog.h>

#include "common/crypto/hash.h"

namespace dims::access {
namespace {

constexpr std::chrono::nanoseconds kNonceLasts = std::chrono::minutes(1);
constexpr std::chrono::nanoseconds kTryCounts = std::chrono::minutes(1);
constexpr std::size_t kTriersMax = 100'000;
constexpr std::size_t kRefusalsPerMinute = 100;  // in the audit log
constexpr const char* kSaltKey = "org/salt-key";

// A nonce: when it was made (8 bytes), random (8), and that it was made here (16). So nobody can
// fill a table with questions that are never answered.
Secret32 seal_of(const Secret32& key, ByteView head) {
  return crypto::prf(key, "login-nonce", {head});
}

std::string host_of(const std::string& peer) {
  // The port is another one each time.
  const std::size_t colon = peer.rfind(':');
  return peer.starts_with("ipv") ? peer.substr(0, colon) : peer;
}

Error stale_nonce() {
  return make_error(ErrorCode::kPermissionDenied,
                    "this login answers no question of this server, or too late", "log in again");
}

}  // namespace

Status check_session_now(const trust::OrgState& org, const trust::SessionCertificate& session) {
  DIMS_TRY(trust::check_session(org, session));
  const trust::User* const user = org.user(session.user);
  const auto then = org.keys_at(session.user, session.position.seq);
  if (user != nullptr && then && user->keys.sign_key == then->sign_key) return ok_status();
  return make_error(ErrorCode::kPermissionDenied, "session: its user has new keys", "log in again");
}

Result<std::unique_ptr<LoginDesk>> LoginDesk::open(contract::RefStore& refs, OrgBook& book,
                                                   People& people, Tokens& tokens, Audit& audit,
                                                   Clock& clock, Random& random) {
  std::unique_ptr<LoginDesk> desk(new LoginDesk(book, people, tokens, audit, clock, random));
  DIMS_ASSIGN(const auto row, refs.get(kSaltKey));
  if (row) {
    const auto key = Secret32::from_view(row->value);
    if (!key) return make_error(ErrorCode::kCorrupt, "the server's salt key is damaged");
    desk->salt_key_ = *key;
  } else {
    desk->salt_key_ = random.id<Secret32>();
    DIMS_TRY(refs.put(kSaltKey, desk->salt_key_.view(), 0));
  }
  return desk;
}

trust::LoginNonce LoginDesk::challenge() {
  trust::LoginNonce nonce = random_.id<trust::LoginNonce>();
  const auto now = static_cast<std::uint64_t>(clock_.boottime().count());
  std::memcpy(nonce.bytes.data(), &now, sizeof now);
  const Secret32 seal = seal_of(nonce_key_, nonce.view().first(16));
  std::memcpy(nonce.bytes.data() + 16, seal.bytes.data(), 16);
  return nonce;
}

Status LoginDesk::check_nonce(const trust::LoginNonce& nonce) {
  const Secret32 seal = seal_of(nonce_key_, nonce.view().first(16));
  std::uint64_t made = 0;
  std::memcpy(&made, nonce.bytes.data(), sizeof made);
  const bool ours = crypto::equal_constant_time(nonce.view().subspan(16), seal.view().first(16));
  if (ours && clock_.boottime() - std::chrono::nanoseconds(made) <= kNonceLasts) return ok_status();
  return stale_nonce();
}

Status LoginDesk::use_nonce(const trust::LoginNonce& nonce) {
  const auto now = clock_.boottime();
  const std::lock_guard lock(mutex_);
  while (!used_.empty() && now - used_.front().first > 2 * kNonceLasts) {
    used_set_.erase(used_.front().second);
    used_.pop_front();
  }
  if (!used_set_.insert(nonce).second) return stale_nonce();
  used_.emplace_back(now, nonce);
  return ok_status();
}

Result<LoginDesk::Try> LoginDesk::take_try(const std::string& name, const std::string& place) {
  const auto now = clock_.boottime();
  const std::lock_guard lock(mutex_);
  const Try one{{"user " + name, "from " + place}, now};
  const auto too_many = [](std::chrono::nanoseconds wait) {
    return make_error(
        ErrorCode::kResourceExhausted, "too many logins were tried",
        "wait " + std::to_string(std::chrono::ceil<std::chrono::seconds>(wait).count()) + " s");
  };
  // Both are looked at before either is noted: who is refused fills no table.
  std::size_t fresh = 0;
  for (const std::string& key : one.keys) {
    const auto found = tries_.find(key);
    if (found == tries_.end()) {
      ++fresh;
      continue;
    }
    auto& times = found->second;
    while (!times.empty() && now - times.front() > kTryCounts) times.pop_front();
    if (times.size() >= kGuessesPerMinute) return too_many(kTryCounts - (now - times.front()));
  }
  if (fresh != 0 && tries_.size() + fresh > kTriersMax) {
    std::erase_if(tries_, [&](const auto& other) {
      return other.second.empty() || now - other.second.back() > kTryCounts;
    });
    if (tries_.size() + fresh > kTriersMax) return too_many(kTryCounts);
  }
  for (const std::string& key : one.keys) tries_[key].push_back(now);
  return one;
}

void LoginDesk::give_back(const Try& one) {
  const std::lock_guard lock(mutex_);
  for (const std::string& key : one.keys) {
    const auto found = tries_.find(key);
    if (found == tries_.end()) continue;
    auto& times = found->second;
    const auto at = std::find(times.begin(), times.end(), one.time);
    if (at != times.end()) times.erase(at);
    if (times.empty()) tries_.erase(found);
  }
}

trust::LoginContext LoginDesk::context_of(const trust::LoginNonce& nonce, const MachineId& machine,
                                          const Peer& peer) const {
  return {book_.org(), nonce, peer.server, machine};
}

trust::LoginRecord LoginDesk::login_record(const std::string& name) {
  // Made for every name, so that it costs the same.
  const trust::LoginRecord nobody = trust::unknown_login_record(salt_key_, book_.org(), name);
  const trust::UserId id = book_.with([&](const trust::OrgState& org) {
    const trust::User* const user = org.user_named(name);
    return user == nullptr ? trust::UserId{} : user->id;
  });
  const auto facts = people_.login_facts(id);
  return facts ? facts->login : nobody;
}

Result<trust::RecoveryRecord> LoginDesk::recovery_record(const std::string& name,
                                                         const Peer& peer) {
  if (!trust::is_valid_name(name)) return trust::login_refused();
  // Counted as a try to log in: nobody can collect what is behind all names.
  DIMS_TRY(take_try(name, host_of(peer.address)));
  const trust::RecoveryRecord nobody = trust::unknown_recovery_record(salt_key_, book_.org(), name);
  const trust::UserId id = book_.with([&](const trust::OrgState& org) {
    const trust::User* const user = org.user_named(name);
    return user == nullptr ? trust::UserId{} : user->id;
  });
  const auto facts = people_.login_facts(id);
  return facts && facts->recovery ? *facts->recovery : nobody;
}

Status LoginDesk::check_user(const UserLogin& login, const trust::LoginContext& context,
                             Caller& caller) {
  bool active = false;
  crypto::PublicKey own;
  book_.with([&](const trust::OrgState& org) {
    const trust::User* const user = org.user_named(login.name);
    active = user != nullptr && user->status == trust::UserStatus::kActive;
    if (user == nullptr) return;
    caller.user = user->id;
    own = user->keys.sign_key;
  });
  const auto facts = people_.login_facts(caller.user);
  // With the passphrase's key; or, after recovery words, with the user's own that the log has.
  // Both are always tried: unknown names cost the same.
  const Status by_passphrase = trust::verify_user_login(
      context, login.name, active && facts ? &facts->login_key : nullptr, login.signature);
  const Status by_own =
      trust::verify_user_login(context, login.name, active ? &own : nullptr, login.signature);
  return by_passphrase.ok() ? by_passphrase : by_own;
}

Result<LoginDesk::Done> LoginDesk::login_user(const UserLogin& login, const Peer& peer) {
  Caller caller;
  caller.kind = Caller::Kind::kUser;
  caller.address = peer.address;
  const std::string host = host_of(peer.address);
  // What cannot be a name is nobody's, and nothing to remember.
  if (!trust::is_valid_name(login.name)) return trust::login_refused();
  const trust::LoginContext context = context_of(login.nonce, login.machine, peer);
  // Who only says that he is a machine counts as the host that he calls from.
  const Status machine =
      login.machine.is_zero() ? ok_status() : book_.with([&](const trust::OrgState& org) {
        return trust::verify_machine_login(org, context, login.machine_signature);
      });
  const bool enrolled = !login.machine.is_zero() && machine.ok();
  DIMS_ASSIGN(const Try one, take_try(login.name, enrolled ? login.machine.hex() : host));
  DIMS_TRY(check_nonce(login.nonce));
  const Status known = check_user(login, context, caller);
  if (!known.ok()) {
    refused(login.name, caller);
    return known.error();
  }
  if (!machine.ok()) {
    refused(login.name, caller);
    return machine.error();
  }
  caller.machine = login.machine;
  DIMS_TRY(use_nonce(login.nonce));
  Seen seen;
  seen.time_unix_s = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
  seen.machine = caller.machine;
  seen.address = host;
  DIMS_TRY(people_.saw_user(caller.user, seen));
  if (!caller.machine.is_zero()) DIMS_TRY(people_.saw_machine(caller.machine, seen));
  give_back(one);
  audit_.add(caller, "login");
  return issue(std::move(caller), kUserTokenLasts);
}

Result<LoginDesk::Done> LoginDesk::login_machine(const trust::LoginNonce& nonce,
                                                 const MachineId& machine,
                                                 const crypto::Signature& signature,
                                                 ByteView certificate, const Peer& peer) {
  Caller caller;
  caller.kind = Caller::Kind::kMachine;
  caller.machine = machine;
  caller.address = peer.address;
  DIMS_TRY(check_nonce(nonce));
  const trust::LoginContext context = context_of(nonce, machine, peer);
  const auto standing =
      certificate.empty() ? trust::MachineStanding::kRevokedToo : trust::MachineStanding::kEnrolled;
  bool revoked = false;
  const Status known = book_.with([&](const trust::OrgState& org) {
    const trust::Machine* const one = org.machine(machine);
    revoked = one != nullptr && one->revoked;
    return trust::verify_machine_login(org, context, signature, standing);
  });
  if (!known.ok()) {
    refused("machine " + machine.short_hex(), caller);
    return known.error();
  }
  DIMS_TRY(use_nonce(nonce));
  if (!certificate.empty()) {
    DIMS_ASSIGN(trust::SessionCertificate session, trust::decode_session(certificate));
    DIMS_TRY(
        book_.with([&](const trust::OrgState& org) { return check_session_now(org, session); }));
    if (!(session.machine == machine)) {
      return make_error(ErrorCode::kPermissionDenied,
                        "the session's certificate is another machine's", "log in again");
    }
    caller.user = session.user;
    caller.session = std::make_shared<const trust::SessionCertificate>(std::move(session));
  }
  Seen seen;
  seen.time_unix_s = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
  seen.address = host_of(peer.address);
  DIMS_TRY(people_.saw_machine(machine, seen));
  audit_.add(caller, revoked ? "login-revoked-machine" : "login-machine");
  return issue(std::move(caller), kMachineTokenLasts);
}

Result<LoginDesk::Done> LoginDesk::login_join(const trust::LoginNonce& nonce,
                                              const crypto::PublicKey& key,
                                              const crypto::Signature& signature,
                                              const Peer& peer) {
  Caller caller;
  caller.kind = Caller::Kind::kJoin;
  caller.join_key = key;
  caller.address = peer.address;
  DIMS_TRY(check_nonce(nonce));
  const trust::LoginContext context = context_of(nonce, {}, peer);
  const Status known = book_.with([&](const trust::OrgState& org) {
    return trust::verify_join_login(org, context, key, signature);
  });
  if (!known.ok()) {
    refused("a join line", caller);
    return known.error();
  }
  DIMS_TRY(use_nonce(nonce));
  audit_.add(caller, "login-join");
  return issue(std::move(caller), kJoinTokenLasts);
}

LoginDesk::Done LoginDesk::issue(Caller caller, std::chrono::seconds lasts) {
  const Tokens::Issued token = tokens_.issue(caller, lasts, random_);
  return {token, std::move(caller)};
}

void LoginDesk::refused(const std::string& who, const Caller& caller) {
  {
    // A flood shows as a flood; it must not wash everything else out of the log.
    const auto now = clock_.boottime();
    const std::lock_guard lock(mutex_);
    while (!refusals_.empty() && now - refusals_.front() > kTryCounts) refusals_.pop_front();
    if (refusals_.size() >= kRefusalsPerMinute) return;
    refusals_.push_back(now);
  }
  audit_.add(caller, "login-refused", {}, who);
}

}  // namespace dims::access
