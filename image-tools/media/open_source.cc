#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/io/errno_map.h"
#include "image-tools/media/process.h"
#include "image-tools/media/source.h"

namespace dims::media {
namespace {

// What qemu-img takes the file for.
Result<std::string> probe(const std::string& path) {
  DIMS_ASSIGN(const Output info,
              run({"qemu-img", "info", "--force-share", "--output=json", "--", qemu_path(path)}));
  if (info.exit_code != 0) {
    std::string words = info.err;
    while (!words.empty() && words.back() == '\n') words.pop_back();
    return make_error(ErrorCode::kIo, "cannot find out the format of " + path + ": " + words,
                      "name it with --format");
  }
  const auto json = nlohmann::json::parse(info.out, nullptr, false);
  if (!json.is_object() || !json.contains("format") || !json["format"].is_string()) {
    return make_error(ErrorCode::kIo, "qemu-img gives no format for " + path,
                      "name it with --format");
  }
  return json["format"].get<std::string>();
}

}  // namespace

bool is_nbd_uri(const std::string& what) {
  for (const char* scheme :
       {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://", "nbds+vsock://"}) {
    if (what.starts_with(scheme)) return true;
  }
  return false;
}

std::string format_of_suffix(const std::string& path) {
  static constexpr std::array<std::pair<const char*, const char*>, 6> kSuffixes = {
      {{".qcow2", "qcow2"},
       {".vhdx", "vhdx"},
       {".vmdk", "vmdk"},
       {".vdi", "vdi"},
       {".vhd", "vpc"},
       {".qed", "qed"}}};
  for (const auto& [suffix, format] : kSuffixes) {
    if (path.ends_with(suffix)) return format;
  }
  return {};
}

Result<std::unique_ptr<Source>> open_source(const std::string& what, const SourceOptions& options) {
  if (is_nbd_uri(what)) {
    if (!options.format.empty() && options.format != "raw") {
      return make_error(ErrorCode::kInvalidArgument, "an NBD export has no format",
                        "leave --format away");
    }
    return open_nbd_source(what, options.connections);
  }
  struct stat st {};
  if (::stat(what.c_str(), &st) != 0) return io::errno_error(errno, "cannot open", what);
  std::string format = options.format;
  if (format.empty() && S_ISREG(st.st_mode) && st.st_size > 0) {
    DIMS_ASSIGN(format, probe(what));
  }
  if (format.empty() || format == "raw") return open_raw_source(what);
  return open_qemu_source(what, format, options.connections);
}

}  // namespace dims::media
