// Checks a whole cache folder that nobody serves: its own files, state, journal, scratch journal,
// cache, and whether they belong together. Reads only (but for the lock file).
//
// Threads: free function. Errors: kConflict while an LDIM serves the folder; kNotFound if it is no
// cache folder; kWrongKey for another key file. What is wrong inside is a finding.
#pragma once

#include <string>
#include <nlohmann/json_fwd.hpp>

#include "common/base/result.h"
#include "common/format/key_file.h"
#include "common/io/file.h"
#include "nbdkit-ldim/disk/cache_folder.h"

namespace dims::ldim {

struct FolderCheck {
  // {"ok", "findings": [{"part", "code", "severity", "where", "offset", "text", "todo"}],
  //  "journal": {...}, "cache": {...}}; docs/formats/control.md
  std::string report;  // JSON
  bool clean = false;  // nothing worse than a note
};

// A folder that nobody serves, with its owner's key.
struct ClosedFolder {
  FolderIdentity identity;
  format::KeyFile key;
  std::unique_ptr<FolderLock> lock;
};
Result<ClosedFolder> open_closed_folder(io::FileSystem& fs, const std::string& folder,
                                        const std::string& key_path, bool lock);

// lock: take the folder's lock (false only for file systems that are no real ones).
Result<FolderCheck> check_folder(io::FileSystem& fs, const std::string& folder,
                                 const std::string& key_path, bool lock);

}  // namespace dims::ldim
