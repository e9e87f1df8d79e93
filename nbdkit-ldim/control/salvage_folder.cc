#include "nbdkit-ldim/control/salvage_folder.h"

#include <nlohmann/json.hpp>

#include "common/base/clock.h"
#include "nbdkit-ldim/journal/salvage.h"
#include "nbdkit-ldim/writeback/state_file.h"

namespace dims::ldim {
namespace {

// journal.damaged-1, -2, ...: one that is free.
Result<std::string> free_name(io::FileSystem& fs, const std::string& path) {
  for (int number = 1;; ++number) {
    std::string name = path + ".damaged-" + std::to_string(number);
    DIMS_ASSIGN(const bool there, fs.exists(name));
    if (!there) return name;
  }
}

}  // namespace

Result<std::string> salvage_folder(io::FileSystem& fs, const std::string& folder,
                                   const std::string& key_path, bool lock) {
  DIMS_ASSIGN(const ClosedFolder closed, open_closed_folder(fs, folder, key_path, lock));
  DIMS_ASSIGN(const FolderKeys keys,
              open_folder_keys(fs, folder, closed.identity, closed.key, system_random()));
  StateFile state(fs, folder + "/state", keys.state, closed.identity.machine, system_random());
  DIMS_ASSIGN(const auto known, state.load());
  if (!known) {
    return make_error(ErrorCode::kNotFound, folder + " was never used for a disk with writes",
                      "there is nothing to salvage");
  }
  JournalOptions damaged;
  damaged.folder = folder + "/journal";
  damaged.machine = closed.identity.machine;
  damaged.image = closed.identity.image;
  damaged.session = known->session;
  damaged.key = keys.journal;
  JournalOptions target = damaged;
  target.folder = folder + "/" + kSalvageFolder;
  // Interrupted between the two renames: the damaged one is away already.
  DIMS_ASSIGN(const bool begun, fs.exists(damaged.folder));
  DIMS_ASSIGN(const bool made, holds_files(fs, target.folder));
  nlohmann::json out;
  std::string kept;
  if (begun || !made) {
    DIMS_TRY(empty_folder(fs, target.folder));
    const auto salvaged = salvage_journal(fs, damaged, target, known->committed.epoch,
                                          system_clock(), system_random());
    // What is refused leaves the folder empty, and an empty one is none (Disk::open_journal).
    if (!salvaged.ok() && salvaged.error().code == ErrorCode::kInvalidArgument) {
      DIMS_ASSIGN(const bool noted, fs.exists(folder + "/" + kSalvageNote));
      if (noted)
        return make_error(ErrorCode::kInvalidArgument,
                          "the journal in " + damaged.folder +
                              " is whole: what could be salvaged is in it already",
                          "start LDIM on this folder as always, with the server reachable");
    }
    if (!salvaged.ok()) return salvaged.error();
    const SalvageReport& report = *salvaged;
    out = {{"damage", report.damage}, {"last_epoch", report.last_epoch},
           {"epochs", report.epochs}, {"writes", report.writes},
           {"bytes", report.bytes},   {"lost_writes", report.lost_writes}};
    DIMS_TRY(fs.sync_folder(folder));
    // From here on no start goes on as if nothing had happened (Disk::open).
    DIMS_TRY(io::replace_file(fs, folder + "/" + kSalvageNote, as_bytes("salvaged\n")));
    DIMS_ASSIGN(kept, free_name(fs, damaged.folder));
    DIMS_TRY(fs.rename(damaged.folder, kept));
    DIMS_TRY(fs.sync_folder(folder));
  }
  DIMS_TRY(fs.rename(target.folder, damaged.folder));
  DIMS_TRY(fs.sync_folder(folder));
  out["kept"] = kept;
  return out.dump();
}

}  // namespace dims::ldim
