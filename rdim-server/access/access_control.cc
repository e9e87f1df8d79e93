#include "rdim-server/access/access_control.h"

#include <algorithm>

#include "common/crypto/hash.h"

namespace dims::access {
namespace {

using trust::Access;
using Kind = Caller::Kind;

constexpr int kBranchesMax = 16;  // of branches

std::uint64_t now_unix_s(Clock& clock) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock.wall()).count());
}

}  // namespace

Error denied() {
  return make_error(ErrorCode::kPermissionDenied, "access denied",
                    "there is no such thing, or you may not do this with it; ask your "
                    "administrator");
}

Error login_needed() {
  return make_error(ErrorCode::kPermissionDenied, "this needs a login", "log in, or log in again");
}

Digest bootstrap_digest(ByteView secret) {
  if (secret.size() == Secret32::kBytes) return crypto::sha256(as_bytes(to_hex(secret)));
  std::string_view text = as_text(secret);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return crypto::sha256(as_bytes(text));
}

Result<std::unique_ptr<AccessControl>> AccessControl::open(contract::RefStore& refs, Clock& clock,
                                                           Random& random,
                                                           std::optional<Digest> bootstrap) {
  std::unique_ptr<AccessControl> out(new AccessControl(clock, random, bootstrap));
  DIMS_ASSIGN(out->book_, OrgBook::open(refs, clock));
  DIMS_ASSIGN(out->people_, People::open(refs));
  DIMS_ASSIGN(out->audit_, Audit::open(refs, clock));
  DIMS_ASSIGN(out->desk_, LoginDesk::open(refs, *out->book_, *out->people_, out->tokens_,
                                          *out->audit_, clock, random));
  return out;
}

Mode AccessControl::mode() const {
  if (book_->exists()) return Mode::kOrganisation;
  return bootstrap_ ? Mode::kPrepared : Mode::kOnePerson;
}

bool AccessControl::still_good(const Caller& caller) const {
  return book_->with([&](const trust::OrgState& org) {
    if (caller.kind == Kind::kJoin) {
      // The root key makes administrators when there is none.
      if (caller.join_key == org.init().root_key) return true;
      const trust::Join* const join = org.join(caller.join_key);
      return join != nullptr && join->status == trust::JoinStatus::kOpen;
    }
    if (!caller.machine.is_zero()) {
      const trust::Machine* const machine = org.machine(caller.machine);
      if (machine == nullptr || machine->revoked) return false;
    }
    if (caller.acts_for_user() && !org.is_active(caller.user)) return false;
    return caller.session == nullptr ||
           now_unix_s(clock_) <= caller.session->to_unix_s + trust::kClockSkew_s;
  });
}

Caller AccessControl::caller_of(const std::optional<trust::SessionToken>& token,
                                const std::string& address) {
  Caller caller;
  caller.address = address;
  if (mode() == Mode::kOnePerson) {
    caller.kind = Kind::kOwner;
    return caller;
  }
  if (!token || mode() != Mode::kOrganisation) return caller;
  const auto found = tokens_.find(*token);
  if (!found) return caller;
  if (still_good(*found)) return *found;
  // A machine alone that was revoked: it must still learn so, and of a wipe.
  if (found->kind != Kind::kMachine || found->acts_for_user()) return caller;
  Caller revoked = *found;
  revoked.kind = Kind::kRevoked;
  return revoked;
}

std::optional<std::uint64_t> AccessControl::log_ends_at(const Caller& caller) const {
  if (caller.kind != Kind::kRevoked) return std::nullopt;
  return book_->with([&](const trust::OrgState& org) {
    const trust::Machine* const machine = org.machine(caller.machine);
    return machine == nullptr ? std::uint64_t{0} : machine->orders_seq;
  });
}

ImageId AccessControl::listed(const ImageId& image) const {
  ImageId at = image;
  for (int i = 0; i < kBranchesMax; ++i) {
    const bool known = book_->with([&](const trust::OrgState& org) { return org.knows_image(at); });
    if (known) return at;
    const auto row = people_->image(at);
    if (!row || row->branch_of.is_zero()) return at;
    at = row->branch_of;
  }
  return at;
}

Access AccessControl::access(const Caller& caller, const ImageId& image) const {
  if (caller.kind == Kind::kOwner) return Access::kAdmin;
  if (mode() != Mode::kOrganisation || !caller.acts_for_user()) return Access::kNone;
  const ImageId at = listed(image);
  const Access by_log =
      book_->with([&](const trust::OrgState& org) { return org.access(caller.user, at); });
  if (caller.session == nullptr) return by_log;
  for (const trust::SessionImage& allowed : caller.session->images) {
    if (allowed.image == at) return std::min(by_log, allowed.access);
  }
  return Access::kNone;
}

bool AccessControl::may_administer(const Caller& caller, const ImageId& image) const {
  if (caller.kind == Kind::kOwner) return true;
  if (caller.kind != Kind::kUser || mode() != Mode::kOrganisation) return false;
  const ImageId at = listed(image);
  return book_->with(
      [&](const trust::OrgState& org) { return org.may_administer(caller.user, at); });
}

bool AccessControl::has_role(const Caller& caller, trust::Role at_least) const {
  if (caller.kind == Kind::kOwner) return true;
  if (caller.kind != Kind::kUser || mode() != Mode::kOrganisation) return false;
  return book_->with([&](const trust::OrgState& org) {
    const trust::User* const user = org.user(caller.user);
    return user != nullptr && user->status == trust::UserStatus::kActive && user->role >= at_least;
  });
}

bool AccessControl::holds(const Caller& caller, Right right, const ImageId& image) const {
  switch (right) {
    case Right::kOpen:
      return true;
    case Right::kJoin:
      return caller.kind != Kind::kNobody;
    case Right::kJoinOnly:
      return caller.kind == Kind::kJoin;
    case Right::kMember:
      return caller.kind == Kind::kUser || caller.kind == Kind::kMachine ||
             caller.kind == Kind::kOwner;
    case Right::kMachine:
      return !caller.machine.is_zero();
    case Right::kUser:
      return caller.acts_for_user() || caller.kind == Kind::kOwner;
    case Right::kUserHimself:
      return caller.kind == Kind::kUser;
    case Right::kImageSee:
      return access(caller, image) >= Access::kRead || may_administer(caller, image);
    case Right::kImageRead:
      return access(caller, image) >= Access::kRead;
    case Right::kImageWrite:
      return access(caller, image) >= Access::kWrite;
    case Right::kImageAdmin:
      return may_administer(caller, image);
    case Right::kOperator:
      return has_role(caller, trust::Role::kOperator);
    case Right::kAdministrator:
      return has_role(caller, trust::Role::kAdministrator);
  }
  return false;
}

Status AccessControl::check(const Caller& caller, Right right, const ImageId& image,
                            Metering metering) {
  if (right == Right::kOpen) return ok_status();
  if (caller.kind == Kind::kNobody) {
    if (mode() != Mode::kPrepared) return login_needed();
    return make_error(ErrorCode::kPermissionDenied, "this server has no organisation yet",
                      "make it with 'rdim init-org'");
  }
  if (metering == Metering::kRequest && caller.acts_for_user()) {
    DIMS_TRY(meter_.request(caller.user, limits_of(caller).requests_per_minute));
  }
  if (holds(caller, right, image)) return ok_status();
  return denied();
}

trust::Quota AccessControl::limits_of(const Caller& caller) const {
  if (!caller.acts_for_user()) return {};
  return book_->with([&](const trust::OrgState& org) { return org.quota(caller.user); });
}

Result<OrgBook::Beside> AccessControl::user_beside(const trust::OrgState& next,
                                                   const trust::UserRecord& record,
                                                   const std::vector<Bytes>& grants) {
  DIMS_TRY(trust::check_user_record(next, record));
  for (const Bytes& bytes : grants) {
    DIMS_ASSIGN(const trust::Grant grant, trust::decode_grant(bytes));
    if (!(grant.granter == record.user) || !(grant.recipient == record.user)) return denied();
    DIMS_TRY(trust::check_grant(next, grant));
  }
  OrgBook::Beside out;
  DIMS_ASSIGN(out.rows, people_->rows_of(record, grants));
  out.stored = [this, record] { people_->user_stored(record); };
  return out;
}

Result<trust::Position> AccessControl::init_org(ByteView secret, const std::vector<Bytes>& records,
                                                ByteView user_record,
                                                const std::vector<Bytes>& grants,
                                                const Peer& peer) {
  const Digest given = bootstrap_digest(secret);
  const bool good = bootstrap_ && crypto::equal_constant_time(given.view(), bootstrap_->view());
  if (mode() != Mode::kPrepared || !good) {
    return make_error(ErrorCode::kPermissionDenied,
                      "an organisation cannot be made here with this secret",
                      "'rdim-server init' writes the secret, and it is good once");
  }
  DIMS_ASSIGN(const trust::UserRecord record, trust::decode_user_record(user_record));
  const auto also = [&](const trust::OrgState& next) -> Result<OrgBook::Beside> {
    if (!next.is_administrator(record.user)) {
      return make_error(ErrorCode::kInvalidArgument, "the first user must be an administrator");
    }
    return user_beside(next, record, grants);
  };
  DIMS_ASSIGN(const trust::Position position, book_->begin(records, also));
  Caller caller;
  caller.kind = Kind::kUser;
  caller.user = record.user;
  caller.address = peer.address;
  audit_->add(caller, "init-org", {}, record.name);
  if (on_init_) on_init_();
  return position;
}

}  // namespace dims::access
