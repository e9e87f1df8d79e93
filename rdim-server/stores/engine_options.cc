#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/sst_file_manager.h>
#include <rocksdb/table.h>
#include <rocksdb/write_buffer_manager.h>
#include <spdlog/spdlog.h>

#include "rdim-server/stores/engine.h"
#include "rdim-server/stores/rocks_status.h"

namespace dims::stores {
namespace {

// Tells of what failed in the background. Compactions can wait: nothing depends on them, they write
// only new files, and they fail for what they read. Left alone such an error, of one damaged blob,
// would refuse every write from then on.
class DiskFailure : public rocksdb::EventListener {
 public:
  explicit DiskFailure(std::function<void(const std::string&)> tell) : tell_(std::move(tell)) {}
  const char* Name() const override { return "dims-disk-failure"; }
  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    const std::string what = error->ToString();
    if (reason != rocksdb::BackgroundErrorReason::kCompaction) {
      if (tell_) tell_(what);
      return;
    }
    if (is_no_space(*error)) return;  // the engine waits for space, and goes on by itself
    *error = rocksdb::Status::OK();
    std::lock_guard lock(mutex_);
    if (what == last_) return;  // it tries again each second
    last_ = what;
    spdlog::error("the store cannot be compacted, and grows meanwhile: {}; see 'rdim check'", what);
  }

 private:
  const std::function<void(const std::string&)> tell_;
  std::mutex mutex_;
  std::string last_;
};

constexpr std::uint64_t kSmallBufferBytes = 4 * kMiB;
constexpr std::uint64_t kBlobFileBytes = 256 * kMiB;
constexpr std::uint64_t kSyncStepBytes =
    kMiB;  // dirty pages go to the disk evenly, not in one storm
constexpr int kFilterBits = 10;

std::shared_ptr<rocksdb::TableFactory> table_factory(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;  // else they grow with the store, outside the limit
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kFilterBits));
  table.whole_key_filtering = true;
  return std::shared_ptr<rocksdb::TableFactory>(rocksdb::NewBlockBasedTableFactory(table));
}

}  // namespace

rocksdb::DBOptions database_options(const StoreOptions& options) {
  rocksdb::DBOptions db;
  if (options.env != nullptr) db.env = options.env;
  // A torn record at the end is a power cut; a bad one before others is damage and refuses to open.
  // The default mode would drop everything after it in silence.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.manual_wal_flush = false;
  db.recycle_log_file_num = 0;
  // One batch may skip the log and writes two families: both reach the disk together or not at all.
  db.atomic_flush = true;
  db.paranoid_checks = true;
  db.max_background_jobs = 2;
  db.max_open_files = options.open_files_max;
  db.max_file_opening_threads = options.open_threads_max;
  db.max_total_wal_size = 64 * kMiB;
  db.bytes_per_sync = kSyncStepBytes;
  db.wal_bytes_per_sync = kSyncStepBytes;
  db.max_log_file_size = 4 * kMiB;
  db.keep_log_file_num = 3;
  db.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  db.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(
      options.write_buffer_bytes * options.write_buffers_max);
  db.listeners.push_back(std::make_shared<DiskFailure>(options.on_disk_failure));
  // Watches the free space and lets the engine go on after a full disk.
  db.sst_file_manager.reset(rocksdb::NewSstFileManager(db.env));
  return db;
}

std::vector<rocksdb::ColumnFamilyDescriptor> family_descriptors(const StoreOptions& options) {
  const auto cache = rocksdb::NewLRUCache(static_cast<std::size_t>(options.block_cache_bytes));
  rocksdb::ColumnFamilyOptions small;
  small.compression = rocksdb::kNoCompression;  // keys are hashes, values a few bytes
  small.write_buffer_size = static_cast<std::size_t>(kSmallBufferBytes);
  small.max_write_buffer_number = 3;
  small.table_factory = table_factory(cache);

  rocksdb::ColumnFamilyOptions objects = small;
  objects.write_buffer_size = static_cast<std::size_t>(options.write_buffer_bytes);
  objects.max_write_buffer_number = static_cast<int>(options.write_buffers_max);
  // Objects are sealed: compression would only cost. Blob files keep them out of every compaction.
  objects.enable_blob_files = true;
  objects.min_blob_size = 0;
  objects.blob_file_size = kBlobFileBytes;
  objects.blob_compression_type = rocksdb::kNoCompression;
  // It would rewrite the oldest quarter of all blobs during every compaction, garbage or not: an
  // import wrote twice. Objects die only in sweeps; a sweep switches it on for its time.
  objects.enable_blob_garbage_collection = false;
  // No blob cache: the kernel's page cache holds the same bytes and gives them back under pressure.
  objects.blob_cache = nullptr;

  rocksdb::ColumnFamilyOptions meta = small;
  // Most questions are about objects that are not there: the filter spares the walk through the
  // skip list.
  meta.memtable_whole_key_filtering = true;
  meta.memtable_prefix_bloom_size_ratio = 0.05;

  return {{rocksdb::kDefaultColumnFamilyName, small},
          {"objects", objects},
          {"meta", meta},
          {"refs", small}};
}

}  // namespace dims::stores
