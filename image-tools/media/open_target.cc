#include <sys/stat.h>
#include <unistd.h>

#include "image-tools/media/source.h"
#include "image-tools/media/target.h"

namespace dims::media {

Result<std::unique_ptr<Target>> open_target(const std::string& what, const TargetOptions& options) {
  TargetOptions chosen = options;
  const bool nbd = is_nbd_uri(what);
  if (chosen.format.empty() && !nbd && what != "-") chosen.format = format_of_suffix(what);
  const bool raw = chosen.format.empty() || chosen.format == "raw";
  if (!raw && (nbd || what == "-")) {
    return make_error(ErrorCode::kInvalidArgument, "only raw can be written to " + what,
                      "export to a file, or leave --format away");
  }
  if (nbd) return open_nbd_target(what, chosen);
  if (what == "-") {
    if (::isatty(STDOUT_FILENO) != 0) {
      return make_error(ErrorCode::kInvalidArgument, "a disk is not written to a terminal",
                        "redirect the output");
    }
    return open_stream_target(STDOUT_FILENO);
  }
  struct stat st {};
  const bool there = ::stat(what.c_str(), &st) == 0;
  if (there && S_ISBLK(st.st_mode)) {
    if (!raw)
      return make_error(ErrorCode::kInvalidArgument, "a block device takes raw only",
                        "leave --format away");
    return open_device_target(what, chosen);
  }
  if (there && S_ISDIR(st.st_mode)) {
    return make_error(ErrorCode::kInvalidArgument, what + " is a folder", "name a file in it");
  }
  return raw ? open_file_target(what, chosen) : open_qemu_target(what, chosen);
}

}  // namespace dims::media
