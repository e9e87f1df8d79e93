// Grants, sessions' certificates, who was here, the audit log, quotas.
#include "rdim-server/services/access_service.h"
#include "rdim-server/services/new_image.h"
#include "rdim-server/services/pull_stream.h"

namespace dims::services {
namespace {

constexpr std::size_t kEntriesPerReply = 256;

void to_proto(const access::AuditEntry& entry, v1::AuditEntry* out) {
  out->set_number(entry.number);
  out->set_time_unix_s(entry.time_unix_s);
  out->set_what(entry.what);
  out->set_user(to_field(entry.user));
  out->set_machine(to_field(entry.machine));
  out->set_image(to_field(entry.image));
  out->set_detail(entry.detail);
  out->set_address(entry.address);
}

}  // namespace

using access::Caller;
using access::denied;

AccessService::Unary* AccessService::PutGrants(Context* context,
                                               const v1::PutGrantsRequest* request,
                                               v1::PutGrantsReply* /*reply*/) {
  return run(Rpc::kPutGrants, context,
             [this, request](const Caller& caller, const Ticket&) -> Status {
               const std::vector<Bytes> grants = bytes_of(request->grants());
               std::vector<trust::Grant> decoded;
               for (const Bytes& bytes : grants) {
                 DIMS_ASSIGN(const trust::Grant grant, trust::decode_grant(bytes));
                 if (!(grant.granter == caller.user)) return denied();
                 DIMS_TRY(control().book().with(
                     [&](const trust::OrgState& org) { return trust::check_grant(org, grant); }));
                 decoded.push_back(grant);
               }
               // All or none: who makes an epoch must not be left without what others have got.
               DIMS_TRY(control().people().put_grants(grants));
               for (const trust::Grant& grant : decoded) {
                 control().audit().add(caller, "grant", {},
                                       "epoch " + std::to_string(grant.epoch) + " of " +
                                           grant.id.hex() + " for " + grant.recipient.hex());
               }
               return ok_status();
             });
}

AccessService::Unary* AccessService::GetGrants(Context* context,
                                               const v1::GetGrantsRequest* request,
                                               v1::GetGrantsReply* reply) {
  return run(Rpc::kGetGrants, context,
             [this, request, reply](const Caller& caller, const Ticket&) -> Status {
               trust::UserId recipient;
               trust::ScopeId id;
               DIMS_TRY(take_id(request->recipient(), "user id", recipient));
               DIMS_TRY(take_id(request->id(), "scope id", id));
               if (request->scope() > static_cast<std::uint32_t>(trust::KeyScope::kImage)) {
                 return make_error(ErrorCode::kInvalidArgument, "there is no such scope");
               }
               std::optional<trust::KeyScope> scope;
               if (request->scope() != 0) scope = static_cast<trust::KeyScope>(request->scope());
               if (recipient.is_zero()) recipient = caller.user;
               if (!(recipient == caller.user) &&
                   !control().has_role(caller, trust::Role::kAdministrator)) {
                 ImageId image;
                 image.bytes = id.bytes;
                 if (scope != trust::KeyScope::kImage || !control().may_administer(caller, image))
                   return denied();
               }
               DIMS_ASSIGN(const auto grants, control().people().grants(recipient, scope, id));
               for (const Bytes& grant : grants) reply->add_grants(grant.data(), grant.size());
               return ok_status();
             });
}

AccessService::Unary* AccessService::PutSession(Context* context,
                                                const v1::PutSessionRequest* request,
                                                v1::PutSessionReply* /*reply*/) {
  return run(
      Rpc::kPutSession, context, [this, request](const Caller& caller, const Ticket&) -> Status {
        const ByteView bytes = as_bytes(request->certificate());
        DIMS_ASSIGN(const trust::SessionCertificate session, trust::decode_session(bytes));
        const bool here = caller.machine.is_zero() || caller.machine == session.machine;
        if (!(session.user == caller.user) || !here) return denied();
        DIMS_TRY(control().book().with(
            [&](const trust::OrgState& org) { return access::check_session_now(org, session); }));
        return control().people().put_session(session, bytes);
      });
}

AccessService::Unary* AccessService::GetSessions(Context* context,
                                                 const v1::GetSessionsRequest* request,
                                                 v1::GetSessionsReply* reply) {
  const auto body = [this, request, reply](const Caller&, const Ticket&) -> Status {
    if (static_cast<std::uint32_t>(request->session_keys_size()) >
        context_.limits.objects_per_request_max) {
      return make_error(ErrorCode::kInvalidArgument, "too many keys in one request");
    }
    ImageId image;
    DIMS_TRY(take_id(request->image(), "image id", image));
    const std::vector<ImageId> line = line_of(context_, image);
    for (const std::string& field : request->session_keys()) {
      crypto::PublicKey key;
      DIMS_TRY(need_id(field, "session key", key));
      DIMS_ASSIGN(const Bytes bytes, control().people().session(key));
      std::string* const out = reply->add_certificates();
      if (bytes.empty()) continue;
      DIMS_ASSIGN(const trust::SessionCertificate session, trust::decode_session(bytes));
      for (const trust::SessionImage& named : session.images) {
        if (std::find(line.begin(), line.end(), named.image) == line.end()) continue;
        out->assign(as_text(bytes));
        break;
      }
    }
    return ok_status();
  };
  return run(Rpc::kGetSessions, context, body, image_in(request->image()));
}

AccessService::Unary* AccessService::ListUsers(Context* context,
                                               const v1::ListUsersRequest* /*request*/,
                                               v1::ListUsersReply* reply) {
  return run(Rpc::kListUsers, context, [this, reply](const Caller&, const Ticket&) -> Status {
    const auto users = control().book().with([](const trust::OrgState& org) {
      std::vector<trust::UserId> ids;
      for (const trust::User* user : org.users()) ids.push_back(user->id);
      return ids;
    });
    for (const trust::UserId& id : users) {
      const access::Seen seen = control().people().seen_user(id);
      const ImageUse use = image_use(context_, id);
      DIMS_ASSIGN(const std::uint64_t stored, stored_for(id));
      v1::ListUsersReply::User* const out = reply->add_users();
      out->set_user(to_field(id));
      out->set_last_login_unix_s(seen.time_unix_s);
      out->set_last_machine(to_field(seen.machine));
      out->set_used_bytes(stored);
      out->set_images(use.images);
    }
    return ok_status();
  });
}

AccessService::Unary* AccessService::ListMachines(Context* context,
                                                  const v1::ListMachinesRequest* /*request*/,
                                                  v1::ListMachinesReply* reply) {
  return run(Rpc::kListMachines, context, [this, reply](const Caller&, const Ticket&) -> Status {
    const auto machines = control().book().with([](const trust::OrgState& org) {
      std::vector<MachineId> ids;
      for (const trust::Machine* machine : org.machines()) ids.push_back(machine->id);
      return ids;
    });
    for (const MachineId& id : machines) {
      const access::Seen seen = control().people().seen_machine(id);
      v1::ListMachinesReply::Machine* const out = reply->add_machines();
      out->set_machine(to_field(id));
      out->set_last_seen_unix_s(seen.time_unix_s);
      out->set_last_address(seen.address);
      out->set_wiped_seq(seen.wiped_seq);
    }
    return ok_status();
  });
}

AccessService::Unary* AccessService::ReportWipe(Context* context,
                                                const v1::ReportWipeRequest* request,
                                                v1::ReportWipeReply* /*reply*/) {
  return run(
      Rpc::kReportWipe, context, [this, request](const Caller& caller, const Ticket&) -> Status {
        // It is said again at each contact; once is enough to remember.
        if (control().people().seen_machine(caller.machine).wiped_seq >= request->wiped_seq())
          return ok_status();
        DIMS_TRY(control().people().machine_wiped(caller.machine, request->wiped_seq()));
        control().audit().add(caller, "wiped", {},
                              "as log record " + std::to_string(request->wiped_seq()) + " orders");
        return ok_status();
      });
}

grpc::ServerWriteReactor<v1::AuditReply>* AccessService::Audit(Context* context,
                                                               const v1::AuditRequest* request) {
  struct State {
    Ticket ticket;
    v1::AuditRequest request;
    std::uint64_t before = 0, left = 0;
    bool over = false;
  };
  auto state = std::make_shared<State>();
  state->ticket = context_.gate.ticket(*context);
  state->request = *request;
  state->left = request->limit() == 0 ? ~std::uint64_t{0} : request->limit();
  const auto source = [this, state]() -> Result<std::optional<v1::AuditReply>> {
    DIMS_ASSIGN(const Caller caller, context_.gate.admit(Rpc::kAudit, state->ticket));
    trust::UserId user;
    DIMS_TRY(take_id(state->request.user(), "user id", user));
    if (!control().has_role(caller, trust::Role::kAdministrator)) {
      if (!user.is_zero() && !(user == caller.user)) return denied();
      user = caller.user;
    }
    v1::AuditReply reply;
    while (!state->over && reply.entries_size() == 0) {
      DIMS_ASSIGN(const auto entries, control().audit().read(state->before, kEntriesPerReply));
      if (entries.empty()) state->over = true;
      for (const access::AuditEntry& entry : entries) {
        state->before = entry.number;
        if (entry.time_unix_s < state->request.since_unix_s() || state->left == 0) {
          state->over = true;
          break;
        }
        if (!user.is_zero() && !(entry.user == user)) continue;
        to_proto(entry, reply.add_entries());
        --state->left;
      }
      if (state->before <= 1) state->over = true;
    }
    if (reply.entries_size() == 0) return std::optional<v1::AuditReply>{};
    return std::optional<v1::AuditReply>(std::move(reply));
  };
  return PullStream<v1::AuditReply>::begin(
      std::make_shared<PullStream<v1::AuditReply>>(context_, source));
}

Result<std::uint64_t> AccessService::stored_for(const trust::UserId& user) {
  const auto domain =
      control().book().with([&](const trust::OrgState& org) -> std::optional<DomainId> {
        const trust::User* const known = org.user(user);
        return known == nullptr ? std::nullopt : std::optional<DomainId>(known->private_domain);
      });
  if (!domain) return std::uint64_t{0};
  return context_.stored.of(*domain, StoredBytes::Look::kAnew);
}

AccessService::Unary* AccessService::Quota(Context* context, const v1::QuotaRequest* request,
                                           v1::QuotaReply* reply) {
  return run(
      Rpc::kQuota, context, [this, request, reply](const Caller& caller, const Ticket&) -> Status {
        trust::UserId user;
        DIMS_TRY(take_id(request->user(), "user id", user));
        if (user.is_zero()) user = caller.user;
        if (!(user == caller.user) && !control().has_role(caller, trust::Role::kAdministrator)) {
          return denied();
        }
        const trust::Quota limits =
            control().book().with([&](const trust::OrgState& org) { return org.quota(user); });
        const ImageUse use = image_use(context_, user);
        DIMS_ASSIGN(const std::uint64_t stored, stored_for(user));
        reply->set_used_bytes(stored);
        reply->set_limit_bytes(limits.bytes);
        reply->set_images(use.images);
        reply->set_limit_images(limits.images);
        reply->set_requests_last_minute(control().meter().requests_last_minute(user));
        reply->set_limit_requests_per_minute(limits.requests_per_minute);
        return ok_status();
      });
}

}  // namespace dims::services
