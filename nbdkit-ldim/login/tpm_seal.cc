#include "nbdkit-ldim/login/tpm_seal.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <vector>

#include "common/base/wire.h"
#include "common/crypto/hash.h"
#include "common/crypto/secret.h"
#include "common/io/errno_map.h"
#include "common/io/file.h"

extern char** environ;

namespace dims::ldim {
namespace {

constexpr std::uint32_t kMagic = 0x314d5054;  // "TPM1"
constexpr std::size_t kFileBytesMax = 8192;
constexpr std::size_t kOutputBytesMax = 4096;

std::string seal_path(const std::string& folder) { return folder + "/machine-tpm"; }

Error not_there(const std::string& what) {
  return make_error(ErrorCode::kNotFound, what,
                    "install tpm2-tools, make /dev/tpmrm0 usable or set TPM2TOOLS_TCTI; or leave "
                    "--tpm away");
}

// Runs a program; `input` to its standard input, what it prints into `output`. Its exit code, 127
// if it is not there.
Result<int> run(const std::vector<std::string>& command, ByteView input,
                crypto::SecretBytes* output) {
  int in[2], out[2];
  if (::pipe2(in, O_CLOEXEC) != 0) return io::errno_error(errno, "cannot make", "pipe");
  if (::pipe2(out, O_CLOEXEC) != 0) {
    const int problem = errno;
    ::close(in[0]);
    ::close(in[1]);
    return io::errno_error(problem, "cannot make", "pipe");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  std::vector<char*> arguments;
  for (const std::string& one : command) arguments.push_back(const_cast<char*>(one.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int spawned =
      ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  if (spawned == 0 && !input.empty()) {
    // A key is far smaller than a pipe: this never blocks. The tools read it before they end.
    (void)!::write(in[1], input.data(), input.size());
  }
  ::close(in[1]);
  crypto::SecretBytes buffer(kOutputBytesMax);
  std::size_t got = 0;
  while (spawned == 0 && got < buffer.size()) {
    const ssize_t n = ::read(out[0], buffer.mut().data() + got, buffer.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += static_cast<std::size_t>(n);
  }
  ::close(out[0]);
  if (spawned != 0) return 127;
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (output != nullptr) {
    buffer.shorten(got);
    *output = std::move(buffer);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// A folder for the tools' contexts, of which none is a secret.
class Workshop {
 public:
  explicit Workshop(const std::string& folder) : path_(folder + "/tpm-work-XXXXXX") {
    (void)!::mkdtemp(path_.data());  // what cannot be made fails at the first use
  }
  ~Workshop() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;
  std::string file(const char* name) const { return path_ + "/" + name; }

  Status tool(const std::vector<std::string>& command, ByteView input = {},
              crypto::SecretBytes* output = nullptr) const {
    DIMS_ASSIGN(const int code, run(command, input, output));
    // Where no resource manager does it: room for the next object.
    (void)run({"tpm2_flushcontext", "-Q", "-t"}, {}, nullptr).ok();
    if (code == 0) return ok_status();
    if (code == 127) return not_there(command[0] + " is not installed");
    return make_error(ErrorCode::kWrongKey, "the TPM refused (" + command[0] + ")",
                      "this folder belongs to another machine, or its TPM was cleared or cannot be "
                      "reached: enroll this machine again");
  }
  Status primary() const {
    return tool({"tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-c", file("primary.ctx")});
  }

 private:
  std::string path_;
};

std::mutex& known_mutex() {
  static std::mutex mutex;
  return mutex;
}
std::map<std::string, crypto::HeldKey>& known_keys() {
  static std::map<std::string, crypto::HeldKey> keys;
  return keys;
}

}  // namespace

bool has_tpm() {
  const char* const said = std::getenv("TPM2TOOLS_TCTI");
  const bool device = ::access("/dev/tpmrm0", R_OK | W_OK) == 0;
  if ((said == nullptr || *said == 0) && !device) return false;
  const auto code = run({"tpm2_createprimary", "--version"}, {}, nullptr);
  return code.ok() && *code == 0;
}

Result<bool> has_tpm_seal(const std::string& folder) {
  return io::posix_file_system().exists(seal_path(folder));
}

Result<crypto::HeldKey> make_tpm_seal(const std::string& folder, Random& random) {
  if (!has_tpm()) return not_there("there is no TPM here");
  const Workshop work(folder);
  const crypto::HeldKey key = random.id<Secret32>();
  DIMS_TRY(work.primary());
  DIMS_TRY(work.tool({"tpm2_create", "-Q", "-C", work.file("primary.ctx"), "-i-", "-u",
                      work.file("public"), "-r", work.file("private")},
                     key.view()));
  io::FileSystem& fs = io::posix_file_system();
  DIMS_ASSIGN(const Bytes open, io::read_file(fs, work.file("public"), kFileBytesMax / 2));
  DIMS_ASSIGN(const Bytes sealed, io::read_file(fs, work.file("private"), kFileBytesMax / 2));
  Bytes out;
  Writer w(out);
  w.u32(kMagic);
  w.u16(1);
  w.u16(0);
  w.string(open);
  w.string(sealed);
  DIMS_TRY(io::replace_file(fs, seal_path(folder), out));
  // That it comes back is worth knowing before anything depends on it.
  DIMS_ASSIGN(const crypto::HeldKey back, open_tpm_seal(folder));
  if (back == key) return key;
  return make_error(ErrorCode::kWrongKey, "the TPM gave back another key", "leave --tpm away");
}

Result<crypto::HeldKey> open_tpm_seal(const std::string& folder) {
  const std::lock_guard lock(known_mutex());
  const auto known = known_keys().find(folder);
  if (known != known_keys().end()) return known->second;
  io::FileSystem& fs = io::posix_file_system();
  DIMS_ASSIGN(const Bytes bytes, io::read_file(fs, seal_path(folder), kFileBytesMax));
  Reader r(bytes);
  const bool ours = r.u32() == kMagic && r.u16() == 1 && r.u16() == 0;
  const ByteView open = r.string();
  const ByteView sealed = r.string();
  if (!ours || !r.at_end()) {
    return make_error(ErrorCode::kCorrupt, seal_path(folder) + " is damaged",
                      "enroll this machine again");
  }
  const Workshop work(folder);
  DIMS_TRY(io::replace_file(fs, work.file("public"), open));
  DIMS_TRY(io::replace_file(fs, work.file("private"), sealed));
  DIMS_TRY(work.primary());
  DIMS_TRY(work.tool({"tpm2_load", "-Q", "-C", work.file("primary.ctx"), "-u", work.file("public"),
                      "-r", work.file("private"), "-c", work.file("seal.ctx")}));
  crypto::SecretBytes plain;
  DIMS_TRY(work.tool({"tpm2_unseal", "-Q", "-c", work.file("seal.ctx")}, {}, &plain));
  if (plain.size() != Secret32::kBytes)
    return make_error(ErrorCode::kCorrupt, "the TPM gave no key", "enroll this machine again");
  crypto::HeldKey key(*Secret32::from_view(plain.view()));
  known_keys()[folder] = key;
  return key;
}

}  // namespace dims::ldim
