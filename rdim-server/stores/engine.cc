#include "rdim-server/stores/engine.h"

#include <sys/statvfs.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "rdim-server/stores/fast_crc32c.h"
#include "rdim-server/stores/rocks_status.h"

namespace dims::stores {
namespace {

constexpr std::chrono::seconds kResumePause{1};

Error open_error(const rocksdb::Status& status, const std::string& folder) {
  const std::string text = status.ToString();
  if (status.IsIOError() && text.find("lock") != std::string::npos &&
      text.find("LOCK") != std::string::npos) {
    return make_error(ErrorCode::kUnavailable,
                      "the store " + folder + " is open in another process",
                      "stop the other rdim-server first, or give another --data folder");
  }
  if (status.IsInvalidArgument()) {
    // A family we do not know, or options that do not fit: made by another program.
    return make_error(ErrorCode::kUnsupported,
                      "the database in " + folder + " is of another make: " + text,
                      "use the version of rdim-server that wrote it");
  }
  return from_rocks(status, "cannot open the database in " + folder);
}

// Names that an earlier start has made, whose sync had failed: the engine takes them for durable.
// What is no folder it tells itself.
Status sync_names(rocksdb::Env& env, const std::string& folder) {
  std::unique_ptr<rocksdb::Directory> names;
  if (!env.NewDirectory(folder, &names).ok()) return ok_status();
  return check_rocks(names->Fsync(), "cannot sync the folder " + folder);
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const StoreOptions& options, bool create) {
  std::unique_ptr<Engine> engine(new Engine());
  engine->folder_ = options.folder;
  spdlog::debug("checksums of the database by {}", fast_crc32c() ? "instruction" : "tables");
  rocksdb::DBOptions db_options = database_options(options);
  db_options.create_if_missing = create;
  db_options.create_missing_column_families = create;
  if (!create) DIMS_TRY(sync_names(*db_options.env, options.folder + "/db"));
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(
      db_options, options.folder + "/db", family_descriptors(options), &engine->families_, &db);
  if (!status.ok()) return open_error(status, options.folder);
  engine->db_.reset(db);
  engine->on_disk_failure_ = options.on_disk_failure;
  const std::string folder = options.folder;
  engine->free_bytes_ = options.free_bytes;
  if (!engine->free_bytes_) {
    engine->free_bytes_ = [folder] {
      struct statvfs now {};
      // If the kernel does not tell, the write itself will.
      if (statvfs(folder.c_str(), &now) != 0) return ~std::uint64_t{0};
      return std::uint64_t{now.f_bavail} * now.f_frsize;
    };
  }
  struct statvfs fs {};
  engine->free_bytes_min_ = options.free_bytes_min;
  if (statvfs(folder.c_str(), &fs) == 0) {
    const std::uint64_t all = std::uint64_t{fs.f_blocks} * fs.f_frsize;
    engine->free_bytes_min_ = std::min(options.free_bytes_min, all / 8);
  }
  return engine;
}

Engine::~Engine() {
  if (!db_) return;
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    (void)db_->DestroyColumnFamilyHandle(family);
  }
  const rocksdb::Status status = db_->Close();
  if (!status.ok()) spdlog::error("closing {}: {}", folder_, status.ToString());
}

bool Engine::resume(const rocksdb::Status& why) {
  if (!is_no_space(why) && why.severity() == rocksdb::Status::kNoError && !why.IsIOError()) {
    return false;
  }
  if (on_disk_failure_) on_disk_failure_(why.ToString());
  std::lock_guard lock(resume_mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (resumed_.time_since_epoch().count() != 0 && now - resumed_ < kResumePause) return false;
  resumed_ = now;
  const rocksdb::Status status = db_->Resume();
  spdlog::warn("{}: writing stopped ({}); going on: {}", folder_, why.ToString(),
               status.ToString());
  return status.ok();
}

Status Engine::write(rocksdb::WriteBatch& batch, Durability durability, const std::string& what) {
  rocksdb::WriteOptions options;
  options.sync = durability == Durability::kSynced;
  options.disableWAL = durability == Durability::kBypassed;
  Writes* const count = durability == Durability::kBypassed ? &bypassed_
                        : durability == Durability::kLogged ? &logged_
                                                            : nullptr;
  if (count != nullptr) ++count->begun;
  rocksdb::Status status = db_->Write(options, &batch);
  if (!status.ok() && resume(status)) status = db_->Write(options, &batch);
  if (count != nullptr) ++count->ended;
  return check_rocks(status, what);
}

Status Engine::make_durable() {
  const std::uint64_t bypassed = bypassed_.begun, logged = logged_.begun;
  std::lock_guard lock(durable_mutex_);  // whoever waits here finds his work done by the one before
  const std::uint64_t bypassed_ended = bypassed_.ended, logged_ended = logged_.ended;
  if (bypassed > bypassed_durable_) {
    DIMS_TRY(flush_all());
    bypassed_durable_ = bypassed_ended;
    logged_durable_ = std::max(logged_durable_, logged_ended);
  } else if (logged > logged_durable_) {
    rocksdb::Status status = db_->SyncWAL();
    if (!status.ok() && resume(status)) status = db_->SyncWAL();
    DIMS_TRY(check_rocks(status, "cannot sync the log in " + folder_));
    logged_durable_ = logged_ended;
  }
  return ok_status();
}

void Engine::start_flush() {
  const std::uint64_t bypassed = bypassed_.begun;
  {
    // Held for as long as somebody flushes already: then there is nothing to begin.
    const std::unique_lock lock(durable_mutex_, std::try_to_lock);
    if (!lock || bypassed <= bypassed_durable_) return;
  }
  rocksdb::FlushOptions options;
  options.wait = false;
  options.allow_write_stall = true;
  // Only a hint: whatever stands in the way, make_durable() meets it too and reports it.
  (void)db_->Flush(options, families_);
}

Status Engine::flush_all() {
  rocksdb::FlushOptions options;
  options.wait = true;
  options.allow_write_stall = true;
  rocksdb::Status status = db_->Flush(options, families_);
  if (!status.ok() && resume(status)) status = db_->Flush(options, families_);
  return check_rocks(status, "cannot flush the database in " + folder_);
}

Status Engine::check_space() {
  const std::uint64_t free = free_bytes_();
  if (free >= free_bytes_min_) return ok_status();
  return make_error(ErrorCode::kNoSpace,
                    "the server's disk is full: " + std::to_string(free / kMiB) + " MiB free at " +
                        folder_ + ", " + std::to_string(free_bytes_min_ / kMiB) + " MiB are kept",
                    "free space on the server's disk; it goes on by itself");
}

std::uint64_t Engine::room() {
  const std::uint64_t free = free_bytes_();
  return free > free_bytes_min_ ? free - free_bytes_min_ : 0;
}

}  // namespace dims::stores
