#include "nbdkit-ldim/login/machine_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>
#include <spdlog/spdlog.h>

#include "common/base/wire.h"
#include "common/crypto/hash.h"
#include "common/io/errno_map.h"
#include "common/io/private_file.h"
#include "nbdkit-ldim/login/tpm_seal.h"

namespace dims::ldim {
namespace {

constexpr std::size_t kListBytesMax = 4 * kMiB;
constexpr int kLockTries = 100;

// Binds what is known of an image to its name and to this machine: else one of the user's images
// could be put where another was, and would open under its name.
Digest image_mark(const Secret32& machine, const std::string& name, const KnownImage& image) {
  const Secret32 mark = crypto::prf(machine, "known-image",
                                    {as_bytes(name), image.image.view(), image.domain.view()});
  return *Digest::from_view(mark.view());
}

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

Bytes encode_list(const std::vector<Bytes>& list) {
  Bytes out;
  Writer w(out);
  w.u32(static_cast<std::uint32_t>(list.size()));
  for (const Bytes& one : list) w.string(one);
  return out;
}

Result<std::vector<Bytes>> decode_list(ByteView bytes, const std::string& path) {
  Reader r(bytes);
  std::vector<Bytes> out;
  const std::uint32_t count = r.u32();
  for (std::uint32_t i = 0; i < count && r.ok(); ++i) {
    const ByteView one = r.string();
    out.emplace_back(one.begin(), one.end());
  }
  if (r.at_end()) return out;
  return make_error(ErrorCode::kCorrupt, path + " is damaged", "log in with the server reachable");
}

trust::BootId boot_id() {
  auto file =
      io::posix_file_system().open("/proc/sys/kernel/random/boot_id", io::OpenMode::kReadOnly);
  Bytes text(36);
  if (file.ok()) {
    const auto n = (*file)->read_some(0, text);
    text.resize(n.ok() ? *n : 0);
  }
  return *trust::BootId::from_view(crypto::sha256(text).view().first(trust::BootId::kBytes));
}

void remove_all(const std::string& path) {
  std::error_code problem;
  std::filesystem::remove_all(path, problem);
  if (problem) spdlog::error("wipe: {} was not removed: {}", path, problem.message());
}

}  // namespace

std::string default_machine_folder() {
  const std::string given = environment("DIMS_MACHINE");
  return given.empty() ? "/var/lib/dims" : given;
}

Result<std::optional<crypto::HeldKey>> machine_seal(const std::string& machine_folder) {
  auto& fs = io::posix_file_system();
  const std::string folder = environment("CREDENTIALS_DIRECTORY");
  const std::string path = folder + "/dims-machine-key";
  bool there = false;
  if (!folder.empty()) {
    DIMS_ASSIGN(there, fs.exists(path));
  }
  if (!there) {
    DIMS_ASSIGN(const bool by_tpm, has_tpm_seal(machine_folder));
    if (!by_tpm) return std::optional<crypto::HeldKey>{};
    DIMS_ASSIGN(const crypto::HeldKey key, open_tpm_seal(machine_folder));
    return std::optional<crypto::HeldKey>{key};
  }
  DIMS_TRY(io::check_private(path, "the credential"));
  DIMS_ASSIGN(Bytes bytes, io::read_file(fs, path, 4096));
  auto key = Secret32::from_view(bytes);
  crypto::wipe(bytes);
  if (!key) {
    return make_error(ErrorCode::kCorrupt, path + " has not 32 bytes",
                      "make the credential with 'head -c 32 /dev/urandom'");
  }
  return std::optional<crypto::HeldKey>{std::move(*key)};
}

// Spared: the journal and what opens it for its user. It holds what no server has.
void erase_cache(const std::string& folder, bool spare_unsent) {
  if (!spare_unsent) return remove_all(folder);
  for (const char* part : {"/cache", "/scratch"}) remove_all(folder + part);
}

MachineFolder::MachineFolder(client::OrgFolder org, trust::MachineFile machine,
                             client::KnownOrg known)
    : org_(std::move(org)),
      machine_(std::make_unique<trust::MachineFile>(std::move(machine))),
      known_(std::move(known)) {}

MachineFolder::MachineFolder(MachineFolder&& other) noexcept
    : org_(std::move(other.org_)),
      machine_(std::move(other.machine_)),
      known_(std::move(other.known_)),
      lock_(std::exchange(other.lock_, -1)) {}

MachineFolder::~MachineFolder() {
  if (lock_ >= 0) ::close(lock_);
}

Result<MachineFolder> MachineFolder::open(const std::string& path) {
  client::OrgFolder org(io::posix_file_system(), path);
  DIMS_ASSIGN(const bool there, io::posix_file_system().exists(org.file("machine")));
  if (!there) {
    return make_error(ErrorCode::kNotFound, "no machine is enrolled in " + path,
                      "use 'ldim enroll LINE', or name another folder (machine-dir=, --machine)");
  }
  DIMS_ASSIGN(const auto seal, machine_seal(path));
  DIMS_ASSIGN(trust::MachineFile machine,
              trust::load_machine(org.file("machine"), seal ? &seal->key() : nullptr));
  DIMS_ASSIGN(auto known, org.load());
  if (!known || !(known->org == machine.org)) {
    return make_error(ErrorCode::kCorrupt, org.file("organisation") + " does not fit the machine",
                      "enroll this machine again");
  }
  return MachineFolder(std::move(org), std::move(machine), std::move(*known));
}

Status MachineFolder::lock() {
  const std::string path = org_.file("lock");
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) return io::errno_error(errno, "cannot open", path);
  for (int i = 0; i < kLockTries; ++i) {
    if (::flock(lock_, LOCK_EX | LOCK_NB) == 0) return ok_status();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return make_error(ErrorCode::kConflict, path + " is held by another login", "try again");
}

client::LoginPlace MachineFolder::place() const {
  client::LoginPlace place;
  place.server = known_.server;
  place.known_servers.path = org_.file("known-servers");
  place.org = known_.org;
  place.records = known_.records;
  place.machine = machine_.get();
  return place;
}

Result<trust::OrgLog> MachineFolder::log() const {
  return trust::OrgLog::open(known_.org, known_.records);
}

Status MachineFolder::keep_log(const trust::OrgLog& log) {
  if (log.size() == known_.records.size()) return ok_status();
  known_.records = client::records_of(log);
  // Every running disk of the machine keeps it, and logins do.
  return org_.keep(known_);
}

// Names of files tell nothing: they are hashes.
std::string MachineFolder::file_of(const char* folder, ByteView name) const {
  const Digest hash = crypto::sha256({as_bytes(folder), name});
  return org_.file(std::string(folder) + "/" + to_hex(hash.view().first(16)));
}

Status MachineFolder::keep(const std::string& path, ByteView bytes) const {
  auto& fs = io::posix_file_system();
  DIMS_TRY(fs.make_folder(io::parent_folder(path)));
  return io::replace_file(fs, path, bytes);
}

Result<std::vector<Bytes>> MachineFolder::grants(const trust::UserId& user, trust::KeyScope scope,
                                                 const trust::ScopeId& id) const {
  Bytes name(user.view().begin(), user.view().end());
  name.push_back(static_cast<std::uint8_t>(scope));
  name.insert(name.end(), id.view().begin(), id.view().end());
  const std::string path = file_of("grants", name);
  DIMS_ASSIGN(const bool there, io::posix_file_system().exists(path));
  if (!there) return std::vector<Bytes>{};
  DIMS_ASSIGN(const Bytes bytes, io::read_file(io::posix_file_system(), path, kListBytesMax));
  return decode_list(bytes, path);
}

Status MachineFolder::keep_grants(const trust::UserId& user, trust::KeyScope scope,
                                  const trust::ScopeId& id, const std::vector<Bytes>& grants) {
  Bytes name(user.view().begin(), user.view().end());
  name.push_back(static_cast<std::uint8_t>(scope));
  name.insert(name.end(), id.view().begin(), id.view().end());
  return keep(file_of("grants", name), encode_list(grants));
}

Result<Bytes> MachineFolder::certificate(const trust::PublicKey& session) const {
  return io::read_file(io::posix_file_system(), file_of("certificates", session.view()),
                       trust::kSessionBytesMax);
}

Status MachineFolder::keep_certificate(const trust::PublicKey& session, ByteView bytes) {
  return keep(file_of("certificates", session.view()), bytes);
}

Result<KnownImage> MachineFolder::image(const std::string& name) const {
  const std::string path = file_of("images", as_bytes(name));
  const auto bytes = io::read_file(io::posix_file_system(), path, 256);
  KnownImage out;
  if (bytes.ok()) {
    Reader r(*bytes);
    out.image = r.id<ImageId>();
    out.domain = r.id<DomainId>();
    const auto mark = r.id<Digest>();
    if (r.at_end() && mark == image_mark(machine_->secret.key(), name, out)) return out;
  }
  return make_error(ErrorCode::kNotFound, "this machine has never had image '" + name + "'",
                    "log in once with the server reachable");
}

Status MachineFolder::keep_image(const std::string& name, const KnownImage& image) {
  Bytes bytes;
  Writer w(bytes);
  w.id(image.image);
  w.id(image.domain);
  w.id(image_mark(machine_->secret.key(), name, image));
  return keep(file_of("images", as_bytes(name)), bytes);
}

Status MachineFolder::note_cache(const std::string& folder) {
  if (folder.empty()) return ok_status();
  const std::string path = org_.file("caches");
  std::vector<Bytes> all;
  const auto known = io::read_file(io::posix_file_system(), path, kListBytesMax);
  if (known.ok()) {
    auto listed = decode_list(*known, path);
    // A login does not end with it: what comes now is in the list again.
    if (!listed.ok()) spdlog::error("{}; a wipe misses what was in it", listed.error().message);
    if (listed.ok()) all = std::move(*listed);
  }
  const ByteView name = as_bytes(folder);
  for (const Bytes& one : all)
    if (as_text(one) == folder) return ok_status();
  all.emplace_back(name.begin(), name.end());
  return io::replace_file(io::posix_file_system(), path, encode_list(all));
}

trust::OfflineStore MachineFolder::offline() const {
  return trust::OfflineStore({io::posix_file_system(), org_.file("offline"), known_.org,
                              machine_->machine, machine_->secret, system_clock(), boot_id(),
                              system_random()});
}

Status forget_former_machine(const client::OrgFolder& folder) {
  auto& fs = io::posix_file_system();
  for (const char* part : {"grants", "certificates", "images"}) remove_all(folder.file(part));
  const std::string logins = folder.file("offline");
  DIMS_ASSIGN(const bool there, fs.exists(logins));
  return there ? fs.remove(logins) : ok_status();
}

Status MachineFolder::obey(const trust::Wipe& wipe) {
  spdlog::warn("an administrator has told this machine to erase its keys and caches");
  DIMS_TRY(offline().erase());
  std::vector<Bytes> caches;
  const auto known = io::read_file(io::posix_file_system(), org_.file("caches"), kListBytesMax);
  if (known.ok()) {
    auto listed = decode_list(*known, org_.file("caches"));
    // The rest of the wipe matters more than a list that cannot be read.
    if (!listed.ok()) spdlog::error("wipe: {}; it misses what was in it", listed.error().message);
    if (listed.ok()) caches = std::move(*listed);
  }
  for (const Bytes& one : caches) {
    erase_cache(std::string(as_text(one)), wipe.spare_unsent);
  }
  for (const char* part : {"grants", "certificates", "images"}) remove_all(org_.file(part));
  if (!wipe.spare_unsent) remove_all(org_.file("caches"));
  machine_->secret = crypto::SecretKey::random(system_random());
  machine_->obeyed_wipe_seq = wipe.seq;
  DIMS_ASSIGN(const auto seal, machine_seal(org_.path()));
  return trust::save_machine(org_.file("machine"), *machine_, seal ? &seal->key() : nullptr,
                             system_random());
}

}  // namespace dims::ldim
