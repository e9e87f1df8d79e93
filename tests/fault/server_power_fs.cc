#include "tests/fault/server_power_fs.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace dims::test {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

std::string folder_of(const std::string& path) {
  return std::filesystem::path(path).parent_path().lexically_normal().string();
}

std::optional<std::string> content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool concerns(FileFault fault, FileCall call) {
  switch (fault) {
    case FileFault::kNone:
      return false;
    case FileFault::kIo:
    case FileFault::kNoSpace:
      return call != FileCall::kRead;
    case FileFault::kShortWrite:
      return call == FileCall::kAppend;
    case FileFault::kSync:
      return call == FileCall::kSync;
    case FileFault::kRead:
      return call == FileCall::kRead;
  }
  return false;
}

// Zeros, as far as the file goes.
void throw_away(const std::string& path, std::uint64_t from, std::uint64_t to) {
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(path, error);
  if (error || from >= std::min(to, size)) return;
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(from));
  const std::string zeros(static_cast<std::size_t>(std::min(to, size) - from), '\0');
  file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
}

IOStatus gone() { return IOStatus::IOError("the power is off"); }

class PowerFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  PowerFile(PowerFileSystem& fs, std::string path, std::uint64_t size,
            std::unique_ptr<rocksdb::FSWritableFile>&& below)
      : FSWritableFileOwnerWrapper(std::move(below)),
        fs_(fs),
        path_(std::move(path)),
        size_(size) {}

  using FSWritableFileOwnerWrapper::Append;
  using FSWritableFileOwnerWrapper::PositionedAppend;
  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    const auto verdict = fs_.admit(FileCall::kAppend, path_);
    if (verdict.short_write && data.size() > 1) {
      const Slice part(data.data(), data.size() / 2);
      if (FSWritableFileOwnerWrapper::Append(part, options, debug).ok()) {
        fs_.grown(path_, size_ += part.size());
      }
    }
    if (!verdict.status.ok()) return verdict.status;
    const IOStatus status = FSWritableFileOwnerWrapper::Append(data, options, debug);
    if (status.ok()) fs_.grown(path_, size_ += data.size());
    return status;
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& /*info*/, IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Sync(const IOOptions& /*options*/, IODebugContext* /*debug*/) override { return sync(); }
  IOStatus Fsync(const IOOptions& /*options*/, IODebugContext* /*debug*/) override {
    return sync();
  }
  IOStatus RangeSync(std::uint64_t /*offset*/, std::uint64_t /*bytes*/,
                     const IOOptions& /*options*/, IODebugContext* /*debug*/) override {
    return fs_.is_cut() ? gone() : IOStatus::OK();  // begins to write; promises nothing
  }
  IOStatus Truncate(std::uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    if (fs_.is_cut()) return gone();
    const IOStatus status = FSWritableFileOwnerWrapper::Truncate(size, options, debug);
    if (status.ok()) fs_.grown(path_, size_ = size);
    return status;
  }

 private:
  IOStatus sync() {
    const auto verdict = fs_.admit(FileCall::kSync, path_);
    if (!verdict.status.ok()) {
      fs_.sync_failed(path_);
      return verdict.status;
    }
    const IOStatus flushed = FSWritableFileOwnerWrapper::Flush(IOOptions(), nullptr);
    if (flushed.ok()) fs_.synced(path_);
    return flushed;
  }

  PowerFileSystem& fs_;
  const std::string path_;
  std::uint64_t size_;
};

class ReadInOrder : public rocksdb::FSSequentialFileOwnerWrapper {
 public:
  ReadInOrder(PowerFileSystem& fs, std::string path,
              std::unique_ptr<rocksdb::FSSequentialFile>&& below)
      : FSSequentialFileOwnerWrapper(std::move(below)), fs_(fs), path_(std::move(path)) {}
  IOStatus Read(std::size_t count, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* debug) override {
    const IOStatus verdict = fs_.admit_read(path_);
    return verdict.ok() ? FSSequentialFileOwnerWrapper::Read(count, options, result, scratch, debug)
                        : verdict;
  }

 private:
  PowerFileSystem& fs_;
  const std::string path_;
};

class ReadAnywhere : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  ReadAnywhere(PowerFileSystem& fs, std::string path,
               std::unique_ptr<rocksdb::FSRandomAccessFile>&& below)
      : FSRandomAccessFileOwnerWrapper(std::move(below)), fs_(fs), path_(std::move(path)) {}
  IOStatus Read(std::uint64_t offset, std::size_t count, const IOOptions& options, Slice* result,
                char* scratch, IODebugContext* debug) const override {
    const IOStatus verdict = fs_.admit_read(path_);
    return verdict.ok() ? FSRandomAccessFileOwnerWrapper::Read(offset, count, options, result,
                                                               scratch, debug)
                        : verdict;
  }
  IOStatus MultiRead(rocksdb::FSReadRequest* requests, std::size_t count, const IOOptions& options,
                     IODebugContext* debug) override {
    for (std::size_t i = 0; i < count; ++i) {
      rocksdb::FSReadRequest& one = requests[i];
      one.status = Read(one.offset, one.len, options, &one.result, one.scratch, debug);
    }
    return IOStatus::OK();
  }

 private:
  PowerFileSystem& fs_;
  const std::string path_;
};

class PowerFolder : public rocksdb::FSDirectoryWrapper {
 public:
  PowerFolder(PowerFileSystem& fs, std::string path, std::unique_ptr<rocksdb::FSDirectory>&& below)
      : FSDirectoryWrapper(std::move(below)), fs_(fs), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions& /*options*/, IODebugContext* /*debug*/) override {
    return sync();
  }
  IOStatus FsyncWithDirOptions(const IOOptions& /*options*/, IODebugContext* /*debug*/,
                               const rocksdb::DirFsyncOptions& /*which*/) override {
    return sync();
  }

 private:
  IOStatus sync() {
    const auto verdict = fs_.admit(FileCall::kSync, path_);
    if (verdict.status.ok()) fs_.folder_synced(path_);
    return verdict.status;
  }

  PowerFileSystem& fs_;
  const std::string path_;
};

}  // namespace

PowerFileSystem::Verdict PowerFileSystem::admit(FileCall call, const std::string& path) {
  std::unique_lock lock(mutex_);
  while (frozen_) {
    lock.unlock();
    ::pause();
    lock.lock();
  }
  if (call != FileCall::kRead) {
    if (cut_ || calls_ >= cut_at_) {
      cut_ = true;
      return {gone(), false};
    }
    ++calls_;
  }
  const bool log = path.find("/LOG") != std::string::npos;  // words for people
  if (fault_ == FileFault::kNone || log || !concerns(fault_, call) || --to_fault_ != 0)
    return {IOStatus::OK(), false};
  const FileFault fault = std::exchange(fault_, FileFault::kNone);
  failed_ = true;
  if (fault == FileFault::kNoSpace) return {IOStatus::NoSpace("injected"), false};
  return {IOStatus::IOError("injected"), fault == FileFault::kShortWrite};
}

IOStatus PowerFileSystem::admit_read(const std::string& path) {
  return admit(FileCall::kRead, path).status;
}

void PowerFileSystem::cut_after(std::uint64_t calls) {
  std::lock_guard lock(mutex_);
  cut_at_ = calls_ + calls;
}
void PowerFileSystem::freeze() {
  std::lock_guard lock(mutex_);
  frozen_ = true;
}
void PowerFileSystem::cut() {
  std::lock_guard lock(mutex_);
  cut_ = true;
}
bool PowerFileSystem::is_cut() {
  std::lock_guard lock(mutex_);
  return cut_;
}
void PowerFileSystem::fail_at(std::uint64_t call, FileFault fault) {
  std::lock_guard lock(mutex_);
  to_fault_ = call;
  fault_ = fault;
  failed_ = false;
}
bool PowerFileSystem::failed_once() {
  std::lock_guard lock(mutex_);
  return failed_;
}
std::uint64_t PowerFileSystem::calls() {
  std::lock_guard lock(mutex_);
  return calls_;
}
void PowerFileSystem::grown(const std::string& path, std::uint64_t size) {
  std::lock_guard lock(mutex_);
  Ledger& file = files_[path];
  file.size = size;
  file.synced = std::min(file.synced, size);
}
void PowerFileSystem::synced(const std::string& path) {
  std::lock_guard lock(mutex_);
  if (!cut_) files_[path].synced = files_[path].size;
}
// The kernel has marked the pages clean: they are in no later sync.
void PowerFileSystem::sync_failed(const std::string& path) {
  std::lock_guard lock(mutex_);
  Ledger& file = files_[path];
  if (cut_ || file.synced == file.size) return;
  if (file.lost_to == 0) file.lost_from = file.synced;
  file.lost_to = file.size;
}
void PowerFileSystem::folder_synced(const std::string& folder) {
  std::lock_guard lock(mutex_);
  if (cut_) return;
  const std::string normal = std::filesystem::path(folder + "/").lexically_normal().parent_path();
  std::erase_if(entries_, [&](const Entry& entry) { return folder_of(entry.path) == normal; });
}

void PowerFileSystem::apply(SeededRandom& random) {
  std::lock_guard lock(mutex_);
  for (const auto& [path, file] : files_) {
    std::error_code error;
    if (!std::filesystem::exists(path, error) || file.size == file.synced) continue;
    // All of it, none of it, or torn anywhere.
    const std::uint64_t unsynced = file.size - file.synced;
    const std::uint64_t pick = random.below(4);
    const std::uint64_t kept = pick == 0 ? 0 : pick == 1 ? unsynced : random.below(unsynced + 1);
    std::filesystem::resize_file(path, file.synced + kept, error);
  }
  for (const auto& [path, file] : files_) throw_away(path, file.lost_from, file.lost_to);
  // A journal of the file system keeps a prefix of these, in their order.
  const auto kept = static_cast<std::ptrdiff_t>(random.below(entries_.size() + 1));
  for (auto entry = entries_.rbegin(); entry != entries_.rend() - kept; ++entry) {
    std::error_code error;
    if (!entry->from.empty()) {
      std::filesystem::rename(entry->path, entry->from, error);
      if (entry->replaced) std::ofstream(entry->path, std::ios::binary) << *entry->replaced;
    } else {
      std::filesystem::remove(entry->path, error);
    }
  }
  files_.clear();
  entries_.clear();
  cut_ = false;
  cut_at_ = ~std::uint64_t{0};
  fault_ = FileFault::kNone;
  failed_ = false;
}

IOStatus PowerFileSystem::NewWritableFile(const std::string& path, const FileOptions& options,
                                          std::unique_ptr<rocksdb::FSWritableFile>* result,
                                          IODebugContext* debug) {
  const auto verdict = admit(FileCall::kChange, path);
  if (!verdict.status.ok()) return verdict.status;
  std::unique_ptr<rocksdb::FSWritableFile> below;
  const IOStatus status = FileSystemWrapper::NewWritableFile(path, options, &below, debug);
  if (!status.ok()) return status;
  {
    std::lock_guard lock(mutex_);
    files_[path] = {};
    entries_.push_back({path, {}, std::nullopt});
  }
  *result = std::make_unique<PowerFile>(*this, path, 0, std::move(below));
  return status;
}

IOStatus PowerFileSystem::ReopenWritableFile(const std::string& path, const FileOptions& options,
                                             std::unique_ptr<rocksdb::FSWritableFile>* result,
                                             IODebugContext* debug) {
  const auto verdict = admit(FileCall::kChange, path);
  if (!verdict.status.ok()) return verdict.status;
  std::unique_ptr<rocksdb::FSWritableFile> below;
  const IOStatus status = FileSystemWrapper::ReopenWritableFile(path, options, &below, debug);
  if (!status.ok()) return status;
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(path, error);
  {
    std::lock_guard lock(mutex_);
    files_.emplace(path, Ledger{size, size});
  }
  *result = std::make_unique<PowerFile>(*this, path, size, std::move(below));
  return status;
}

IOStatus PowerFileSystem::NewSequentialFile(const std::string& path, const FileOptions& options,
                                            std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                            IODebugContext* debug) {
  IOStatus status = admit_read(path);
  if (!status.ok()) return status;
  std::unique_ptr<rocksdb::FSSequentialFile> below;
  status = FileSystemWrapper::NewSequentialFile(path, options, &below, debug);
  if (status.ok()) *result = std::make_unique<ReadInOrder>(*this, path, std::move(below));
  return status;
}

IOStatus PowerFileSystem::NewRandomAccessFile(const std::string& path, const FileOptions& options,
                                              std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                                              IODebugContext* debug) {
  IOStatus status = admit_read(path);
  if (!status.ok()) return status;
  std::unique_ptr<rocksdb::FSRandomAccessFile> below;
  status = FileSystemWrapper::NewRandomAccessFile(path, options, &below, debug);
  if (status.ok()) *result = std::make_unique<ReadAnywhere>(*this, path, std::move(below));
  return status;
}

IOStatus PowerFileSystem::GetChildren(const std::string& path, const IOOptions& options,
                                      std::vector<std::string>* result, IODebugContext* debug) {
  const IOStatus status = admit_read(path);
  return status.ok() ? FileSystemWrapper::GetChildren(path, options, result, debug) : status;
}

IOStatus PowerFileSystem::GetFileSize(const std::string& path, const IOOptions& options,
                                      std::uint64_t* size, IODebugContext* debug) {
  const IOStatus status = admit_read(path);
  return status.ok() ? FileSystemWrapper::GetFileSize(path, options, size, debug) : status;
}

IOStatus PowerFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                       std::unique_ptr<rocksdb::FSDirectory>* result,
                                       IODebugContext* debug) {
  std::unique_ptr<rocksdb::FSDirectory> below;
  const IOStatus status = FileSystemWrapper::NewDirectory(path, options, &below, debug);
  if (status.ok()) *result = std::make_unique<PowerFolder>(*this, path, std::move(below));
  return status;
}

IOStatus PowerFileSystem::RenameFile(const std::string& from, const std::string& to,
                                     const IOOptions& options, IODebugContext* debug) {
  const auto verdict = admit(FileCall::kChange, to);
  if (!verdict.status.ok()) return verdict.status;
  const auto replaced = content(to);
  const IOStatus status = FileSystemWrapper::RenameFile(from, to, options, debug);
  if (!status.ok()) return status;
  std::lock_guard lock(mutex_);
  files_[to] = files_[from];
  files_.erase(from);
  entries_.push_back({to, from, replaced});
  return status;
}

IOStatus PowerFileSystem::DeleteFile(const std::string& path, const IOOptions& options,
                                     IODebugContext* debug) {
  const auto verdict = admit(FileCall::kChange, path);
  if (!verdict.status.ok()) return verdict.status;
  const IOStatus status = FileSystemWrapper::DeleteFile(path, options, debug);
  if (!status.ok()) return status;
  std::lock_guard lock(mutex_);
  files_.erase(path);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.path == path; });
  return status;
}

IOStatus PowerFileSystem::Truncate(const std::string& path, std::size_t size,
                                   const IOOptions& options, IODebugContext* debug) {
  const auto verdict = admit(FileCall::kChange, path);
  if (!verdict.status.ok()) return verdict.status;
  return FileSystemWrapper::Truncate(path, size, options, debug);
}

}  // namespace dims::test
