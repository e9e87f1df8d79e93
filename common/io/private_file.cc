#include "common/io/private_file.h"

#include <sys/stat.h>

#include <cstdlib>

namespace dims::io {
namespace {

bool is_credential(const std::string& path) {
  const char* const folder = std::getenv("CREDENTIALS_DIRECTORY");
  return folder != nullptr && *folder != 0 && path.starts_with(std::string(folder) + "/");
}

}  // namespace

Status check_private(const std::string& path, const std::string& what) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) return ok_status();
  if ((facts.st_mode & (is_credential(path) ? 007 : 077)) == 0) return ok_status();
  return make_error(ErrorCode::kPermissionDenied, what + " " + path + " can be read by others",
                    "run 'chmod 600 " + path + "'; if others had access, make a new one");
}

}  // namespace dims::io
