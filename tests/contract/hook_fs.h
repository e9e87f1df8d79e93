// The kernel's files below RocksDB, with a say at the moments that a test is about. Threads: hooks
// are called by whoever reads, makes or removes a file; they are set while nobody does.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <functional>
#include <memory>
#include <string>

namespace dims::test {

class HookFileSystem : public rocksdb::FileSystemWrapper {
 public:
  HookFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "dims-hook"; }

  std::function<void(const std::string&path)> on_create, on_delete;  // before it is done
  // After something was read; not OK: the read fails with it.
  std::function<rocksdb::IOStatus(const std::string& path)> on_read;

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override {
    if (on_create) on_create(path);
    return FileSystemWrapper::NewWritableFile(path, options, result, debug);
  }
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override {
    if (on_delete) on_delete(path);
    return FileSystemWrapper::DeleteFile(path, options, debug);
  }
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                                        rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSRandomAccessFile> below;
    const auto status = FileSystemWrapper::NewRandomAccessFile(path, options, &below, debug);
    if (status.ok()) *result = std::make_unique<Reader>(*this, path, std::move(below));
    return status;
  }

 private:
  class Reader : public rocksdb::FSRandomAccessFileOwnerWrapper {
   public:
    Reader(HookFileSystem& fs, std::string path,
           std::unique_ptr<rocksdb::FSRandomAccessFile>&& below)
        : FSRandomAccessFileOwnerWrapper(std::move(below)), fs_(fs), path_(std::move(path)) {}
    rocksdb::IOStatus Read(std::uint64_t offset, std::size_t count,
                           const rocksdb::IOOptions& options, rocksdb::Slice* result, char* scratch,
                           rocksdb::IODebugContext* debug) const override {
      const auto status =
          FSRandomAccessFileOwnerWrapper::Read(offset, count, options, result, scratch, debug);
      return status.ok() && fs_.on_read ? fs_.on_read(path_) : status;
    }
    rocksdb::IOStatus MultiRead(rocksdb::FSReadRequest* requests, std::size_t count,
                                const rocksdb::IOOptions& options,
                                rocksdb::IODebugContext* debug) override {
      for (std::size_t n = 0; n < count; ++n) {
        auto& one = requests[n];
        one.status = Read(one.offset, one.len, options, &one.result, one.scratch, debug);
      }
      return rocksdb::IOStatus::OK();
    }

   private:
    HookFileSystem& fs_;
    const std::string path_;
  };
};

// Both, as StoreOptions::env wants it.
struct HookedEnv {
  std::shared_ptr<HookFileSystem> files = std::make_shared<HookFileSystem>();
  std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(files);
};

}  // namespace dims::test
