#include "nbdkit-ldim/disk/preflight.h"

#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "common/base/wire.h"
#include "common/format/key_file.h"
#include "common/io/errno_map.h"
#include "nbdkit-ldim/disk/cache_folder.h"

namespace dims::ldim {
namespace {

constexpr std::size_t kMaxReportBytes = 16384;

Status ask_server(const DiskOptions& options, const format::KeyFile& key,
                  const std::optional<FolderIdentity>& known, const Connect& connect) {
  DIMS_ASSIGN(const auto remote, connect());
  const auto give_up = system_clock().boottime() + options.connect_wait;
  for (;;) {
    const auto hello = remote->hello();
    const auto image =
        hello.ok() ? remote->find_image(options.image) : Result<contract::ImageInfo>(hello.error());
    if (image.ok()) {
      if (!(image->key_check == key.key_check(image->id))) {
        return make_error(
            ErrorCode::kWrongKey,
            "the key file " + options.key_path + " does not belong to image " + options.image,
            "use the key file that the image was imported with");
      }
      if (known && !(known->image == image->id)) {
        return make_error(ErrorCode::kInvalidArgument,
                          "cache folder " + options.cache_folder +
                              " belongs to another image (id " + known->image.hex() + ", but " +
                              options.image + " is " + image->id.hex() + ")",
                          "give each image a cache folder of its own");
      }
      return ok_status();
    }
    if (image.error().code != ErrorCode::kUnavailable) return image.error();
    if (known) return ok_status();
    if (system_clock().boottime() >= give_up) {
      return make_error(ErrorCode::kUnavailable,
                        "the server " + options.server +
                            " cannot be reached and there is no cache of " + options.image +
                            " to work from: " + image.error().message,
                        "start once with the server reachable");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

// The child's answer: empty = ok, else code and three strings.
Bytes encode_report(const Status& status) {
  Bytes out;
  if (status.ok()) return out;
  Writer w(out);
  w.u32(static_cast<std::uint32_t>(status.error().code));
  w.string(as_bytes(status.error().message));
  w.string(as_bytes(status.error().hint));
  w.string(as_bytes(status.error().holder));
  return out;
}

Status decode_report(ByteView bytes) {
  if (bytes.empty()) return ok_status();
  Reader r(bytes);
  Error error;
  error.code = static_cast<ErrorCode>(r.u32());
  error.message = std::string(as_text(r.string()));
  error.hint = std::string(as_text(r.string()));
  error.holder = std::string(as_text(r.string()));
  if (!r.ok())
    return make_error(ErrorCode::kInternal,
                      "the check of the server ended in the middle of its answer");
  return error;
}

Status in_child(const std::function<Status()>& body) {
  int ends[2];
  if (::pipe(ends) != 0) return io::errno_error(errno, "cannot make", "pipe");
  const pid_t pid = ::fork();
  if (pid < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    return io::errno_error(errno, "cannot start", "child process");
  }
  if (pid == 0) {
    ::close(ends[0]);
    const Bytes report = encode_report(body());
    std::size_t done = 0;
    while (done < report.size()) {
      const ssize_t n = ::write(ends[1], report.data() + done, report.size() - done);
      if (n <= 0) break;
      done += static_cast<std::size_t>(n);
    }
    ::_exit(done == report.size() ? 0 : 1);  // no destructors of the parent's things
  }
  ::close(ends[1]);
  Bytes report(kMaxReportBytes);
  std::size_t got = 0;
  while (got < report.size()) {
    const ssize_t n = ::read(ends[0], report.data() + got, report.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += static_cast<std::size_t>(n);
  }
  ::close(ends[0]);
  int wait_status = 0;
  while (::waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
  }
  report.resize(got);
  if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0) {
    return make_error(ErrorCode::kInternal, "the check of the server died");
  }
  return decode_report(report);
}

}  // namespace

Status preflight(const DiskOptions& options, const Connect& connect) {
  DIMS_ASSIGN(const format::KeyFile key, format::load_key_file(options.key_path));
  auto& fs = io::posix_file_system();
  std::optional<FolderIdentity> known;
  if (!options.diskless()) {
    DIMS_ASSIGN(known, read_identity(fs, options.cache_folder));
    if (known && !(known->key_check == key.key_check(known->image))) {
      return make_error(ErrorCode::kWrongKey,
                        "the key file " + options.key_path + " does not belong to cache folder " +
                            options.cache_folder,
                        "use the key file that the image was imported with");
    }
    DIMS_ASSIGN(const bool there, fs.exists(options.cache_folder));
    if (there && known) {
      // Taken and given back: somebody else's lock is worth an error on the terminal.
      DIMS_ASSIGN(const auto lock, FolderLock::take(options.cache_folder));
    } else if (!there) {
      DIMS_ASSIGN(const bool parent, fs.exists(io::parent_folder(options.cache_folder)));
      if (!parent) {
        return make_error(ErrorCode::kNotFound,
                          "the folder above " + options.cache_folder + " does not exist",
                          "make it first");
      }
    }
  }
  return in_child([&] { return ask_server(options, key, known, connect); });
}

}  // namespace dims::ldim
