#include "common/client/channel.h"

#include <sys/un.h>

#include "common/base/parse.h"
#include "common/base/units.h"

namespace dims::client {
namespace {

// What the other side may send ahead of our reading; enough for 1 Gbit/s at 60 ms.
constexpr int kWindowBytes = static_cast<int>(8 * kMiB);
constexpr int kMessageBytesMax = static_cast<int>(32 * kMiB);
// A ping every 20 s. Its answer may stand behind megabytes of data on a slow line, so it gets a
// minute.
constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 60'000;
constexpr int kBackoffFirstMs = 100;
constexpr int kBackoffMaxMs = 10'000;
constexpr int kConnectTimeoutMs = 10'000;

}  // namespace

Result<std::string> grpc_target(const std::string& address) {
  constexpr std::string_view kUnix = "unix:";
  if (std::string_view(address).substr(0, kUnix.size()) == kUnix) {
    const std::string path = address.substr(kUnix.size());
    if (path.empty() || path.size() >= sizeof(sockaddr_un{}.sun_path)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "socket path '" + path + "' is empty or too long",
                        "give unix:PATH with at most 107 characters");
    }
    return address;
  }
  DIMS_ASSIGN(const HostPort parsed, parse_host_port(address));
  const bool v6 = parsed.host.find(':') != std::string::npos;
  return "dns:///" + (v6 ? "[" + parsed.host + "]" : parsed.host) + ":" +
         std::to_string(parsed.port);
}

std::shared_ptr<grpc::Channel> make_channel(const std::string& target) {
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
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
              kConnectTimeoutMs);  // in truth the time for one attempt
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), args);
}

}  // namespace dims::client
