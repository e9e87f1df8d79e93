#include "common/client/known_servers.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstdlib>
#include <ctime>

#include "common/crypto/certificate.h"
#include "common/io/errno_map.h"
#include "common/io/file.h"

namespace dims::client {
namespace {

constexpr std::size_t kFileBytesMax = 1 << 20;

std::string day_of(std::int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%d", &utc);
  return {text, length};
}

// mkdir -p, for us alone.
Status make_folders(const std::string& folder) {
  if (folder.empty() || folder == "/" || folder == ".") return ok_status();
  if (::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) return ok_status();
  if (errno != ENOENT) return io::errno_error(errno, "cannot make", folder);
  DIMS_TRY(make_folders(io::parent_folder(folder)));
  if (::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) return ok_status();
  return io::errno_error(errno, "cannot make", folder);
}

// One write, so that two programs may append at the same time.
Status append_line(const std::string& path, const std::string& line) {
  DIMS_TRY(make_folders(io::parent_folder(path)));
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return io::errno_error(errno, "cannot write", path);
  // After half a line of a power cut the new one must stand alone.
  const std::string text = "\n" + line + "\n";
  const ssize_t written = ::write(fd, text.data(), text.size());
  const int error = errno;
  const bool synced = ::fdatasync(fd) == 0;
  ::close(fd);
  if (written == static_cast<ssize_t>(text.size()) && synced) return ok_status();
  return io::errno_error(written < 0 ? error : EIO, "cannot write", path);
}

std::optional<Digest> last_line_of(std::string_view text, std::string_view address) {
  std::optional<Digest> found;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) break;  // half a line
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.substr(0, space) != address) continue;
    const auto fingerprint = Digest::from_hex_text(line.substr(space + 1));
    if (fingerprint) found = fingerprint;
  }
  return found;
}

}  // namespace

std::string user_known_servers() {
  const auto from = [](const char* variable, const char* below) -> std::string {
    const char* const value = std::getenv(variable);
    if (value == nullptr || *value == '\0') return {};
    return std::string(value) + below + "/known-servers";
  };
  if (std::string path = from("DIMS_CONFIG", ""); !path.empty()) return path;
  if (std::string path = from("XDG_CONFIG_HOME", "/dims"); !path.empty()) return path;
  return from("HOME", "/.config/dims");
}

ServerPin::ServerPin(ServerAddress server, KnownServers known, Clock& clock)
    : server_(std::move(server)), known_(std::move(known)), clock_(clock) {}

std::optional<Digest> ServerPin::accepted() const {
  std::lock_guard lock(mutex_);
  return accepted_;
}

Result<std::optional<Digest>> ServerPin::remembered() const {
  if (known_.path.empty()) return std::optional<Digest>{};
  const auto text = io::read_file(io::posix_file_system(), known_.path, kFileBytesMax);
  if (text.ok()) return last_line_of(as_text(*text), server_.address);
  if (text.error().code == ErrorCode::kNotFound) return std::optional<Digest>{};
  return text.error();
}

void ServerPin::settle() {
  std::lock_guard lock(mutex_);
  const auto known = remembered();
  if (!known.ok() || !accepted_ || *known == accepted_) return;
  remember(*accepted_);
}

void ServerPin::remember(const Digest& fingerprint) {
  if (known_.path.empty() || !known_.remember) return;
  if (!known_.not_before.empty() && ::access(known_.not_before.c_str(), F_OK) != 0) return;
  spdlog::info("first contact with {}: its certificate has the fingerprint {}", server_.address,
               fingerprint.hex());
  const Status written = append_line(known_.path, server_.address + " " + fingerprint.hex());
  if (!written.ok()) {
    spdlog::warn("the server {} is not remembered: {}", server_.address,
                 written.error().to_string());
  }
}

Status ServerPin::check(const std::string& certificate_pem) {
  DIMS_ASSIGN(const crypto::CertificateFacts facts, crypto::read_certificate(certificate_pem));
  std::lock_guard lock(mutex_);
  DIMS_ASSIGN(const std::optional<Digest> known, remembered());
  const bool given = server_.fingerprint.has_value();
  const std::optional<Digest> wanted = given ? server_.fingerprint : known ? known : accepted_;
  if (wanted && !(*wanted == facts.fingerprint)) {
    const std::string from = given   ? "given with the address"
                             : known ? "remembered in " + known_.path
                                     : "seen before";
    return make_error(
        ErrorCode::kPermissionDenied,
        "this is not the server known as " + server_.address +
            ": its certificate has the fingerprint " + facts.fingerprint.hex() + ", not " +
            wanted->hex() + ", the one " + from,
        std::string("somebody may stand between; if the server's administrator confirms the new "
                    "one, give ") +
            (given ? "it with the address" : "HOST:PORT#FINGERPRINT once"));
  }
  const std::int64_t now_s =
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count();
  if (now_s > facts.valid_until_unix_s) {
    return make_error(ErrorCode::kPermissionDenied,
                      "the certificate of the server " + server_.address + " expired on " +
                          day_of(facts.valid_until_unix_s),
                      "its administrator makes a new one with 'rdim-server init --renew'; check "
                      "the clock of this machine, too");
  }
  if (!known || !(*known == facts.fingerprint)) remember(facts.fingerprint);
  accepted_ = facts.fingerprint;
  return ok_status();
}

}  // namespace dims::client
