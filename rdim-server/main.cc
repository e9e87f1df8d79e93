// rdim-server: puts the parts together, waits for a signal, takes them apart in order.
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

#include "common/crypto/hash.h"
#include "common/io/file.h"
#include "common/io/private_file.h"
#include "rdim-server/access/access_control.h"
#include "rdim-server/catalog/catalog.h"
#include "rdim-server/catalog/maintenance.h"
#include "rdim-server/identity.h"
#include "rdim-server/options.h"
#include "rdim-server/services/server.h"
#include "rdim-server/stores/store.h"

#ifndef DIMS_VERSION
#define DIMS_VERSION "unknown"
#endif

namespace dims::server {
namespace {

constexpr rlim_t kOpenFilesWanted = 8192;
constexpr std::chrono::seconds kCallsEndWithin{5};
constexpr std::chrono::seconds kStopWithin{60};  // the last flush included; then it just ends

int fail(const Error& error, ExitCode code) {
  std::fprintf(stderr, "rdim-server: %s\n", error.to_string().c_str());
  if (!error.holder.empty()) std::fprintf(stderr, "  held by %s\n", error.holder.c_str());
  return code;
}

// Many threads come and go with large buffers: without limits glibc keeps an arena for each.
void bound_memory() {
  mallopt(M_ARENA_MAX, 4);
  mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024);
  mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
}

// Files of the store, runs of a collection and connections are descriptors. The soft limit is small
// for the sake of programs that use select().
void raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  if (limit.rlim_cur < limit.rlim_max) {
    const rlim_t before = std::exchange(limit.rlim_cur, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  }
  if (limit.rlim_cur < kOpenFilesWanted) {
    spdlog::warn("at most {} files may be open, {} are better: raise the limit (LimitNOFILE=)",
                 limit.rlim_cur, kOpenFilesWanted);
  }
}

sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // all threads inherit it; main waits for them
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write
  return signals;
}

// The store needs no goodbye: if stopping takes too long, or somebody insists, the process ends as
// a crash would.
class StopLimit {
 public:
  explicit StopLimit(const sigset_t& signals) : thread_([this, signals] { watch(signals); }) {}
  ~StopLimit() {
    done_ = true;
    thread_.join();
  }

 private:
  void watch(const sigset_t& signals) {
    const timespec step{0, 100'000'000};
    const auto until = std::chrono::steady_clock::now() + kStopWithin;
    while (!done_) {
      const bool asked_again = sigtimedwait(&signals, nullptr, &step) > 0;
      if (!asked_again && std::chrono::steady_clock::now() < until) continue;
      if (done_) return;
      std::fprintf(stderr, "rdim-server: ended before it had stopped cleanly\n");
      _exit(kFailed);
    }
  }

  std::atomic<bool> done_{false};
  std::thread thread_;
};

// What was answered is durable. What comes next might not be, and the engine is not to be trusted
// with going on: as after a power cut, the next start finds everything that was.
[[noreturn]] void end_at_once(const std::string& why) {
  spdlog::critical(
      "the store's disk failed ({}); ending at once: nothing answered is lost, start "
      "again when the disk works",
      why);
  spdlog::default_logger()->flush();
  std::fprintf(stderr, "rdim-server: the store's disk failed: %s\n", why.c_str());
  _exit(kFailed);
}

Status write_port_file(const std::string& path, int port) {
  if (path.empty()) return ok_status();
  return io::replace_file(io::posix_file_system(), path, as_bytes(std::to_string(port) + "\n"));
}

// Sorted runs of a collection are files in the store's folder; what a crash left is removed.
Result<std::unique_ptr<catalog::Maintenance>> make_maintenance(const Options& options,
                                                               stores::Store& store,
                                                               catalog::Catalog& catalog) {
  io::FileSystem& fs = io::posix_file_system();
  catalog::MaintenanceOptions wanted;
  wanted.upload_grace = std::chrono::duration_cast<std::chrono::seconds>(options.upload_grace);
  wanted.gc_interval = std::chrono::ceil<std::chrono::seconds>(options.gc_interval);
  wanted.gc_bytes_per_s = options.gc_rate;
  wanted.scrub_bytes_per_s = options.scrub_rate;
  wanted.space.fs = &fs;
  wanted.space.folder = options.data + "/runs";
  DIMS_TRY(fs.make_folder(wanted.space.folder));
  DIMS_ASSIGN(const std::vector<std::string> left, fs.list(wanted.space.folder));
  for (const std::string& name : left) DIMS_TRY(fs.remove(wanted.space.folder + "/" + name));
  return std::make_unique<catalog::Maintenance>(catalog, store.objects(), store.refs(),
                                                system_clock(), wanted);
}

// Who may do what. The secret that makes an organisation is of no use once it has.
Result<std::unique_ptr<access::AccessControl>> open_access(const Options& options,
                                                           contract::RefStore& refs) {
  io::FileSystem& fs = io::posix_file_system();
  const std::string path = bootstrap_path(options.data);
  std::optional<Digest> bootstrap;
  DIMS_TRY(io::check_private(path, "the secret of the first administrator"));
  const auto secret = io::read_file(fs, path, 4096);
  if (secret.ok()) bootstrap = access::bootstrap_digest(*secret);
  if (!secret.ok() && secret.error().code != ErrorCode::kNotFound) return secret.error();
  auto control = access::AccessControl::open(refs, system_clock(), system_random(), bootstrap);
  if (!control.ok()) return control;
  const auto forget = [&fs, path] {
    const Status removed = fs.remove(path);
    if (!removed.ok() && removed.error().code != ErrorCode::kNotFound) {
      spdlog::warn("{} is of no use any more, remove it: {}", path, removed.error().to_string());
    }
  };
  if (bootstrap && (*control)->mode() == access::Mode::kOrganisation) forget();
  (*control)->on_init(forget);
  return control;
}

bool listens_on_tcp(const Options& options) {
  for (const std::string& address : options.listen) {
    if (!address.starts_with("unix:")) return true;
  }
  return false;
}

int init(const Options& options) {
  stores::StoreOptions store_options;
  store_options.folder = options.data;
  const auto store = stores::Store::open(store_options, system_clock(), system_random());
  if (!store.ok()) return fail(store.error(), kStoreFailed);
  io::FileSystem& fs = io::posix_file_system();
  const auto identity = options.renew ? make_identity(fs, options.data, system_clock())
                                      : load_or_make_identity(fs, options.data, system_clock());
  if (!identity.ok()) return fail(identity.error(), kFailed);
  std::printf("fingerprint %s\n", identity->facts.fingerprint.hex().c_str());
  if (options.renew) return kStopped;  // whose server it is stays as it is
  const Status secret = make_bootstrap_secret(fs, options.data, system_random());
  if (!secret.ok()) return fail(secret.error(), kFailed);
  std::printf("secret      %s\n", bootstrap_path(options.data).c_str());
  return kStopped;
}

int print_fingerprint(const Options& options) {
  const auto identity = load_identity(io::posix_file_system(), options.data);
  if (!identity.ok()) return fail(identity.error(), kFailed);
  std::printf("%s\n", identity->facts.fingerprint.hex().c_str());
  return kStopped;
}

int serve(const Options& options, const sigset_t& signals) {
  stores::StoreOptions store_options;
  store_options.folder = options.data;
  store_options.on_disk_failure = end_at_once;
  auto store = stores::Store::open(store_options, system_clock(), system_random());
  if (!store.ok()) return fail(store.error(), kStoreFailed);
  catalog::CatalogOptions catalog_options;
  catalog_options.lease_term = options.lease_term;
  const auto retention = catalog::parse_retention(options.retention);
  if (retention.ok()) catalog_options.retention = *retention;
  auto catalog =
      catalog::Catalog::open((*store)->objects(), (*store)->refs(), (*store)->generation(),
                             system_clock(), system_random(), catalog_options);
  if (!catalog.ok()) return fail(catalog.error(), kStoreFailed);
  auto access = open_access(options, (*store)->refs());
  if (!access.ok()) return fail(access.error(), kStoreFailed);
  auto maintenance = make_maintenance(options, **store, **catalog);
  if (!maintenance.ok()) return fail(maintenance.error(), kStoreFailed);
  services::ServerOptions server_options;
  server_options.listen = options.listen;
  server_options.version = DIMS_VERSION;
  std::string fingerprint = "none (no TCP address)";
  if (listens_on_tcp(options)) {
    auto identity = load_or_make_identity(io::posix_file_system(), options.data, system_clock());
    if (!identity.ok()) return fail(identity.error(), kStoreFailed);
    fingerprint = identity->facts.fingerprint.hex();
    server_options.certificate = std::move(identity->certificate);
    if (std::chrono::seconds(identity->facts.valid_until_unix_s) < system_clock().wall()) {
      spdlog::error("the certificate has expired: clients refuse it; see rdim-server init --renew");
    }
  }
  auto server = services::RdimServer::start(**catalog, (*store)->objects(), **maintenance, **access,
                                            server_options);
  if (!server.ok()) return fail(server.error(), kListenFailed);
  for (const std::string& address : (*server)->addresses()) {
    std::printf("listening on %s\n", address.c_str());
  }
  std::fflush(stdout);
  const Status written = write_port_file(options.port_file, (*server)->port());
  if (!written.ok()) return fail(written.error(), kFailed);
  spdlog::info("store {}, generation {}, {} images", options.data, (*store)->generation().hex(),
               (*catalog)->image_count());
  spdlog::info("certificate fingerprint {}", fingerprint);

  (*maintenance)->start();

  int signal_number = 0;
  do {
    sigwait(&signals, &signal_number);
  } while (signal_number == SIGHUP);  // a closed terminal ends no server
  spdlog::info("signal {}: stopping", signal_number);
  const StopLimit limit(signals);
  (*server)->stop(kCallsEndWithin);
  (*maintenance)->stop();
  (*server).reset();
  (*maintenance).reset();
  (*access).reset();
  (*catalog).reset();
  (*store).reset();
  spdlog::info("stopped");
  return kStopped;
}

}  // namespace
}  // namespace dims::server

int main(int argc, char** argv) {
  using namespace dims;
  server::Options options;
  int exit_code = 0;
  if (!server::parse_options(argc, argv, options, exit_code)) return exit_code;
  server::bound_memory();
  umask(0077);
  setenv("GRPC_VERBOSITY", "NONE", 0);  // its words say less than ours
  const sigset_t signals = server::block_signals();
  spdlog::set_default_logger(spdlog::stderr_color_mt("rdim-server"));
  spdlog::set_level(spdlog::level::from_str(options.log_level));
  server::raise_file_limit();
  crypto::initialise();
  switch (options.verb) {
    case server::Verb::kInit:
      return server::init(options);
    case server::Verb::kFingerprint:
      return server::print_fingerprint(options);
    case server::Verb::kServe:
      break;
  }
  return server::serve(options, signals);
}
