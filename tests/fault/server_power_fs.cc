#include "tests/fault/server_power_fs.h"

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
    const auto verdict = fs_.admit(false, path_);
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
    const auto verdict = fs_.admit(true, path_);
    if (!verdict.status.ok()) return verdict.status;
    const IOStatus flushed = FSWritableFileOwnerWrapper::Flush(IOOptions(), nullptr);
    if (flushed.ok()) fs_.synced(path_);
    return flushed;
  }

  PowerFileSystem& fs_;
  const std::string path_;
  std::uint64_t size_;
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
    const auto verdict = fs_.admit(true, path_);
    if (verdict.status.ok()) fs_.folder_synced(path_);
    return verdict.status;
  }

  PowerFileSystem& fs_;
  const std::string path_;
};

}  // namespace

PowerFileSystem::Verdict PowerFileSystem::admit(bool is_sync, const std::string& path) {
  std::lock_guard lock(mutex_);
  if (cut_ || calls_ >= cut_at_) {
    cut_ = true;
    return {gone(), false};
  }
  ++calls_;
  const bool log = path.find("/LOG") != std::string::npos;  // words for people
  if (fault_ == FileFault::kNone || calls_ < fail_at_ || log) return {IOStatus::OK(), false};
  if (fault_ == FileFault::kSync && !is_sync) return {IOStatus::OK(), false};
  const FileFault fault = std::exchange(fault_, FileFault::kNone);
  failed_ = true;
  if (fault == FileFault::kNoSpace) return {IOStatus::NoSpace("injected"), false};
  return {IOStatus::IOError("injected"), fault == FileFault::kShortWrite && !is_sync};
}

void PowerFileSystem::cut_after(std::uint64_t calls) {
  std::lock_guard lock(mutex_);
  cut_at_ = calls_ + calls;
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
  fail_at_ = calls_ + call;
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
  const auto verdict = admit(false, path);
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
  const auto verdict = admit(false, path);
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
  const auto verdict = admit(false, to);
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
  if (is_cut()) return gone();
  const IOStatus status = FileSystemWrapper::DeleteFile(path, options, debug);
  if (!status.ok()) return status;
  std::lock_guard lock(mutex_);
  files_.erase(path);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.path == path; });
  return status;
}

IOStatus PowerFileSystem::Truncate(const std::string& path, std::size_t size,
                                   const IOOptions& options, IODebugContext* debug) {
  if (is_cut()) return gone();
  return FileSystemWrapper::Truncate(path, size, options, debug);
}

}  // namespace dims::test
