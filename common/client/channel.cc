#include "common/client/channel.h"

#include <sys/un.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "common/base/units.h"
#include "common/client/token_carrier.h"
#include "common/crypto/certificate.h"

namespace dims::client {
namespace {

// What the other side may send ahead of our reading; enough for 1 Gbit/s at 60 ms.
constexpr int kWindowBytes = static_cast<int>(8 * kMiB);
constexpr int kMessageBytesMax = static_cast<int>(32 * kMiB);
// A ping after 20 s of silence. Its answer may stand behind megabytes of data on a slow line, so it
// gets a minute. A host that has moved does not wait for it (roaming.h).
constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 60'000;
constexpr int kBackoffFirstMs = 100;
constexpr int kBackoffMaxMs = 10'000;
// Three round trips and more behind whatever else fills a slow line.
// Of a name: c-ares alone asks a server that is gone for more than a minute, and reads where to ask
// only when it begins. Time for one packet to be lost.
constexpr int kLookUpTimeoutMs = 12'000;
constexpr int kConnectTimeoutMs = 20'000;

namespace tls = grpc::experimental;

// Asks the pin about the certificate that the server showed, and proved to hold the key of.
class PinVerifier : public tls::ExternalCertificateVerifier {
 public:
  explicit PinVerifier(std::shared_ptr<ServerPin> pin) : pin_(std::move(pin)) {}
  bool Verify(tls::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* answer) override {
    const grpc::string_ref certificate = request->peer_cert();
    const Status checked = pin_->check({certificate.data(), certificate.size()});
    *answer = checked.ok()
                  ? grpc::Status::OK
                  : grpc::Status(grpc::StatusCode::UNAUTHENTICATED, checked.error().to_string());
    return true;  // answered at once
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}

 private:
  const std::shared_ptr<ServerPin> pin_;
};

// Issuers mean nothing here, but gRPC wants some and would parse the system's whole list: 25 ms of
// every program that makes one call. It gets one that has signed nothing.
std::shared_ptr<tls::CertificateProviderInterface> no_issuers() {
  static const std::string nobody = crypto::make_certificate("nobody", 0, 1).certificate_pem;
  return std::make_shared<tls::StaticDataCertificateProvider>(nobody);
}

std::shared_ptr<grpc::ChannelCredentials> credentials_of(const Endpoint& endpoint) {
  if (!endpoint.pin) return grpc::InsecureChannelCredentials();
  crypto::refuse_tls_1_2();
  tls::TlsChannelCredentialsOptions options;
  options.set_verify_server_certs(false);  // neither issuers nor names mean anything:
  options.set_certificate_provider(no_issuers());
  options.watch_root_certs();
  options.set_check_call_host(false);
  options.set_certificate_verifier(
      tls::ExternalCertificateVerifier::Create<PinVerifier>(endpoint.pin));
  return tls::TlsCredentials(options);
}

}  // namespace

Result<Endpoint> parse_endpoint(const std::string& address, const KnownServers& known) {
  DIMS_ASSIGN(const ServerAddress server, parse_server(address));
  if (server.is_unix()) {
    const std::string path = address.substr(std::string_view("unix:").size());
    if (path.empty() || path.size() >= sizeof(sockaddr_un{}.sun_path)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "socket path '" + path + "' is empty or too long",
                        "give unix:PATH with at most 107 characters");
    }
    return Endpoint{address, address, nullptr};
  }
  DIMS_ASSIGN(const HostPort parsed, parse_host_port(server.address));
  const bool v6 = parsed.host.find(':') != std::string::npos;
  return Endpoint{
      server.address,
      "dns:///" + (v6 ? "[" + parsed.host + "]" : parsed.host) + ":" + std::to_string(parsed.port),
      std::make_shared<ServerPin>(server, known)};
}

std::shared_ptr<grpc::Channel> make_channel(const Endpoint& endpoint) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // a caller retries; gRPC would keep copies for it
  args.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 1);
  args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
  args.SetMaxReceiveMessageSize(kMessageBytesMax);
  args.SetMaxSendMessageSize(kMessageBytesMax);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kBackoffFirstMs);  // gRPC adds 20 % of jitter
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kBackoffMaxMs);
  args.SetInt(GRPC_ARG_DNS_ARES_QUERY_TIMEOUT_MS, kLookUpTimeoutMs);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
              kConnectTimeoutMs);  // in truth the time for one attempt
  return grpc::experimental::CreateCustomChannelWithInterceptors(
      endpoint.target, credentials_of(endpoint), args, carry(endpoint.token));
}

}  // namespace dims::client
