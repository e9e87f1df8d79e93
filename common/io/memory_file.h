// A file system in memory: for a diskless machine (cache=none) and for tests.
// Threads: thread-safe (one lock a file). Durable: nothing, ever; syncs succeed at once.
#pragma once

#include <map>
#include <mutex>

#include "common/io/file.h"

namespace dims::io {

class MemoryFile;

class MemoryFileSystem : public FileSystem {
 public:
  // capacity_bytes bounds what preallocate() and writes may take (kNoSpace beyond); 0 = no bound.
  explicit MemoryFileSystem(std::uint64_t capacity_bytes = 0);
  ~MemoryFileSystem() override;

  Result<std::shared_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status make_folder(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& folder) override;
  Result<bool> exists(const std::string& path) override;
  Status sync_folder(const std::string& folder) override;
  Result<std::uint64_t> free_bytes(const std::string& path) override;

 private:
  struct Space;  // shared with the files, which may outlive their names
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<MemoryFile>> files_;
  std::map<std::string, bool> folders_;
  std::shared_ptr<Space> space_;
  friend class MemoryFile;
};

}  // namespace dims::io
