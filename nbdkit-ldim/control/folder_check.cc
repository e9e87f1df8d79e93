#include "nbdkit-ldim/control/folder_check.h"

#include <nlohmann/json.hpp>

#include "common/base/clock.h"
#include "nbdkit-ldim/cache/check.h"
#include "nbdkit-ldim/disk/cache_folder.h"
#include "nbdkit-ldim/journal/check.h"
#include "nbdkit-ldim/writeback/state_file.h"

namespace dims::ldim {

using nlohmann::json;

namespace {

class FolderChecker {
 public:
  FolderChecker(io::FileSystem& fs, const std::string& folder) : fs_(fs), folder_(folder) {}

  Status check(const FolderIdentity& identity, const format::KeyFile& key) {
    identity_ = identity;
    for (const char* name : {"machine-secret", "keys"}) {
      const std::string path = folder_ + "/" + name;
      DIMS_ASSIGN(const bool there, fs_.exists(path));
      if (there) continue;
      add("folder", "keys-missing", Severity::kDamage, path, 0, "is not there",
          "restore it from a copy; without it nothing in this folder can be read");
      return ok_status();
    }
    auto keys = open_folder_keys(fs_, folder_, identity, key, system_random());
    if (!keys.ok()) {
      if (keys.error().code != ErrorCode::kCorrupt) return keys.error();
      add("folder", "keys-damaged", Severity::kDamage, folder_ + "/keys", 0, keys.error().message,
          keys.error().hint.empty() ? "restore it from a copy" : keys.error().hint);
      return ok_status();
    }
    keys_ = *keys;
    const auto state = load_state("state");
    (void)load_state("state-shared");
    (void)load_state("state-readonly");
    DIMS_ASSIGN(const JournalCheck journal, check_journal_in("journal"));
    DIMS_TRY(check_journal_in("scratch"));
    if (state && state->committed.journal == journal.journal && journal.opens)
      compare(*state, journal);
    return check_pages();
  }

  FolderCheck take() {
    out_["ok"] = clean_;
    out_["folder"] = folder_;
    if (!out_.contains("findings")) out_["findings"] = json::array();
    return {out_.dump(), clean_};
  }

 private:
  void add(const std::string& part, std::string_view code, Severity severity,
           const std::string& where, std::uint64_t offset, const std::string& text,
           const std::string& todo) {
    clean_ = clean_ && severity == Severity::kNote;
    out_["findings"].push_back({{"part", part},
                                {"code", code},
                                {"severity", severity_name(severity)},
                                {"where", where},
                                {"offset", offset},
                                {"text", text},
                                {"todo", todo}});
  }

  std::optional<LdimState> load_state(const std::string& name) {
    StateFile file(fs_, folder_ + "/" + name, keys_.state, identity_.machine, system_random());
    auto state = file.load();
    if (state.ok()) return *state;
    add("folder", "state-damaged", Severity::kDamage, folder_ + "/" + name, 0,
        state.error().message, state.error().hint);
    return std::nullopt;
  }

  Result<JournalCheck> check_journal_in(const std::string& name) {
    JournalOptions options;
    options.folder = folder_ + "/" + name;
    options.machine = identity_.machine;
    options.image = identity_.image;
    options.key = keys_.journal;
    DIMS_ASSIGN(JournalCheck found, check_journal(fs_, options));
    for (const JournalFinding& one : found.findings)
      add(name, journal_damage_name(one.code), one.severity, one.where, one.offset, one.text,
          one.todo);
    out_[name] = {{"files", found.files},
                  {"bytes", found.bytes},
                  {"records", found.records},
                  {"trimmed_epoch", found.trimmed_epoch},
                  {"merged_epoch", found.merged_epoch},
                  {"last_epoch", found.last_epoch},
                  {"opens", found.opens}};
    return found;
  }

  void compare(const LdimState& state, const JournalCheck& journal) {
    const std::string path = folder_ + "/state";
    const std::string committed = std::to_string(state.committed.epoch);
    if (state.committed.epoch < journal.trimmed_epoch) {
      add("folder", "state-older", Severity::kDamage, path, 0,
          "is older than the journal: it knows of epoch " + committed +
              ", the journal begins after " + std::to_string(journal.trimmed_epoch),
          "put the newest state file back; see ldim(1)");
    } else if (state.committed.epoch > journal.last_epoch) {
      add("folder", "journal-older", Severity::kDamage, folder_ + "/journal", 0,
          "is older than the state file: it ends with epoch " + std::to_string(journal.last_epoch) +
              ", the base holds epoch " + committed,
          "nothing is lost that was committed: start with a new cache folder");
    }
  }

  Status check_pages() {
    PageCacheOptions options;
    options.folder = folder_ + "/cache";
    options.machine = identity_.machine;
    options.image = identity_.image;
    options.key = keys_.pages;
    DIMS_ASSIGN(const CacheCheck found, check_cache(fs_, options));
    for (const CacheFinding& one : found.findings)
      add("cache", cache_damage_name(one.code), one.severity, one.where, one.offset, one.text,
          one.todo);
    out_["cache"] = {{"segments", found.segments},
                     {"bytes", found.bytes},
                     {"objects", found.objects},
                     {"pages", found.pages}};
    return ok_status();
  }

  io::FileSystem& fs_;
  const std::string folder_;
  FolderIdentity identity_;
  FolderKeys keys_;
  json out_;
  bool clean_ = true;
};

}  // namespace

Result<ClosedFolder> open_closed_folder(io::FileSystem& fs, const std::string& folder,
                                        const std::string& key_path, bool lock) {
  DIMS_ASSIGN(format::KeyFile key, format::load_key_file(key_path));
  DIMS_ASSIGN(const auto identity, read_identity(fs, folder));
  if (!identity) {
    return make_error(ErrorCode::kNotFound, folder + " is no cache folder of LDIM",
                      "give the folder that nbdkit got as cache=");
  }
  if (!(identity->key_check == key.key_check(identity->image))) {
    return make_error(ErrorCode::kWrongKey,
                      "the key file " + key_path + " does not belong to cache folder " + folder,
                      "use the key file that the image was imported with");
  }
  std::unique_ptr<FolderLock> held;
  if (lock) {
    auto taken = FolderLock::take(folder);
    if (!taken.ok()) {
      Error error = taken.error();
      if (error.code == ErrorCode::kConflict) {
        error.message = "an LDIM serves " + folder + ": this can be done when it is not in use";
        error.hint =
            "stop that nbdkit first; 'ldim check' without --key checks the cache of a "
            "running one";
      }
      return error;
    }
    held = std::move(taken).value();
  }
  return ClosedFolder{*identity, std::move(key), std::move(held)};
}

Result<FolderCheck> check_folder(io::FileSystem& fs, const std::string& folder,
                                 const std::string& key_path, bool lock) {
  DIMS_ASSIGN(const ClosedFolder closed, open_closed_folder(fs, folder, key_path, lock));
  FolderChecker checker(fs, folder);
  DIMS_TRY(checker.check(closed.identity, closed.key));
  return checker.take();
}

}  // namespace dims::ldim
