// OrgState: whether a record's signer may say what it says (the conditions of rules.h).
#include "common/trust/org_refusal.h"
#include "common/trust/org_state.h"

namespace dims::trust {
namespace {

bool is_about(const Body& body, const UserId& user) {
  const auto* const change = std::get_if<KeyChange>(&body);
  return change != nullptr && change->user == user;
}

}  // namespace

Status OrgState::check_rule(const LogRecord& record) const {
  const SignerRole role = role_of(record.signer);
  const Rule rule = rule_of(record.kind(), role);
  const User* const signer = user_of_key(record.signer);
  if (rule == Rule::kScope) return may_scope(std::get<KeyEpoch>(record.body), role, signer);
  if (rule == Rule::kNever)
    return untrusted(record,
                     "its signer (" + std::string(signer_role_name(role)) + ") may not say this");
  return may(rule, record, signer);
}

Status OrgState::may(Rule rule, const LogRecord& record, const User* signer) const {
  switch (rule) {
    case Rule::kAlways:
      return ok_status();
    case Rule::kSelf:
      if (signer != nullptr && is_about(record.body, signer->id)) return ok_status();
      return untrusted(record, "its signer may say this of himself only");
    case Rule::kMachines: {
      if (const auto* const key = std::get_if<JoinKey>(&record.body); key && key->for_machine)
        return ok_status();
      if (const auto* const cancel = std::get_if<JoinCancel>(&record.body)) {
        const Join* const open = join(cancel->key);
        if (open != nullptr && open->body.for_machine) return ok_status();
      }
      return untrusted(record, "an operator may say this of machines only");
    }
    case Rule::kToken:
      return check_token(record);
    case Rule::kImage: {
      const auto& acl = std::get<ImageAcl>(record.body);
      if (signer != nullptr && access(signer->id, acl.image) == Access::kAdmin) return ok_status();
      // Whoever makes an image owns it: its first line.
      if (signer != nullptr && !knows_image(acl.image) && acl.user == signer->id &&
          acl.access == Access::kAdmin)
        return ok_status();
      return untrusted(record, "its signer does not administer this image");
    }
    case Rule::kFirst:
    case Rule::kNever:
    case Rule::kScope:
      break;
  }
  return untrusted(record, "nobody may say this here");
}

Status OrgState::may_scope(const KeyEpoch& epoch, SignerRole role, const User* signer) const {
  const bool top = role == SignerRole::kRoot || role == SignerRole::kAdministrator;
  if (epoch.scope == KeyScope::kDomain) {
    if (epoch.id.bytes == init_.domain.bytes && top) return ok_status();
    if (signer != nullptr && epoch.id.bytes == signer->private_domain.bytes) return ok_status();
  } else {
    ImageId image;
    image.bytes = epoch.id.bytes;
    if (top || (signer != nullptr && access(signer->id, image) == Access::kAdmin))
      return ok_status();
  }
  return senseless(ErrorCode::kUntrusted,
                   "a new epoch of a domain or image that its signer does not administer");
}

Status OrgState::check_token(const LogRecord& record) const {
  const Join* const join = this->join(record.signer);
  if (join == nullptr || join->status != JoinStatus::kOpen)
    return untrusted(record, "its join key is unknown or spent");
  const JoinKey& token = join->body;
  if (record.time_unix_s > token.expires_unix_s) {
    Error error = untrusted(record, "its join key has expired");
    error.hint = "ask the administrator for a new join line";
    return error;
  }
  if (const auto* const machine = std::get_if<MachineCert>(&record.body)) {
    if (token.for_machine && (token.name.empty() || token.name == machine->name))
      return ok_status();
  } else if (const auto* const user = std::get_if<UserCert>(&record.body)) {
    if (!token.for_machine && token.name == user->name && token.role == user->role &&
        token.user == user->user)
      return ok_status();
  }
  return untrusted(record, "it is not what its join key was made for");
}

}  // namespace dims::trust
