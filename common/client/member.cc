#include "common/client/member.h"

namespace dims::client {
namespace {

constexpr int kAppendTries = 5;

Error no_org(const std::string& server) {
  return make_error(ErrorCode::kNotFound, "the server " + server + " has no organisation",
                    "make one with 'rdim init-org', or use a key file");
}

// One question to the server, and the organisation that it must be.
Result<trust::LoginContext> ask(AccessClient& access, const LoginPlace& place) {
  DIMS_ASSIGN(trust::LoginContext context, access.challenge());
  if (context.org.is_zero()) return no_org(place.server);
  if (!place.org.is_zero() && !(context.org == place.org)) {
    return make_error(ErrorCode::kUntrusted,
                      "the server " + place.server + " belongs to another organisation (" +
                          context.org.short_hex() + ", not " + place.org.short_hex() + ")",
                      "check the server's address");
  }
  if (place.machine != nullptr) context.machine = place.machine->machine;
  return context;
}

Result<LoginAnswer> answer_as_user(AccessClient& access, const LoginPlace& place,
                                   const std::string& name, const crypto::SecretSigner& login_key) {
  DIMS_ASSIGN(const trust::LoginContext context, ask(access, place));
  trust::Signature machine;
  if (place.machine != nullptr) machine = trust::sign_machine_login(context, place.machine->sign);
  return access.login_user(context, name, trust::sign_user_login(context, name, login_key),
                           machine);
}

// The person's own record, checked against the log.
Status take_record(Member& member) {
  DIMS_ASSIGN(const Bytes bytes, member.access->user_record({}));
  DIMS_ASSIGN(member.record, trust::decode_user_record(bytes));
  if (member.record.name != member.name)
    return make_error(ErrorCode::kUntrusted, "the server gave another user's record",
                      "it is not honest, or damaged; ask your administrator");
  return trust::check_user_record(member.org(), member.record);
}

}  // namespace

std::uint64_t unix_now_s(Clock& clock) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock.wall()).count());
}

LoginToken::Renew user_login(const LoginPlace& place, std::string name,
                             const crypto::SecretSigner& login_key) {
  const auto key = std::make_shared<crypto::SecretSigner>(login_key.clone());
  return [place, name = std::move(name), key]() -> Result<Token> {
    DIMS_ASSIGN(const auto access, AccessClient::connect(place.server, place.known_servers));
    DIMS_ASSIGN(const LoginAnswer answer, answer_as_user(*access, place, name, *key));
    return answer.token;
  };
}

LoginToken::Renew machine_login(const LoginPlace& place, Bytes certificate) {
  return [place, certificate = std::move(certificate)]() -> Result<Token> {
    DIMS_ASSIGN(const auto access, AccessClient::connect(place.server, place.known_servers));
    DIMS_ASSIGN(const trust::LoginContext context, ask(*access, place));
    DIMS_ASSIGN(const LoginAnswer answer,
                access->login_machine(
                    context, trust::sign_machine_login(context, place.machine->sign), certificate));
    if (certificate.empty()) return answer.token;
    // A session that began without the server is not known there yet.
    const auto once = std::make_shared<LoginToken>(
        []() -> Result<Token> {
          return make_error(ErrorCode::kUnavailable, "the login has ended");
        },
        answer.token);
    DIMS_ASSIGN(const auto mine, AccessClient::connect(place.server, place.known_servers, once));
    DIMS_TRY(mine->put_session(certificate));
    return answer.token;
  };
}

LoginToken::Renew join_login(const LoginPlace& place, const crypto::SecretSigner& join_key) {
  const auto key = std::make_shared<crypto::SecretSigner>(join_key.clone());
  return [place, key]() -> Result<Token> {
    DIMS_ASSIGN(const auto access, AccessClient::connect(place.server, place.known_servers));
    DIMS_ASSIGN(const trust::LoginContext context, ask(*access, place));
    DIMS_ASSIGN(
        const LoginAnswer answer,
        access->login_join(context, key->public_key, trust::sign_join_login(context, *key)));
    return answer.token;
  };
}

Result<Member> login_user(const LoginPlace& place, const std::string& name, ByteView passphrase) {
  DIMS_TRY(trust::check_name("the user's name", name));
  DIMS_ASSIGN(const auto open, AccessClient::connect(place.server, place.known_servers));
  DIMS_ASSIGN(const trust::LoginRecord facts, open->login_record(name));
  DIMS_ASSIGN(trust::PassphraseKeys keys,
              trust::passphrase_keys(passphrase, facts.salt, facts.parameters));
  DIMS_ASSIGN(const LoginAnswer answer, answer_as_user(*open, place, name, keys.login));
  DIMS_ASSIGN(const trust::LoginContext here, ask(*open, place));
  LoginPlace known = place;
  known.org = here.org;
  const auto token =
      std::make_shared<LoginToken>(user_login(known, name, keys.login), answer.token);
  DIMS_ASSIGN(auto access, AccessClient::connect(place.server, place.known_servers, token));
  DIMS_ASSIGN(trust::OrgLog log, read_log(*access, here.org, place.records));
  Member member{name,           {},          std::move(keys), {},
                std::move(log), here.server, token,           std::move(access)};
  DIMS_TRY(take_record(member));
  DIMS_ASSIGN(member.secrets, trust::open_user_record(member.record, member.keys));
  if (!(member.secrets.user == answer.user))
    return make_error(ErrorCode::kUntrusted, "the server takes " + name + " for somebody else");
  return member;
}

Result<Member> resume_member(const LoginPlace& place, const std::string& name,
                             trust::UserSecrets secrets, trust::PassphraseKeys keys,
                             std::optional<Token> token) {
  const auto held =
      std::make_shared<LoginToken>(user_login(place, name, keys.login), std::move(token));
  DIMS_ASSIGN(auto access, AccessClient::connect(place.server, place.known_servers, held));
  DIMS_ASSIGN(trust::OrgLog log, read_log(*access, place.org, place.records));
  Member member{name, std::move(secrets), std::move(keys), {}, std::move(log), {},
                held, std::move(access)};
  DIMS_TRY(take_record(member));
  return member;
}

Status Member::refresh() {
  DIMS_ASSIGN(trust::OrgLog fresh, read_log(*access, org().org(), records_of(log)));
  log = std::move(fresh);
  return ok_status();
}

Status Member::append(const Make& make) { return append(secrets.sign, make); }

Status Member::append(const crypto::SecretSigner& signer, const Make& make) {
  for (int attempt = 1;; ++attempt) {
    DIMS_ASSIGN(const std::vector<trust::Body> bodies, make(org()));
    if (bodies.empty()) return ok_status();
    std::vector<Bytes> records;
    trust::Position at = log.position();
    trust::OrgState next = org();
    for (const trust::Body& body : bodies) {
      const trust::LogRecord said =
          trust::make_record(org().org(), &at, unix_now_s(), body, signer);
      // What would be refused is refused here, in words about this very record.
      DIMS_TRY(next.apply(said));
      at = {said.seq, said.hash};
      records.push_back(said.bytes);
    }
    const auto appended = access->append_log(log.position(), records);
    if (appended.ok()) return log.extend(records);
    // If the answer was lost, the log shows whether they are in it.
    const ErrorCode code = appended.error().code;
    const bool lost = code == ErrorCode::kUnavailable || code == ErrorCode::kDeadlineExceeded;
    if (!lost && (code != ErrorCode::kConflict || attempt == kAppendTries)) return appended.error();
    const std::uint64_t first = log.size();
    const Status fresh = refresh();
    bool there = fresh.ok() && log.size() >= first + records.size();
    for (std::size_t i = 0; there && i < records.size(); ++i)
      there = log.record(first + i) == records[i];
    if (there) return ok_status();
    if (lost) return appended.error();
    DIMS_TRY(fresh);
  }
}

}  // namespace dims::client
