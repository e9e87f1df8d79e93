// A simulated disk: an io::FileSystem that knows what would survive a power cut, and fails on
// demand.
//
// The model. What a program sees is the kernel's cache. What survives a power cut is:
//  - of a file: what was there at its last sync_data(), and of every 512-byte sector written since,
//  any
//    one of the states it went through (so writes are lost, torn inside and reordered); of its
//    size, any state since the last sync_data(), in order.
//  - of names (create, rename, remove): what the last sync_folder() of the folder made durable, and
//  any
//    subset of the operations since. Folders themselves are durable at once.
//  - sync_data() that fails loses for ever what it should have written, while reads still see it,
//  and the
//    next sync_data() succeeds: as Linux does.
//  - a write that stops in the middle (kShort) has written a first part.
// Every choice comes from a seed.
//
// Threads: thread-safe (one lock); set the plan and the hook before threads start. Ownership: files
// share the disk's state and may outlive it. Units: bytes. Durable: see above.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/io/file.h"

namespace dims::test {

enum class SimFault {
  kIo,     // EIO; a sync that fails so loses its data (see above)
  kSpace,  // ENOSPC; nothing is written
  kShort,  // writes only: a first part is written, then EIO. Other calls: EIO
};

class SimFile;
struct SimDisk;  // what files and file system share

class SimFileSystem : public io::FileSystem {
 public:
  SimFileSystem();
  ~SimFileSystem() override;

  Result<std::shared_ptr<io::File>> open(const std::string& path, io::OpenMode mode) override;
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status make_folder(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& folder) override;
  Result<bool> exists(const std::string& path) override;
  Status sync_folder(const std::string& folder) override;
  Result<std::uint64_t> free_bytes(const std::string& path) override;

  // --- power ---
  // The disk as it may be found after a power cut now. This one is not changed, so that many
  // outcomes of one history can be looked at. The new one starts with nothing unsynced, no plan, no
  // hook.
  std::unique_ptr<SimFileSystem> after_power_cut(std::uint64_t seed) const;
  // The disk as a killed process leaves it: everything in the kernel's hands is there, unsynced.
  std::unique_ptr<SimFileSystem> copy() const;

  // --- faults; calls are counted from 0, every call of this interface and of its files counts ---
  std::uint64_t calls() const;
  // The call with this index fails, once.
  void fail_call(std::uint64_t index, SimFault fault);
  // From this call on nothing has any effect and every call fails: the power is off. Look at the
  // result with after_power_cut().
  void stop_at_call(std::uint64_t index);
  // The first sync_data() from now on fails.
  void fail_next_sync();
  void clear_faults();
  bool fault_hit() const;
  // Bounds the sum of file sizes; kNoSpace beyond. 0 = no bound.
  void set_capacity(std::uint64_t bytes);
  // Called before every write, outside the lock: a test may block here.
  void on_write(
      std::function<void(const std::string& path, std::uint64_t offset, std::uint64_t count)> hook);

  // --- for damage tests: goes round everything above ---
  Bytes peek(const std::string& path) const;  // what a reader sees; empty if there is no such file
  void poke(const std::string& path, std::uint64_t offset, ByteView bytes);  // durable at once
  void plant(const std::string& path, ByteView bytes);                       // a durable file
  void erase(const std::string& path);                                       // durable at once
  std::uint64_t bytes_read() const;  // given to readers so far
  std::uint64_t syncs() const;       // sync_data() calls that succeeded

 private:
  std::shared_ptr<SimDisk> disk_;
};

}  // namespace dims::test
