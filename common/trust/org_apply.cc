// OrgState: what must hold of a record whoever signed it, and what it changes.
#include <algorithm>

#include "common/trust/org_refusal.h"
#include "common/trust/org_state.h"

namespace dims::trust {
namespace {

template <typename Tag>
Id<struct OwnerIdTag, 16> owner_id(const Id<Tag, 16>& id) {
  Id<struct OwnerIdTag, 16> out;
  out.bytes = id.bytes;
  return out;
}

}  // namespace

Result<OrgState> OrgState::begin(const OrgId& org, const LogRecord& first) {
  const auto* const init = std::get_if<OrgInit>(&first.body);
  if (init == nullptr || first.seq != 0 || !first.previous.is_zero())
    return make_error(ErrorCode::kOtherHistory, "log: it does not begin with its first record");
  if (first.org != org || org_of(init->root_key) != org || first.signer != init->root_key)
    return untrusted(first, "it is another organisation's");
  DIMS_TRY(check_name("the organisation's name", init->name));
  if (init->domain.is_zero()) return invalid("the organisation's domain has no id");
  OrgState state;
  state.org_ = org;
  state.init_ = *init;
  state.position_ = {0, first.hash};
  state.hashes_ = {first.hash};
  state.owners_[init->root_key] = {Owner::kRoot, {}};
  state.domains_.insert(init->domain);
  return state;
}

Status OrgState::fresh_key(ByteView key) const {
  const bool zero = is_all_zero(key);
  if (!zero && !owners_.contains(*PublicKey::from_view(key)) &&
      !box_keys_.contains(*Id<struct BoxedTag, 32>::from_view(key)))
    return ok_status();
  return zero ? invalid("a key is missing")
              : senseless(ErrorCode::kAlreadyExists, "a key is in use or was used before");
}

bool OrgState::other_administrator(const UserId& user) const {
  return std::any_of(users_.begin(), users_.end(), [&](const auto& entry) {
    return entry.first != user && is_administrator(entry.first);
  });
}

template <>
Status OrgState::check_body(const OrgInit&, const LogRecord& record) const {
  return untrusted(record, "the log has its first record");
}
template <>
Status OrgState::check_body(const UserCert& b, const LogRecord&) const {
  DIMS_TRY(check_name("the user's name", b.name));
  if (b.user.is_zero() || b.private_domain.is_zero())
    return invalid("a user without id or private domain");
  if (users_.contains(b.user) || domains_.contains(b.private_domain))
    return senseless(ErrorCode::kAlreadyExists, "the user's id or domain is taken");
  if (user_named(b.name) != nullptr)
    return senseless(ErrorCode::kAlreadyExists, "there is a user '" + b.name + "'");
  DIMS_TRY(fresh_key(b.keys.sign_key.view()));
  DIMS_TRY(fresh_key(b.keys.box_key.view()));
  return check_proof(b, org_);
}
template <>
Status OrgState::check_body(const UserState& b, const LogRecord& record) const {
  const User* const known = user(b.user);
  if (known == nullptr) return senseless(ErrorCode::kNotFound, "an unknown user's state");
  if (known->status == UserStatus::kRemoved)
    return invalid("user '" + known->name + "' is removed for good");
  const bool stays = b.status == UserStatus::kActive && b.role == Role::kAdministrator;
  if (is_administrator(b.user) && !stays && !other_administrator(b.user) &&
      role_of(record.signer) != SignerRole::kRoot) {
    return make_error(ErrorCode::kPermissionDenied,
                      "log: '" + known->name + "' is the last administrator",
                      "make another user administrator first");
  }
  return ok_status();
}
template <>
Status OrgState::check_body(const KeyChange& b, const LogRecord&) const {
  const User* const known = user(b.user);
  if (known == nullptr || known->status == UserStatus::kRemoved)
    return senseless(ErrorCode::kNotFound, "new keys of an unknown user");
  DIMS_TRY(fresh_key(b.keys.sign_key.view()));
  DIMS_TRY(fresh_key(b.keys.box_key.view()));
  return check_proof(b, org_);
}
template <>
Status OrgState::check_body(const MachineCert& b, const LogRecord&) const {
  DIMS_TRY(check_name("the machine's name", b.name));
  if (b.machine.is_zero()) return invalid("a machine without id");
  if (machines_.contains(b.machine))
    return senseless(ErrorCode::kAlreadyExists, "the machine's id is taken");
  if (machine_named(b.name) != nullptr)
    return senseless(ErrorCode::kAlreadyExists, "there is a machine '" + b.name + "'");
  DIMS_TRY(fresh_key(b.sign_key.view()));
  return check_proof(b, org_);
}
template <>
Status OrgState::check_body(const MachineRevoke& b, const LogRecord&) const {
  const Machine* const known = machine(b.machine);
  if (known == nullptr) return senseless(ErrorCode::kNotFound, "an unknown machine");
  return known->revoked ? Status(invalid("machine '" + known->name + "' is revoked already"))
                        : ok_status();
}
template <>
Status OrgState::check_body(const MachineWipe& b, const LogRecord&) const {
  return machine(b.machine) != nullptr
             ? ok_status()
             : Status(senseless(ErrorCode::kNotFound, "an unknown machine"));
}
template <>
Status OrgState::check_body(const JoinKey& b, const LogRecord& record) const {
  DIMS_TRY(fresh_key(b.key.view()));
  if (b.expires_unix_s <= record.time_unix_s) return invalid("a join key that has expired");
  if (b.for_machine)
    return b.user.is_zero() && b.role == Role::kUser
               ? ok_status()
               : Status(invalid("a machine's join key names a user or a role"));
  DIMS_TRY(check_name("the user's name", b.name));
  if (b.user.is_zero() || users_.contains(b.user))
    return senseless(ErrorCode::kAlreadyExists, "the user's id is missing or taken");
  return user_named(b.name) == nullptr
             ? ok_status()
             : Status(senseless(ErrorCode::kAlreadyExists, "there is a user '" + b.name + "'"));
}
template <>
Status OrgState::check_body(const JoinCancel& b, const LogRecord&) const {
  const Join* const known = join(b.key);
  return known != nullptr && known->status == JoinStatus::kOpen
             ? ok_status()
             : Status(senseless(ErrorCode::kNotFound, "no such open join key"));
}
template <>
Status OrgState::check_body(const ImageAcl& b, const LogRecord&) const {
  if (b.image.is_zero()) return invalid("an access list without image");
  if (b.user == kEveryone)
    return b.access == Access::kAdmin ? Status(invalid("not everyone can administer an image"))
                                      : ok_status();
  const User* const known = user(b.user);
  if (known == nullptr) return senseless(ErrorCode::kNotFound, "access for an unknown user");
  return known->status == UserStatus::kRemoved && b.access != Access::kNone
             ? Status(invalid("access for '" + known->name + "', who is removed"))
             : ok_status();
}
template <>
Status OrgState::check_body(const KeyEpoch& b, const LogRecord&) const {
  ImageId image;
  image.bytes = b.id.bytes;
  if (b.scope == KeyScope::kImage && !knows_image(image))
    return senseless(ErrorCode::kNotFound, "an epoch of an unknown image");
  const Epoch* const last = epoch(b.scope, b.id);
  const std::uint32_t next = last == nullptr ? 1 : last->body.epoch + 1;
  if (b.epoch != next)
    return senseless(ErrorCode::kConflict, "epoch " + std::to_string(b.epoch) + " where " +
                                               std::to_string(next) + " is the next");
  if (b.commitment.is_zero()) return invalid("an epoch without commitment");
  if (b.scope == KeyScope::kDomain && (b.last_sequence != 0 || !b.last_version.is_zero()))
    return invalid("a domain's epoch names a version");
  return ok_status();
}
template <>
Status OrgState::check_body(const Policy& b, const LogRecord&) const {
  return b.offline_users <= 64 && b.session_max_s >= 60 && b.session_max_s <= 366 * 86400
             ? ok_status()
             : Status(invalid("a policy out of bounds: at most 64 users, sessions of 60 s to 366 "
                              "days"));
}
template <>
Status OrgState::check_body(const Quota& b, const LogRecord&) const {
  return b.user == kEveryone || user(b.user) != nullptr
             ? ok_status()
             : Status(senseless(ErrorCode::kNotFound, "a quota of an unknown user"));
}

template <>
void OrgState::take(const OrgInit&, const LogRecord&) {}
template <>
void OrgState::take(const UserCert& b, const LogRecord& record) {
  Member& member = users_[b.user];
  member.now = {b.user, b.name,           b.role,     UserStatus::kActive,
                b.keys, b.private_domain, record.seq, record.seq};
  member.standings.push_back({record.seq, UserStatus::kActive, b.role});
  member.holdings.push_back({record.seq, b.keys});
  owners_[b.keys.sign_key] = {Owner::kUser, owner_id(b.user)};
  box_keys_.insert(*Id<struct BoxedTag, 32>::from_view(b.keys.box_key.view()));
  domains_.insert(b.private_domain);
}
template <>
void OrgState::take(const UserState& b, const LogRecord& record) {
  Member& member = users_[b.user];
  member.now.status = b.status;
  member.now.role = b.role;
  member.standings.push_back({record.seq, b.status, b.role});
}
template <>
void OrgState::take(const KeyChange& b, const LogRecord& record) {
  Member& member = users_[b.user];
  member.now.keys = b.keys;
  member.now.keys_since_seq = record.seq;
  member.holdings.push_back({record.seq, b.keys});
  owners_[b.keys.sign_key] = {Owner::kUser, owner_id(b.user)};
  box_keys_.insert(*Id<struct BoxedTag, 32>::from_view(b.keys.box_key.view()));
}
template <>
void OrgState::take(const MachineCert& b, const LogRecord& record) {
  machines_[b.machine] = {b.machine, b.name, b.sign_key, false, std::nullopt, record.seq, 0};
  owners_[b.sign_key] = {Owner::kMachine, owner_id(b.machine)};
}
template <>
void OrgState::take(const MachineRevoke& b, const LogRecord& record) {
  machines_[b.machine].revoked = true;
  machines_[b.machine].orders_seq = record.seq;
}
template <>
void OrgState::take(const MachineWipe& b, const LogRecord& record) {
  machines_[b.machine].wipe = Wipe{record.seq, b.spare_unsent};
  machines_[b.machine].orders_seq = record.seq;
}
template <>
void OrgState::take(const JoinKey& b, const LogRecord& record) {
  joins_[b.key] = {b, JoinStatus::kOpen, record.seq};
  owners_[b.key] = {Owner::kJoin, {}};
}
template <>
void OrgState::take(const JoinCancel& b, const LogRecord&) {
  joins_[b.key].status = JoinStatus::kCancelled;
}
template <>
void OrgState::take(const ImageAcl& b, const LogRecord& record) {
  images_[b.image][b.user].push_back({record.seq, b.access});
}
template <>
void OrgState::take(const KeyEpoch& b, const LogRecord& record) {
  epochs_[{b.scope, b.id}].push_back({b, record.seq});
}
template <>
void OrgState::take(const Policy& b, const LogRecord& record) {
  policy_ = b;
  policies_.emplace_back(record.seq, b);
}
template <>
void OrgState::take(const Quota& b, const LogRecord&) {
  quotas_[b.user] = b;
}

// After the specialisations that they use.
Status OrgState::check(const LogRecord& record) const {
  if (record.org != org_) return untrusted(record, "it is another organisation's");
  if (record.seq != position_.seq + 1 || record.previous != position_.hash) {
    return make_error(ErrorCode::kOtherHistory,
                      "log record " + std::to_string(record.seq) + " does not follow record " +
                          std::to_string(position_.seq) + " that is known here",
                      "read the log again; if this stays, the server shows two histories");
  }
  DIMS_TRY(check_rule(record));
  return std::visit([&](const auto& body) { return check_body(body, record); }, record.body);
}

Status OrgState::apply(const LogRecord& record) {
  DIMS_TRY(check(record));
  const auto join = joins_.find(record.signer);
  if (join != joins_.end()) join->second.status = JoinStatus::kUsed;
  std::visit([&](const auto& body) { take(body, record); }, record.body);
  position_ = {record.seq, record.hash};
  hashes_.push_back(record.hash);
  return ok_status();
}

}  // namespace dims::trust
