// The administrators' calls: collection, check, retention.
#include "rdim-server/services/convert.h"
#include "rdim-server/services/dims_service.h"
#include "rdim-server/services/gated_call.h"
#include "rdim-server/services/pull_stream.h"
#include "rdim-server/services/status.h"

namespace dims::services {
namespace {

using services::to_proto;  // beside those below, which would hide it

void to_proto(const contract::CheckFinding& finding, v1::CheckFinding* out) {
  out->set_code(finding.code);
  out->set_severity(static_cast<v1::CheckFinding::Severity>(finding.severity));
  out->set_what(finding.what);
  out->set_where(finding.where);
  out->set_hint(finding.hint);
  out->set_repaired(finding.repaired);
}

void to_proto(const contract::CheckProgress& progress, v1::CheckProgress* out) {
  out->set_phase(progress.phase);
  out->set_objects(progress.objects);
  out->set_bytes(progress.bytes);
  out->set_nodes(progress.nodes);
  out->set_versions(progress.versions);
  out->set_images(progress.images);
  out->set_garbage(progress.garbage);
  out->set_garbage_bytes(progress.garbage_bytes);
}

void to_proto(const contract::CheckReport& report, v1::CheckReport* out) {
  out->set_began_unix_s(report.began_unix_s);
  out->set_ended_unix_s(report.ended_unix_s);
  out->set_repair(report.repair);
  to_proto(report.progress, out->mutable_progress());
  for (const auto& finding : report.findings) to_proto(finding, out->add_findings());
  out->set_findings_total(report.findings_total);
}

void to_proto(const contract::CollectionStatus& status, v1::CollectionStatusReply* out) {
  out->set_run(status.run);
  out->set_running(status.running);
  out->set_dry_run(status.dry_run);
  out->set_phase(status.phase);
  out->set_images(status.images);
  out->set_versions_kept(status.versions_kept);
  out->set_versions_dropped(status.versions_dropped);
  out->set_records_removed(status.records_removed);
  out->set_nodes_marked(status.nodes_marked);
  out->set_objects(status.objects);
  out->set_garbage(status.garbage);
  out->set_garbage_bytes(status.garbage_bytes);
  out->set_removed(status.removed);
  out->set_spared(status.spared);
  out->set_disk_bytes_before(status.disk_bytes_before);
  out->set_disk_bytes_after(status.disk_bytes_after);
  out->set_began_unix_s(status.began_unix_s);
  out->set_ended_unix_s(status.ended_unix_s);
  out->set_next_in_s(status.next_in_s);
  out->set_resumed(status.resumed);
  if (status.failed) *out->mutable_failed() = to_detail(*status.failed);
}

}  // namespace

DimsService::Unary* DimsService::StartCollection(Context* context,
                                                 const v1::StartCollectionRequest* request,
                                                 v1::StartCollectionReply* reply) {
  return run(Rpc::kStartCollection, context, {},
             [this, request, reply](const access::Caller&) -> Status {
               DIMS_ASSIGN(const std::uint64_t number,
                           context_.maintenance.start_collection(request->dry_run()));
               reply->set_run(number);
               return ok_status();
             });
}

DimsService::Unary* DimsService::CollectionStatus(Context* context,
                                                  const v1::CollectionStatusRequest* /*request*/,
                                                  v1::CollectionStatusReply* reply) {
  return run(Rpc::kCollectionStatus, context, {}, [this, reply](const access::Caller&) -> Status {
    to_proto(context_.maintenance.collection_status(), reply);
    return ok_status();
  });
}

grpc::ServerWriteReactor<v1::CheckReply>* DimsService::Check(Context* context,
                                                             const v1::CheckRequest* request) {
  struct State {
    Ticket ticket;
    bool repair = false;
    bool over = false;
    std::unique_ptr<catalog::Maintenance::CheckRun> check;
  };
  auto state = std::make_shared<State>();
  state->ticket = context_.gate.ticket(*context);
  state->repair = request->repair();
  const auto next = [this, state]() -> Result<std::optional<v1::CheckReply>> {
    DIMS_TRY(context_.gate.admit(Rpc::kCheck, state->ticket));
    if (state->over) return std::optional<v1::CheckReply>{};
    if (!state->check) {
      DIMS_ASSIGN(state->check, context_.maintenance.begin_check(state->repair));
    }
    DIMS_ASSIGN(const bool more, state->check->step());
    v1::CheckReply reply;
    to_proto(state->check->progress(), reply.mutable_progress());
    for (const auto& finding : state->check->take_findings()) {
      to_proto(finding, reply.add_findings());
    }
    state->over = !more;
    if (!more) state->check.reset();
    return std::optional<v1::CheckReply>(std::move(reply));
  };
  return PullStream<v1::CheckReply>::begin(
      std::make_shared<PullStream<v1::CheckReply>>(context_, next));
}

DimsService::Unary* DimsService::LastChecks(Context* context,
                                            const v1::LastChecksRequest* /*request*/,
                                            v1::LastChecksReply* reply) {
  return run(Rpc::kLastChecks, context, {}, [this, reply](const access::Caller&) -> Status {
    to_proto(context_.maintenance.last_check(), reply->mutable_check());
    to_proto(context_.maintenance.last_scrub(), reply->mutable_scrub());
    return ok_status();
  });
}

DimsService::Unary* DimsService::Retention(Context* context, const v1::RetentionRequest* request,
                                           v1::RetentionReply* reply) {
  const Rpc rpc = request->change() ? Rpc::kSetRetention : Rpc::kRetention;
  return run(rpc, context, image_in(request->image()),
             [this, request, reply](const access::Caller&) -> Status {
               ImageId image;
               DIMS_TRY(take_id(request->image(), "image id", image));
               DIMS_ASSIGN(const auto info, context_.catalog.get_image(image));
               if (request->change()) {
                 std::optional<catalog::RetentionPolicy> policy;
                 if (!request->policy().empty()) {
                   DIMS_ASSIGN(policy, catalog::parse_retention(request->policy()));
                 }
                 DIMS_TRY(context_.catalog.set_retention(info.id, policy));
               }
               DIMS_ASSIGN(const auto now, context_.catalog.retention_of(info.id));
               DIMS_ASSIGN(const bool own, context_.catalog.has_own_retention(info.id));
               reply->set_policy(catalog::text_of(now));
               reply->set_own(own);
               return ok_status();
             });
}

DimsService::Unary* DimsService::ForgetUnsent(Context* context,
                                              const v1::ForgetUnsentRequest* request,
                                              v1::ForgetUnsentReply* /*reply*/) {
  return run(Rpc::kForgetUnsent, context, image_in(request->image()),
             [this, request](const access::Caller&) -> Status {
               ImageId image;
               DIMS_TRY(take_id(request->image(), "image id", image));
               MachineId machine;
               DIMS_TRY(take_id(request->machine(), "machine id", machine));
               return context_.catalog.forget_unsent(image, machine);
             });
}

}  // namespace dims::services
