#include "rdim-server/services/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "rdim-server/services/access_service.h"
#include "rdim-server/services/dims_service.h"
#include "rdim-server/services/listen.h"

namespace dims::services {
namespace {

constexpr int kStreamsPerConnection = 256;
// Long slow lines: a ping may stand behind megabytes of data. Slow is not dead.
constexpr int kKeepaliveMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 120'000;
constexpr int kClientPingsMs = 5'000;

void set_transport(grpc::ServerBuilder& builder, const ServerOptions& options,
                   const ServiceLimits& limits) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(limits.message_bytes_max));
  builder.SetMaxSendMessageSize(static_cast<int>(limits.message_bytes_max));
  grpc::ResourceQuota quota("rdim");
  quota.Resize(static_cast<std::size_t>(options.transport_bytes_max));
  builder.SetResourceQuota(quota);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // two servers on one port is a mistake
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kClientPingsMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 1);
}

std::shared_ptr<grpc::ServerCredentials> tls_credentials(const crypto::Certificate& certificate) {
  namespace tls = grpc::experimental;
  crypto::refuse_tls_1_2();
  tls::TlsServerCredentialsOptions options(std::make_shared<tls::StaticDataCertificateProvider>(
      std::vector<tls::IdentityKeyCertPair>{{certificate.key_pem, certificate.certificate_pem}}));
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  return tls::TlsServerCredentials(options);
}

// Zeros without a TCP address.
Digest fingerprint_of(const ServerOptions& options) {
  const auto facts = crypto::read_certificate(options.certificate.certificate_pem);
  return facts.ok() ? facts->fingerprint : Digest{};
}

Status check_reach(const std::string& address) {
  if (is_local(address)) return ok_status();
  return make_error(ErrorCode::kPermissionDenied,
                    "other machines can reach " + address +
                        ", and without an organisation everybody who connects may do everything",
                    "listen on 127.0.0.1 or unix:PATH, or prepare an organisation with "
                    "'rdim-server init'");
}

}  // namespace

struct RdimServer::Parts {
  Parts(catalog::Catalog& catalog, contract::ObjectStore& objects,
        catalog::Maintenance& maintenance, access::AccessControl& access,
        const ServerOptions& options)
      : calls(options.call_threads),
        commits(options.commit_threads),
        transfers(options.transfer_threads),
        gate(access, fingerprint_of(options)),
        context(catalog, objects, maintenance, gate, options.version, calls, commits, transfers),
        service(context),
        access_service(context) {}

  Executor calls;
  Executor commits;
  Executor transfers;
  Gate gate;
  ServiceContext context;
  DimsService service;
  AccessService access_service;
  std::unique_ptr<grpc::Server> server;
};

RdimServer::RdimServer() = default;

Result<std::unique_ptr<RdimServer>> RdimServer::start(catalog::Catalog& catalog,
                                                      contract::ObjectStore& objects,
                                                      catalog::Maintenance& maintenance,
                                                      access::AccessControl& access,
                                                      const ServerOptions& options) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  std::unique_ptr<RdimServer> out(new RdimServer());
  out->parts_ = std::make_unique<Parts>(catalog, objects, maintenance, access, options);
  grpc::ServerBuilder builder;
  set_transport(builder, options, out->parts_->context.limits);
  std::vector<int> ports(options.listen.size(), -1);
  for (std::size_t i = 0; i < options.listen.size(); ++i) {
    const std::string& address = options.listen[i];
    DIMS_ASSIGN(const std::string target, listen_target(address));
    if (access.mode() == access::Mode::kOnePerson) DIMS_TRY(check_reach(address));
    builder.AddListeningPort(target,
                             address.starts_with("unix:") ? grpc::InsecureServerCredentials()
                                                          : tls_credentials(options.certificate),
                             &ports[i]);
  }
  builder.RegisterService(&out->parts_->service);
  builder.RegisterService(&out->parts_->access_service);
  out->parts_->server = builder.BuildAndStart();
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (ports[i] <= 0) return why_not(options.listen[i]);
    out->addresses_.push_back(with_port(options.listen[i], ports[i]));
    const bool tcp = !options.listen[i].starts_with("unix:");
    if (tcp && out->port_ == 0) out->port_ = ports[i];
  }
  if (!out->parts_->server) {
    return make_error(ErrorCode::kInternal, "gRPC could not start", "see the log");
  }
  return out;
}

RdimServer::~RdimServer() { stop(std::chrono::milliseconds(0)); }

void RdimServer::stop(std::chrono::milliseconds limit) {
  if (!parts_ || !parts_->server) return;
  if (auto* health = parts_->server->GetHealthCheckService()) health->SetServingStatus(false);
  parts_->context.streams.end_all();
  parts_->server->Shutdown(std::chrono::system_clock::now() + limit);
  parts_->server->Wait();
  parts_->server.reset();
  parts_->calls.stop();
  parts_->commits.stop();
  parts_->transfers.stop();
}

}  // namespace dims::services
