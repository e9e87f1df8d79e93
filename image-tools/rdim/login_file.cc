#include "image-tools/rdim/login_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/crypto/hash.h"
#include "common/io/errno_map.h"
#include "common/io/file_turn.h"

namespace dims::rdim {
namespace {

constexpr std::string_view kAd = "dims/rdim-login/2";
constexpr std::size_t kMaxBytes = 4096;

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// One key a configuration folder and user.
std::string key_path(const std::string& folder) {
  const std::string hash = crypto::sha256(as_bytes(folder)).short_hex();
  const std::string runtime = environment("XDG_RUNTIME_DIR");
  if (!runtime.empty() && ::access(runtime.c_str(), W_OK) == 0) return runtime + "/dims-" + hash;
  return "/dev/shm/dims-" + std::to_string(::getuid()) + "-" + hash;
}

Error nobody() {
  return make_error(ErrorCode::kNotFound, "nobody is logged in here, or not any more",
                    "use 'rdim login USER', or --user NAME with --passphrase");
}

Status write_key(const std::string& path, const Secret32& key) {
  ::unlink(path.c_str());
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return io::errno_error(errno, "cannot make", path);
  const ssize_t n = ::write(fd, key.bytes.data(), key.bytes.size());
  ::close(fd);
  return n == static_cast<ssize_t>(key.bytes.size())
             ? ok_status()
             : Status(io::errno_error(EIO, "cannot write", path));
}

// Only a file of our own that nobody else may read.
Result<Secret32> read_key(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return nobody();
  struct stat facts {};
  Secret32 key;
  const bool good =
      ::fstat(fd, &facts) == 0 && facts.st_uid == ::getuid() && (facts.st_mode & 077) == 0 &&
      ::read(fd, key.bytes.data(), key.bytes.size()) == static_cast<ssize_t>(key.bytes.size());
  ::close(fd);
  if (!good) return nobody();
  return key;
}

}  // namespace

Result<std::string> config_folder() {
  std::string folder = environment("DIMS_CONFIG");
  if (folder.empty()) {
    std::string above = environment("XDG_CONFIG_HOME");
    if (above.empty() && !environment("HOME").empty()) above = environment("HOME") + "/.config";
    if (above.empty()) {
      return make_error(ErrorCode::kInvalidArgument, "there is no folder for what rdim remembers",
                        "set HOME or DIMS_CONFIG");
    }
    DIMS_TRY(io::posix_file_system().make_folder(above));
    folder = above + "/dims";
  }
  DIMS_TRY(io::posix_file_system().make_folder(folder));
  return folder;
}

bool has_login(const std::string& folder) {
  return ::access((folder + "/login").c_str(), R_OK) == 0 &&
         ::access(key_path(folder).c_str(), R_OK) == 0;
}

Status save_login(const std::string& folder, const LoginFile& login, Random& random) {
  crypto::SecretKey key = crypto::SecretKey::random(random);
  Bytes plain;
  plain.reserve(kMaxBytes);  // so that growing leaves no copies
  Writer w(plain);
  w.string(as_bytes(login.name));
  w.id(login.secrets.org);
  w.id(login.secrets.user);
  w.raw(login.secrets.user_key.view());
  w.string(trust::pack_secrets(login.secrets).view());
  w.raw(login.login.seed.view());
  w.u64(login.ends_unix_s);
  w.id(login.token);
  w.string(as_bytes(login.token_server));
  const Bytes sealed = crypto::wrap(key.key(), as_bytes(kAd), plain, random);
  crypto::wipe(plain);
  DIMS_ASSIGN(const auto turn, io::FileTurn::wait(folder + "/login.lock"));
  DIMS_TRY(write_key(key_path(folder), key.key()));
  return io::replace_file(io::posix_file_system(), folder + "/login", sealed);
}

Result<LoginFile> load_login(const std::string& folder, Clock& clock) {
  if (!has_login(folder)) return nobody();
  DIMS_ASSIGN(const auto turn, io::FileTurn::wait(folder + "/login.lock"));
  DIMS_ASSIGN(Secret32 key, read_key(key_path(folder)));
  const auto sealed = io::read_file(io::posix_file_system(), folder + "/login", kMaxBytes);
  if (!sealed.ok()) return sealed.error();
  const auto plain = crypto::unwrap_secret(key, as_bytes(kAd), *sealed);
  crypto::wipe(key.mut());
  if (!plain) return nobody();
  Reader r(plain->view());
  LoginFile out;
  out.name = std::string(as_text(r.string()));
  const auto org = r.id<OrgId>();
  const auto user = r.id<trust::UserId>();
  const auto user_key = crypto::SecretKey::from_view(r.raw(Secret32::kBytes));
  const ByteView packed = r.string();
  auto seed = crypto::SecretKey::from_view(r.raw(Secret32::kBytes));
  out.ends_unix_s = r.u64();
  out.token = r.id<trust::SessionToken>();
  out.token_server = std::string(as_text(r.string()));
  if (!r.at_end() || !user_key || !seed)
    return make_error(ErrorCode::kCorrupt, folder + "/login is damaged", "log in again");
  if (client::unix_now_s(clock) >= out.ends_unix_s) return nobody();
  DIMS_ASSIGN(out.secrets, trust::unpack_secrets(org, user, *user_key, packed));
  out.login = crypto::SecretSigner::from_seed(std::move(*seed));
  return out;
}

Status remove_login(const std::string& folder) {
  ::unlink(key_path(folder).c_str());
  const std::string path = folder + "/login";
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return io::errno_error(errno, "cannot remove", path);
  return ok_status();
}

}  // namespace dims::rdim
