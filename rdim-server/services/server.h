// RdimServer: the gRPC server with everything it needs: service, health, reflection, limits.
//
// TCP is TLS 1.3 and nothing else. An address that other machines can reach is refused on one
// person's server: there everybody who connects may do everything.
//
// Threads: start() and stop() by one thread. Ownership: catalog, objects, maintenance and access
// outlive it. Errors of start(): as services/listen.h says, and kPermissionDenied. stop() ends
// streams politely, waits for calls under way up to the time limit, then cancels them; it returns
// when no call runs any more.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/crypto/certificate.h"
#include "rdim-server/access/access_control.h"
#include "rdim-server/catalog/catalog.h"
#include "rdim-server/catalog/maintenance.h"

namespace dims::services {

struct ServerOptions {
  std::vector<std::string> listen;  // at least one
  std::string version;
  crypto::Certificate certificate;  // for TCP; a UNIX socket is plaintext
  std::size_t call_threads = 4;
  std::size_t commit_threads = 2;
  std::size_t transfer_threads = 4;
  std::uint64_t transport_bytes_max = 256 * kMiB;  // gRPC's own buffers, over all clients
};

class RdimServer {
 public:
  static Result<std::unique_ptr<RdimServer>> start(catalog::Catalog& catalog,
                                                   contract::ObjectStore& objects,
                                                   catalog::Maintenance& maintenance,
                                                   access::AccessControl& access,
                                                   const ServerOptions& options);
  ~RdimServer();
  RdimServer(const RdimServer&) = delete;
  RdimServer& operator=(const RdimServer&) = delete;

  // With real ports, in the order of the options.
  const std::vector<std::string>& addresses() const { return addresses_; }
  // The first TCP port; 0 if there is none.
  int port() const { return port_; }
  void stop(std::chrono::milliseconds limit);

 private:
  RdimServer();

  struct Parts;
  std::unique_ptr<Parts> parts_;
  std::vector<std::string> addresses_;
  int port_ = 0;
};

}  // namespace dims::services
