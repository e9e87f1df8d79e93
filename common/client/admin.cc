#include "common/client/admin.h"

#include "common/client/calls.h"
#include "common/client/channel.h"
#include "common/client/convert.h"
#include "common/client/grpc_status.h"

#include "dims/v1/dims.grpc.pb.h"

namespace dims::client {

using namespace contract;  // NOLINT: this file speaks of nothing else
using Stub = v1::Dims::Stub;

namespace {

CheckFinding from_proto(const v1::CheckFinding& finding) {
  return {finding.code(), static_cast<Severity>(finding.severity()),
          finding.what(), finding.where(),
          finding.hint(), finding.repaired()};
}

CheckProgress from_proto(const v1::CheckProgress& progress) {
  return {progress.phase(),    progress.objects(), progress.bytes(),   progress.nodes(),
          progress.versions(), progress.images(),  progress.garbage(), progress.garbage_bytes()};
}

CheckReport from_proto(const v1::CheckReport& report) {
  CheckReport out;
  out.began_unix_s = report.began_unix_s();
  out.ended_unix_s = report.ended_unix_s();
  out.repair = report.repair();
  out.progress = from_proto(report.progress());
  for (const auto& finding : report.findings()) out.findings.push_back(from_proto(finding));
  out.findings_total = report.findings_total();
  return out;
}

contract::CollectionStatus from_proto(const v1::CollectionStatusReply& reply) {
  contract::CollectionStatus out;
  out.run = reply.run();
  out.running = reply.running();
  out.dry_run = reply.dry_run();
  out.phase = reply.phase();
  out.images = reply.images();
  out.versions_kept = reply.versions_kept();
  out.versions_dropped = reply.versions_dropped();
  out.records_removed = reply.records_removed();
  out.nodes_marked = reply.nodes_marked();
  out.objects = reply.objects();
  out.garbage = reply.garbage();
  out.garbage_bytes = reply.garbage_bytes();
  out.removed = reply.removed();
  out.spared = reply.spared();
  out.disk_bytes_before = reply.disk_bytes_before();
  out.disk_bytes_after = reply.disk_bytes_after();
  out.began_unix_s = reply.began_unix_s();
  out.ended_unix_s = reply.ended_unix_s();
  out.next_in_s = reply.next_in_s();
  out.resumed = reply.resumed();
  if (reply.has_failed()) out.failed = from_detail(reply.failed());
  return out;
}

class GrpcAdmin final : public Admin {
 public:
  explicit GrpcAdmin(const Endpoint& endpoint)
      : address_(endpoint.address), stub_(v1::Dims::NewStub(make_channel(endpoint))) {}

  Result<std::uint64_t> start_collection(bool dry_run) override {
    v1::StartCollectionRequest request;
    request.set_dry_run(dry_run);
    DIMS_ASSIGN(const v1::StartCollectionReply reply, call(&Stub::StartCollection, request));
    return reply.run();
  }

  Result<contract::CollectionStatus> collection_status() override {
    DIMS_ASSIGN(const v1::CollectionStatusReply reply,
                call(&Stub::CollectionStatus, v1::CollectionStatusRequest()));
    return from_proto(reply);
  }

  Status check(bool repair, const FindingSink& found, const ProgressSink& progress) override {
    v1::CheckRequest request;
    request.set_repair(repair);
    grpc::ClientContext context;
    const CallRegistry::Scope scope(calls_, context);
    const auto reader = stub_->Check(&context, request);
    v1::CheckReply reply;
    while (reader->Read(&reply)) {
      for (const auto& finding : reply.findings()) found(from_proto(finding));
      progress(from_proto(reply.progress()));
    }
    const grpc::Status status = reader->Finish();
    return status.ok() ? ok_status() : Status(failed(status));
  }

  Result<LastChecks> last_checks() override {
    DIMS_ASSIGN(const v1::LastChecksReply reply, call(&Stub::LastChecks, v1::LastChecksRequest()));
    return LastChecks{from_proto(reply.check()), from_proto(reply.scrub())};
  }

  Result<RetentionInfo> retention(const ImageId& image) override { return ask(image, false, {}); }
  Result<RetentionInfo> set_retention(const ImageId& image, const std::string& policy) override {
    return ask(image, true, policy);
  }
  Status forget_unsent(const ImageId& image, const MachineId& machine) override {
    v1::ForgetUnsentRequest request;
    put_id(image, request.mutable_image());
    put_id(machine, request.mutable_machine());
    const auto reply = call(&Stub::ForgetUnsent, request);
    return reply.ok() ? ok_status() : Status(reply.error());
  }
  void shutdown() override { calls_.cancel_all(); }

 private:
  Error failed(const grpc::Status& status) {
    if (calls_.down()) return make_error(ErrorCode::kCancelled, "the connection was shut down");
    return from_grpc(status, address_);
  }

  template <typename Request, typename Reply>
  Result<Reply> call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                     const Request& request) {
    grpc::ClientContext context;
    const CallRegistry::Scope scope(calls_, context);
    Reply reply;
    const grpc::Status status = ((*stub_).*method)(&context, request, &reply);
    if (!status.ok()) return failed(status);
    return reply;
  }

  Result<RetentionInfo> ask(const ImageId& image, bool change, const std::string& policy) {
    v1::RetentionRequest request;
    put_id(image, request.mutable_image());
    request.set_change(change);
    request.set_policy(policy);
    DIMS_ASSIGN(const v1::RetentionReply reply, call(&Stub::Retention, request));
    return RetentionInfo{reply.policy(), reply.own()};
  }

  const std::string address_;
  CallRegistry calls_;
  std::unique_ptr<Stub> stub_;
};

}  // namespace

Result<std::unique_ptr<Admin>> connect_admin(const std::string& address, const KnownServers& known,
                                             std::shared_ptr<LoginToken> token) {
  DIMS_ASSIGN(Endpoint endpoint, parse_endpoint(address, known));
  endpoint.token = std::move(token);
  return std::unique_ptr<Admin>(std::make_unique<GrpcAdmin>(endpoint));
}

}  // namespace dims::client
