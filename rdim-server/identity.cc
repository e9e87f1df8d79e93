#include "rdim-server/identity.h"

#include <unistd.h>

#include "common/io/private_file.h"

namespace dims::server {
namespace {

constexpr std::size_t kPemBytesMax = 64 * 1024;
constexpr std::int64_t kDay = 24 * 3600;
// Clients know the fingerprint; an end soon would only be a trap for the keeper of the server.
constexpr std::int64_t kValidFor = 30 * 365 * kDay;

std::string certificate_path(const std::string& data) { return data + "/tls/server.crt"; }
std::string key_path(const std::string& data) { return data + "/tls/server.key"; }

std::string host_name() {
  char name[64] = {};  // what a certificate's common name may hold
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == 0) return std::string("rdim-server");
  return std::string(name);
}

}  // namespace

Result<ServerIdentity> load_identity(io::FileSystem& fs, const std::string& data) {
  const std::string path = certificate_path(data);
  DIMS_ASSIGN(const Bytes certificate, io::read_file(fs, path, kPemBytesMax));
  DIMS_TRY(io::check_private(key_path(data), "the server's key"));
  DIMS_ASSIGN(Bytes key, io::read_file(fs, key_path(data), kPemBytesMax));
  ServerIdentity identity{{std::string(as_text(certificate)), std::string(as_text(key))}, {}};
  const auto facts = crypto::read_certificate(identity.certificate.certificate_pem);
  if (!facts.ok()) return facts.error().with_context(path);
  const Status fits = crypto::check_certificate(identity.certificate);
  if (!fits.ok()) return fits.error().with_context(path);
  identity.facts = *facts;
  return identity;
}

Result<ServerIdentity> make_identity(io::FileSystem& fs, const std::string& data, Clock& clock) {
  const std::int64_t now = std::chrono::duration_cast<std::chrono::seconds>(clock.wall()).count();
  const crypto::Certificate made =
      crypto::make_certificate(host_name(), now - kDay, now + kValidFor);
  DIMS_TRY(fs.make_folder(data + "/tls"));
  // The key first: a certificate that is there has its key beside it.
  DIMS_TRY(io::replace_file(fs, key_path(data), as_bytes(made.key_pem)));
  DIMS_TRY(io::replace_file(fs, certificate_path(data), as_bytes(made.certificate_pem)));
  DIMS_TRY(fs.sync_folder(data));
  return load_identity(fs, data);
}

Result<ServerIdentity> load_or_make_identity(io::FileSystem& fs, const std::string& data,
                                             Clock& clock) {
  DIMS_ASSIGN(const bool there, fs.exists(certificate_path(data)));
  return there ? load_identity(fs, data) : make_identity(fs, data, clock);
}

std::string bootstrap_path(const std::string& data) { return data + "/bootstrap-secret"; }

Status make_bootstrap_secret(io::FileSystem& fs, const std::string& data, Random& random) {
  const std::string path = bootstrap_path(data);
  DIMS_ASSIGN(const bool there, fs.exists(path));
  if (there) return ok_status();
  return io::replace_file(fs, path, as_bytes(random.id<Secret32>().hex() + "\n"));
}

}  // namespace dims::server
