// Makes a cache folder whose journal is damaged usable again: what can be proven of the journal
// (journal/salvage.h) takes its place, and the next start stores it as a conflict branch before
// anything else. The damaged journal is kept beside it. Can be repeated when it was interrupted.
//
// Threads: free function. Errors: as check_folder's and salvage_journal's. Durable on return:
// everything.
#pragma once

#include "nbdkit-ldim/control/folder_check.h"

namespace dims::ldim {

// JSON: {"damage", "kept", "last_epoch", "epochs", "writes", "bytes", "lost_writes"}
Result<std::string> salvage_folder(io::FileSystem& fs, const std::string& folder,
                                   const std::string& key_path, bool lock);

}  // namespace dims::ldim
