#include "nbdkit-ldim/disk/preflight.h"

#include <unistd.h>

#include <cerrno>
#include <thread>

#include <spdlog/spdlog.h>

#include "common/format/key_file.h"
#include "common/io/child.h"
#include "common/io/errno_map.h"
#include "nbdkit-ldim/disk/cache_folder.h"

namespace dims::ldim {
namespace {

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
      if (options.mode == SessionMode::kPersonal && image->holder &&
          !(known && image->holder->machine == known->machine)) {
        // A session that is taken up again goes on all the same, so this is not refused here.
        spdlog::warn(
            "image {} is in use by {}: a new session {}; if it does not get it, nbdkit "
            "ends, and says so in its log only when it is in the background",
            options.image, image->holder->machine_name,
            options.lease == LeaseKeeper::LeaseAsk::kPlain
                ? "waits for it to end there (lease=hand-off asks for it)"
                : "asks for it");
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

}  // namespace

Status preflight(const DiskOptions& options, const Connect& connect) {
  format::KeyFile key;
  if (options.keys) {
    key = *options.keys;
  } else {
    DIMS_ASSIGN(key, format::load_key_file(options.key_path));
  }
  auto& fs = io::posix_file_system();
  std::optional<FolderIdentity> known;
  if (!options.diskless()) {
    if (options.cache_folder.size() > kMaxFolderPathBytes) {
      return make_error(ErrorCode::kInvalidArgument,
                        "the path of the cache folder is too long: " + options.cache_folder,
                        "at most " + std::to_string(kMaxFolderPathBytes) +
                            " bytes, for the sake of the control socket in it");
    }
    DIMS_ASSIGN(known, read_identity(fs, options.cache_folder));
    if (known && !(known->key_check == key.key_check(known->image))) {
      return make_error(ErrorCode::kWrongKey,
                        "the key file " + options.key_path + " does not belong to cache folder " +
                            options.cache_folder,
                        "use the key file that the image was imported with");
    }
    DIMS_ASSIGN(const bool there, fs.exists(options.cache_folder));
    if (there && !known) DIMS_TRY(check_unused(fs, options.cache_folder));
    if (there) {
      // Taken and given back: somebody else's lock is worth an error on the terminal, and so is a
      // folder that cannot be written to.
      DIMS_ASSIGN(const auto lock, FolderLock::take(options.cache_folder));
    } else if (!there) {
      const std::string parent = io::parent_folder(options.cache_folder);
      DIMS_ASSIGN(const bool parent_there, fs.exists(parent));
      if (!parent_there) {
        return make_error(ErrorCode::kNotFound,
                          "the folder above " + options.cache_folder + " does not exist",
                          "make it first");
      }
      if (::access(parent.c_str(), W_OK | X_OK) != 0)
        return io::errno_error(errno, "cannot make a folder in", parent);
    }
  }
  const auto asked = io::run_in_child([&]() -> Result<Bytes> {
    DIMS_TRY(ask_server(options, key, known, connect));
    return Bytes{};
  });
  return asked.ok() ? ok_status() : Status(asked.error());
}

}  // namespace dims::ldim
