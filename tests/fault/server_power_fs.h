// A disk below RocksDB that loses what was not synced: real files in a real folder, and a ledger of
// what a power cut would take. Also fails a call on demand; a sync that failed has thrown away what
// it should have kept, and the next one lies.
//
// A cut may keep any prefix of a file's unsynced bytes (torn at any byte), and any prefix of the
// creations and renames whose folder was not synced: file systems with a journal keep their order,
// and the engine needs it. Removals stay.
//
// Threads: thread-safe. Ownership: outlives the database. After cut() every call fails, so that
// nothing is written on the way down; apply() then makes the folder what the cut left.
#pragma once

#include <rocksdb/file_system.h>

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "common/base/clock.h"

namespace dims::test {

enum class FileFault { kNone, kIo, kNoSpace, kShortWrite, kSync, kRead };
// What a call does, for the faults that concern it: kIo and kNoSpace all but reads, the others
// their own.
enum class FileCall { kChange, kAppend, kSync, kRead };

class PowerFileSystem : public rocksdb::FileSystemWrapper {
 public:
  PowerFileSystem() : rocksdb::FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "dims-power"; }

  // The power goes when so many writing calls have been made.
  void cut_after(std::uint64_t calls);
  void cut();
  // The same for a process that is about to end: who calls does not come back to see it.
  void freeze();
  bool is_cut();
  // The call with this number fails, once; from 1, counting from now those that the fault concerns.
  void fail_at(std::uint64_t call, FileFault fault);
  bool failed_once();
  std::uint64_t calls();
  // After the database is closed, or frozen. Ready for the next life.
  void apply(SeededRandom& random);

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* result,
                                       rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* result,
                                 rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewSequentialFile(const std::string& path, const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                      rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                                        rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus GetChildren(const std::string& path, const rocksdb::IOOptions& options,
                                std::vector<std::string>* result,
                                rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus GetFileSize(const std::string& path, const rocksdb::IOOptions& options,
                                std::uint64_t* size, rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus Truncate(const std::string& path, std::size_t size,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override;

  // For the files: what one call may do.
  struct Verdict {
    rocksdb::IOStatus status;
    bool short_write = false;
  };
  Verdict admit(FileCall call, const std::string& path);
  rocksdb::IOStatus admit_read(const std::string& path);
  void grown(const std::string& path, std::uint64_t size);
  void synced(const std::string& path);
  void sync_failed(const std::string& path);
  void folder_synced(const std::string& folder);

 private:
  struct Ledger {
    std::uint64_t size = 0;
    std::uint64_t synced = 0;
    std::uint64_t lost_from = 0, lost_to = 0;  // thrown away by a sync that failed
  };
  struct Entry {
    std::string path;
    std::string from;  // of a rename; empty: a creation
    std::optional<std::string> replaced;
  };

  std::mutex mutex_;
  std::map<std::string, Ledger> files_;
  std::vector<Entry> entries_;  // since their folder's last sync
  std::uint64_t calls_ = 0;
  std::uint64_t cut_at_ = ~std::uint64_t{0};
  bool cut_ = false;
  bool frozen_ = false;
  std::uint64_t to_fault_ = 0;  // so many calls that it concerns
  FileFault fault_ = FileFault::kNone;
  bool failed_ = false;
};

}  // namespace dims::test
