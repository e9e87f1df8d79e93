// Store: one folder of RDIM on disk: an ObjectStore and a RefStore over one RocksDB
// (docs/formats/store.md). This is the only header of this folder that the floors above need.
//
// Threads: open() and the destructor by one thread; objects() and refs() are thread-safe.
// Ownership: the clock and the random generator outlive the store, the store outlives whoever uses
// its parts. Units: bytes. Errors of open(): kUnsupported (a folder of another format; nothing was
// written), kUnavailable (another process has it open), kCorrupt, kPermissionDenied, kNoSpace, kIo.
// Durable on return of open(): the store and its generation id. The destructor flushes.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/units.h"
#include "common/contract/object_store.h"
#include "common/contract/ref_store.h"
#include "rdim-server/stores/store_format.h"

namespace rocksdb {
class Env;
}

namespace dims::stores {

struct StoreOptions {
  std::string folder;
  // Memory, all explicit so that their sum is known (docs/formats/store.md).
  std::uint64_t write_buffer_bytes = 16 * kMiB;  // one of the objects' buffers
  std::uint64_t write_buffers_max = 3;
  std::uint64_t block_cache_bytes = 64 * kMiB;  // indexes and filters of the tables too
  int open_files_max = 512;
  int open_threads_max = 16;  // that look at tables while the store opens
  // Once this much is put and not yet made durable, further puts go past the log and the next
  // barrier flushes instead of syncing: bulk data is written once, a small commit costs one sync.
  std::uint64_t log_bytes_max = 8 * kMiB;
  // put() refuses with kNoSpace when less is free, so that the engine itself never runs dry. At
  // most an eighth of the file system.
  std::uint64_t free_bytes_min = 256 * kMiB;
  // Asked for the free space before every put; the kernel's if there is none (for tests).
  std::function<std::uint64_t()> free_bytes;
  // Called, on any thread, when the engine could not write or sync its tables, its list of them or
  // its log. Whoever is told must end the process and not return: what was answered is durable; but
  // a sync that is tried again after a failure lies, and RocksDB before 8.7 hangs or aborts when an
  // atomic flush has failed. None: the engine is asked to go on.
  std::function<void(const std::string& why)> on_disk_failure;
  // What the engine reads and writes through; the kernel's if there is none. For tests: outlives
  // the store.
  rocksdb::Env* env = nullptr;
};

class Engine;
class RocksObjectStore;
class RocksRefStore;

class Store {
 public:
  // Creates the folder (0700) and an empty store in it if there is none.
  static Result<std::unique_ptr<Store>> open(const StoreOptions& options, Clock& clock,
                                             Random& random);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  contract::ObjectStore& objects();
  contract::RefStore& refs();
  // Made when the store was created; restored copies get another one.
  const GenerationId& generation() const { return generation_; }

 private:
  Store();

  GenerationId generation_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<RocksObjectStore> objects_;
  std::unique_ptr<RocksRefStore> refs_;
};

}  // namespace dims::stores
