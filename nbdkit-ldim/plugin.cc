// The nbdkit plugin: callbacks and nothing else. Everything behind them is Disk (disk/disk.h).
//
// nbdkit forks between .get_ready and .after_fork: nothing of gRPC, no thread and no store is
// touched before .after_fork, yet what can be checked is checked in .get_ready, where an error
// still reaches the user's terminal (the questions to the server are asked in a child process). No
// exception may cross a callback. The disk belongs to the process, not to a connection.
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <thread>

#include "common/client/client.h"
#include "common/client/passphrase.h"
#include "common/crypto/hash.h"
#include "common/io/errno_map.h"
#include "common/io/memory_file.h"
#include "nbdkit-ldim/control/control_server.h"
#include "nbdkit-ldim/disk/disk.h"
#include "nbdkit-ldim/disk/preflight.h"
#include "nbdkit-ldim/login/log_watch.h"
#include "nbdkit-ldim/login/login.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

using namespace dims;

constexpr std::chrono::seconds kCloseWait{20};

ldim::DiskOptions options = [] {
  ldim::DiskOptions defaults;
  defaults.fill = true;
  return defaults;
}();

// A member of an organisation: his passphrase until he is logged in, then what the login opened.
struct Membership {
  crypto::SecretBytes passphrase;
  std::optional<ldim::MachineFolder> folder;
  ldim::SessionKeys session;
  std::shared_ptr<client::LoginToken> token;  // what the disk's calls carry
  std::unique_ptr<ldim::SessionStanding> standing;
  std::unique_ptr<ldim::Renewal> renewal;
};
Membership membership;

// What the process serves. Built in after_fork, ended in cleanup.
struct Serving {
  std::unique_ptr<contract::Remote> remote;
  std::unique_ptr<io::MemoryFileSystem> memory;
  std::unique_ptr<ldim::Disk> disk;
  std::unique_ptr<ldim::ControlServer> control;
  std::unique_ptr<ldim::LogWatch> log;  // of a member's disk; ends first
};
std::unique_ptr<Serving> serving;

class NbdkitSink : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const std::string text(message.payload.data(), message.payload.size());
    if (message.level >= spdlog::level::warn)
      nbdkit_error("%s", text.c_str());
    else
      nbdkit_debug("%s", text.c_str());
  }
  void flush_() override {}
};

int report(const Error& error) {
  nbdkit_error("%s", error.to_string().c_str());
  nbdkit_set_error(io::errno_of(error));
  errno = io::errno_of(error);
  return -1;
}

int report(const Status& status) { return status.ok() ? 0 : report(status.error()); }

// Runs a callback's body; an exception (out of memory, say) becomes an I/O error instead of an
// abort.
template <typename Body>
int guarded(Body&& body) {
  try {
    return body();
  } catch (const std::exception& e) {
    return report(make_error(ErrorCode::kInternal, std::string("unexpected: ") + e.what()));
  }
}

void ldim_load() {
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("ldim", std::make_shared<NbdkitSink>()));
  // Keys and pages in plain must not reach a core dump.
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  ::prctl(PR_SET_DUMPABLE, 0);
  // Many threads, each with its own heap, would keep what they once needed: bound the number of
  // heaps.
  ::mallopt(M_ARENA_MAX, 4);
}

// nbdkit's own conventions, but never the passphrase itself: everybody sees a command line.
int take_passphrase(const char* value) {
  if (value[0] != '-' && value[0] != '+') {
    return report(make_error(ErrorCode::kInvalidArgument,
                             "a passphrase is not taken from the command line",
                             "use passphrase=- to be asked, +FILE or -FD"));
  }
  // Read here and not by nbdkit, whose buffers would keep a copy.
  std::string source = value;
  if (source[0] == '+') {
    char* const absolute = nbdkit_absolute_path(value + 1);
    if (absolute == nullptr) return -1;
    source = "+" + std::string(absolute);
    std::free(absolute);
  }
  auto read = client::read_passphrase(source, "Passphrase", false);
  if (!read.ok()) return report(read.error());
  membership.passphrase = std::move(*read);
  return 0;
}

int ldim_config(const char* key, const char* value) {
  return guarded([&] {
    std::string text = value;
    const std::string name = key;
    if (name == "passphrase") {
      crypto::initialise();
      return take_passphrase(value);
    }
    if ((name == "key" || name == "machine-dir" || (name == "cache" && text != "none")) &&
        !text.empty()) {
      char* absolute =
          nbdkit_absolute_path(value);  // nbdkit changes folder when it goes to the background
      if (absolute == nullptr) return -1;
      text = absolute;
      std::free(absolute);
    }
    return report(ldim::set_option(options, name, text));
  });
}

// What the enrolled machine's folder says and nobody has said otherwise.
Status ask_machine_folder() {
  if (options.user.empty()) return ok_status();
  crypto::initialise();
  if (options.machine_folder.empty()) options.machine_folder = ldim::default_machine_folder();
  DIMS_ASSIGN(const ldim::MachineFolder folder, ldim::MachineFolder::open(options.machine_folder));
  if (options.server.empty()) options.server = folder.server();
  if (options.machine_name.empty()) options.machine_name = folder.machine().name;
  return ok_status();
}

int ldim_config_complete() {
  return guarded([] {
    const Status asked = ask_machine_folder();
    return report(asked.ok() ? ldim::complete_options(options) : asked);
  });
}

ldim::LoginWish login_wish() {
  const trust::Access access =
      options.mode == ldim::SessionMode::kPersonal ? trust::Access::kWrite : trust::Access::kRead;
  return {options.machine_folder, options.user, options.image, access, options.cache_folder};
}

// The user's own keys live in a child process for as long as a login takes, and nowhere else.
Status log_in() {
  if (options.user.empty()) return ok_status();
  if (membership.passphrase.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "parameter passphrase= is missing",
                      "user= needs it: passphrase=- to be asked, +FILE or -FD");
  }
  auto session = ldim::log_in_child(login_wish(), membership.passphrase.view());
  membership.passphrase.clear();
  if (!session.ok()) return session.error();
  membership.session = std::move(*session);
  DIMS_ASSIGN(ldim::MachineFolder folder, ldim::MachineFolder::open(options.machine_folder));
  membership.folder.emplace(std::move(folder));
  return ok_status();
}

Result<std::shared_ptr<const format::KeyFile>> keys_of(const ldim::SessionKeys& session) {
  DIMS_ASSIGN(ldim::MachineFolder folder, ldim::MachineFolder::open(options.machine_folder));
  DIMS_ASSIGN(format::KeyFile keys,
              ldim::standing_keys(std::move(folder), session, membership.token));
  return std::make_shared<const format::KeyFile>(std::move(keys));
}

// The folder of a cache knows its server. What only looks leaves nothing there.
Result<std::unique_ptr<contract::Remote>> connect_remote(
    bool looks_only, std::shared_ptr<client::ServerPin>* pin = nullptr) {
  client::ClientOptions client;
  client.address = options.server;
  client.machine_name = options.machine_name;
  client.known_servers.path =
      options.diskless() ? client::user_known_servers() : options.cache_folder + "/known-servers";
  client.known_servers.remember = !looks_only;
  if (!looks_only) client.network = client::system_network_watch();
  // A folder that turns out to be another's is left as it is.
  if (!options.diskless()) client.known_servers.not_before = options.cache_folder + "/identity";
  if (pin != nullptr) {
    const auto server = parse_server(options.server);
    if (!server.ok()) return server.error();
    client.pin = *pin = std::make_shared<client::ServerPin>(*server, client.known_servers);
  }
  if (membership.folder) {
    client.machine = membership.folder->machine().machine;
    membership.token = client.token = ldim::session_token(*membership.folder, membership.session);
    DIMS_ASSIGN(options.keys, keys_of(membership.session));
  }
  return client::connect(client);
}

int ldim_get_ready() {
  return guarded([] {
    crypto::initialise();
    const Status entered = log_in();
    if (!entered.ok()) return report(entered);
    if (membership.folder)
      options.keys = std::make_shared<const format::KeyFile>(membership.session.keys);
    return report(ldim::preflight(options, [] { return connect_remote(true); }));
  });
}

// An administrator may have this machine wiped or revoked while the disk is in use.
Result<std::unique_ptr<ldim::LogWatch>> watch_log(ldim::Disk& disk) {
  ldim::LogWatch::Callbacks on;
  on.on_log = [](const trust::OrgState& org) { membership.standing->log_is(org); };
  on.halt = [&disk](const Error& why) { disk.halt(why); };
  on.end = [] { nbdkit_shutdown(); };
  // nbdkit waits for its clients. Everything is done that must be: nothing is lost by this.
  on.leave = [] { ::_exit(EXIT_FAILURE); };
  return ldim::LogWatch::start(options.machine_folder, options.cache_folder, std::move(on));
}

// By `ldim renew`: the same user has logged in again while the disk is in use.
Status take_renewed(ldim::Disk& disk, const ldim::SessionKeys& session) {
  if (!(session.image == membership.session.image)) {
    return make_error(ErrorCode::kWrongKey, "this login is for another image",
                      "use 'ldim renew' with this disk's cache folder");
  }
  DIMS_ASSIGN(auto keys, keys_of(session));
  DIMS_TRY(disk.renew(std::move(keys)));
  membership.token->replace(client::machine_login(membership.folder->place(), session.certificate));
  membership.standing->renewed(session);
  return ok_status();
}

int ldim_after_fork() {
  return guarded([] {
    auto fresh = std::make_unique<Serving>();
    std::shared_ptr<client::ServerPin> pin;
    auto remote = connect_remote(false, &pin);
    if (!remote.ok()) return report(remote.error());
    fresh->remote = std::move(remote).value();
    io::FileSystem* fs = &io::posix_file_system();
    if (options.diskless()) {
      fresh->memory = std::make_unique<io::MemoryFileSystem>();
      fs = fresh->memory.get();
    }
    // Fails at once when nbdkit was told to stop, so that waiting requests end and with them the
    // process.
    const auto quitting = [] { return nbdkit_nanosleep(0, 1) == -1; };
    ldim::DiskEnvironment environment{*fresh->remote, *fs, system_clock(), system_random(), {},
                                      quitting,       {}};
    if (membership.folder) {
      membership.standing = std::make_unique<ldim::SessionStanding>(membership.session);
      environment.session_trouble = [] { return membership.standing->trouble(); };
    }
    auto disk = ldim::Disk::open(options, environment);
    if (!disk.ok()) return report(disk.error());
    pin->settle();  // the folder is ours now
    fresh->disk = std::move(disk).value();
    // Without it the lease would stay until its term ends.
    struct GiveUp {
      ldim::Disk* disk;
      ~GiveUp() {
        if (disk != nullptr) (void)disk->close(std::chrono::seconds(1)).ok();
      }
    } give_up{fresh->disk.get()};
    if (membership.folder) {
      membership.renewal = std::make_unique<ldim::Renewal>(
          login_wish(), [raw = fresh->disk.get()](const ldim::SessionKeys& session) {
            return take_renewed(*raw, session);
          });
    }
    if (!options.diskless()) {
      auto control =
          ldim::ControlServer::start(options.cache_folder + std::string(ldim::kControlSocket),
                                     *fresh->disk, membership.renewal.get());
      if (!control.ok()) return report(control.error());
      fresh->control = std::move(control).value();
    }
    if (membership.folder) {
      auto log = watch_log(*fresh->disk);
      if (!log.ok()) return report(log.error());
      fresh->log = std::move(log).value();
    }
    give_up.disk = nullptr;
    serving = std::move(fresh);
    return 0;
  });
}

void ldim_cleanup() {
  (void)guarded([] {
    if (serving == nullptr) return 0;
    serving->log.reset();
    serving->control.reset();
    const Status closed = serving->disk->close(kCloseWait);
    if (!closed.ok()) nbdkit_error("%s", closed.error().to_string().c_str());
    serving->disk.reset();
    serving->remote->shutdown();
    serving.reset();
    return 0;
  });
}

// nbdkit_nanosleep() fails at once when the server is told to quit. Asked from a thread that serves
// no connection, it says nothing about this one, which is closing anyway.
bool server_is_quitting() {
  bool quitting = false;
  std::thread([&] { quitting = nbdkit_nanosleep(0, 1000) == -1; }).join();
  return quitting;
}

// The handle: only tells that there is a connection.
struct Connection {
  bool counted = false;
};

void* ldim_open(int) {
  try {
    auto connection = std::make_unique<Connection>();
    const Status connected = serving->disk->client_connected();
    if (!connected.ok()) {
      report(connected.error());
      return nullptr;
    }
    connection->counted = true;
    return connection.release();
  } catch (const std::exception& e) {
    nbdkit_error("unexpected: %s", e.what());
    return nullptr;
  }
}

void ldim_close(void* handle) {
  const std::unique_ptr<Connection> connection(static_cast<Connection*>(handle));
  (void)guarded([] {
    serving->disk->client_left(!server_is_quitting());
    return 0;
  });
}

int64_t ldim_get_size(void*) { return static_cast<int64_t>(serving->disk->size()); }
int ldim_can_write(void*) { return serving->disk->writable() ? 1 : 0; }
int ldim_can_flush(void*) { return 1; }
int ldim_can_trim(void*) { return 1; }
int ldim_can_zero(void*) { return 1; }
int ldim_can_fast_zero(void*) { return 1; }
int ldim_can_fua(void*) { return NBDKIT_FUA_NATIVE; }
int ldim_can_cache(void*) { return NBDKIT_CACHE_NATIVE; }
int ldim_can_extents(void*) { return 1; }
// A flush on one connection covers the writes of all: they share one journal.
int ldim_can_multi_conn(void*) { return 1; }
int ldim_is_rotational(void*) { return 0; }

int ldim_block_size(void*, uint32_t* minimum, uint32_t* preferred, uint32_t* maximum) {
  *minimum = 1;
  *preferred = kPageBytes;
  *maximum = 32 * 1024 * 1024;
  return 0;
}

int ldim_pread(void*, void* buf, uint32_t count, uint64_t offset, uint32_t) {
  return guarded([&] {
    return report(serving->disk->read({offset, count}, static_cast<std::uint8_t*>(buf)));
  });
}

int ldim_pwrite(void*, const void* buf, uint32_t count, uint64_t offset, uint32_t flags) {
  return guarded([&] {
    return report(serving->disk->write({offset, count}, static_cast<const std::uint8_t*>(buf),
                                       (flags & NBDKIT_FLAG_FUA) != 0));
  });
}

int ldim_flush(void*, uint32_t) {
  return guarded([] { return report(serving->disk->flush()); });
}

int ldim_trim(void*, uint32_t count, uint64_t offset, uint32_t flags) {
  return guarded([&] {
    return report(serving->disk->zero({offset, count}, true, (flags & NBDKIT_FLAG_FUA) != 0));
  });
}

int ldim_zero(void*, uint32_t count, uint64_t offset, uint32_t flags) {
  // A zero is a record of the journal whatever its size, hence always fast.
  const bool may_trim = (flags & NBDKIT_FLAG_MAY_TRIM) != 0;
  return guarded([&] {
    return report(serving->disk->zero({offset, count}, may_trim, (flags & NBDKIT_FLAG_FUA) != 0));
  });
}

int ldim_cache(void*, uint32_t count, uint64_t offset, uint32_t) {
  return guarded([&] { return report(serving->disk->cache({offset, count})); });
}

int ldim_extents(void*, uint32_t count, uint64_t offset, uint32_t flags, nbdkit_extents* extents) {
  return guarded([&] {
    const auto found = serving->disk->extents({offset, count}, (flags & NBDKIT_FLAG_REQ_ONE) != 0);
    if (!found.ok()) return report(found.error());
    for (const ldim::DiskExtent& e : *found) {
      const std::uint32_t type =
          (e.hole ? NBDKIT_EXTENT_HOLE : 0u) | (e.zero ? NBDKIT_EXTENT_ZERO : 0u);
      if (nbdkit_add_extent(extents, e.range.offset, e.range.count, type) == -1) return -1;
    }
    return 0;
  });
}

nbdkit_plugin make_plugin() {
  nbdkit_plugin plugin{};
  plugin.name = "ldim";
  plugin.longname = "DIMS local data image manager";
  plugin.version = "0.1.0";
  plugin.description = "Serves a versioned master image from a local cache and an RDIM server.";
  plugin.load = ldim_load;
  plugin.config = ldim_config;
  plugin.config_complete = ldim_config_complete;
  plugin.config_help = ldim::kOptionsHelp;
  plugin.get_ready = ldim_get_ready;
  plugin.after_fork = ldim_after_fork;
  plugin.cleanup = ldim_cleanup;
  plugin.open = ldim_open;
  plugin.close = ldim_close;
  plugin.get_size = ldim_get_size;
  plugin.can_write = ldim_can_write;
  plugin.can_flush = ldim_can_flush;
  plugin.can_trim = ldim_can_trim;
  plugin.can_zero = ldim_can_zero;
  plugin.can_fast_zero = ldim_can_fast_zero;
  plugin.can_fua = ldim_can_fua;
  plugin.can_cache = ldim_can_cache;
  plugin.can_extents = ldim_can_extents;
  plugin.can_multi_conn = ldim_can_multi_conn;
  plugin.is_rotational = ldim_is_rotational;
  plugin.block_size = ldim_block_size;
  plugin.pread = ldim_pread;
  plugin.pwrite = ldim_pwrite;
  plugin.flush = ldim_flush;
  plugin.trim = ldim_trim;
  plugin.zero = ldim_zero;
  plugin.cache = ldim_cache;
  plugin.extents = ldim_extents;
  plugin.errno_is_preserved = 1;
  return plugin;
}

nbdkit_plugin plugin = make_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(plugin)
