// Engine: the RocksDB below both stores: opening, writing, making durable, going on after a full
// disk.
//
//   objects  (domain, id) -> sealed bytes, in blob files      meta  (domain, id) -> MetaRow
//   refs     key -> revision, value                           default  counters of a clean end
//
// Order kept: written >= durable; write() has reached the engine's memory (and its log unless
// `bypass`), make_durable() has reached the disk with all that write() returned for before it.
//
// Threads: thread-safe. Ownership: owns the database; closes it in the destructor. Errors: kNoSpace
// when the disk is full (later calls try to go on), kIo, kCorrupt.
#pragma once

#include <rocksdb/db.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "rdim-server/stores/store.h"

namespace dims::stores {

enum class Durability {
  kLogged,    // in the log, not synced
  kBypassed,  // not in the log either: durable only by make_durable()
  kSynced,    // durable on return
};

class Engine {
 public:
  // Precondition: the folder holds a store's FORMAT.
  static Result<std::unique_ptr<Engine>> open(const StoreOptions& options, bool create);
  ~Engine();

  rocksdb::DB& db() { return *db_; }
  rocksdb::ColumnFamilyHandle* internal() { return families_[0]; }
  rocksdb::ColumnFamilyHandle* objects() { return families_[1]; }
  rocksdb::ColumnFamilyHandle* meta() { return families_[2]; }
  rocksdb::ColumnFamilyHandle* refs() { return families_[3]; }
  const std::string& folder() const { return folder_; }

  Status write(rocksdb::WriteBatch& batch, Durability durability, const std::string& what);
  Status make_durable();
  // Something that is in no log is not known to be on the disk: what goes to the log now may
  // outlive it.
  bool holds_bypassed() const { return bypassed_.begun > bypassed_durable_; }
  // Begins, without waiting, what make_durable() would have to flush.
  void start_flush();
  // kNoSpace while less than the reserve is free.
  Status check_space();
  // Bytes that are free above the reserve.
  std::uint64_t room();
  // Everything in memory goes to disk; for a clean end.
  Status flush_all();

 private:
  Engine() = default;
  // After an error of the disk: tells of it, or asks the engine to go on, at most once a second.
  bool resume(const rocksdb::Status& why);

  std::string folder_;
  std::uint64_t free_bytes_min_ = 0;
  std::function<std::uint64_t()> free_bytes_;
  std::function<void(const std::string& why)> on_disk_failure_;
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;

  // Readers see a write before it returns: a barrier waits for what had begun, and counts as
  // durable only what had ended.
  struct Writes {
    std::atomic<std::uint64_t> begun{0}, ended{0};
  };
  Writes logged_, bypassed_;  // bypassed: in no log
  std::mutex durable_mutex_;
  std::uint64_t logged_durable_ = 0;
  std::atomic<std::uint64_t> bypassed_durable_{0};  // changed under durable_mutex_

  std::mutex resume_mutex_;
  std::chrono::steady_clock::time_point resumed_{};
};

// engine_options.cc: what we ask of RocksDB, and why.
rocksdb::DBOptions database_options(const StoreOptions& options);
std::vector<rocksdb::ColumnFamilyDescriptor> family_descriptors(const StoreOptions& options);

}  // namespace dims::stores
