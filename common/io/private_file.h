// Files that hold secrets: nobody but their owner may read them.
//
// Threads: free functions. Errors: kPermissionDenied saying what to do; nothing is said of a file
// that is not there, of a pipe, or of a descriptor's name (that is for who opens it).
#pragma once

#include <string>

#include "common/base/result.h"

namespace dims::io {

// `what`: "key file", for the message. A service's credential ($CREDENTIALS_DIRECTORY) may be
// readable by its group: systemd gives access by a list that shows as the group's bits.
Status check_private(const std::string& path, const std::string& what);

}  // namespace dims::io
