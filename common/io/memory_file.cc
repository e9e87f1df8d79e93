#include "common/io/memory_file.h"

#include <atomic>
#include <shared_mutex>
#include <unordered_map>

#include "common/io/errno_map.h"

namespace dims::io {

struct MemoryFileSystem::Space {
  std::uint64_t capacity_bytes = 0;
  std::atomic<std::uint64_t> used_bytes{0};

  bool take(std::uint64_t bytes) {
    const std::uint64_t now = used_bytes.fetch_add(bytes) + bytes;
    if (capacity_bytes != 0 && now > capacity_bytes) {
      used_bytes.fetch_sub(bytes);
      return false;
    }
    return true;
  }
};

// Sparse: only blocks that were written take memory.
class MemoryFile : public File {
 public:
  MemoryFile(std::string path, std::shared_ptr<MemoryFileSystem::Space> space)
      : path_(std::move(path)), space_(std::move(space)) {}
  ~MemoryFile() override { space_->used_bytes.fetch_sub(blocks_.size() * kBlockBytes); }

  Status read_at(std::uint64_t offset, MutByteView out) override {
    DIMS_ASSIGN(const std::size_t n, read_some(offset, out));
    if (n != out.size()) return make_error(ErrorCode::kCorrupt, "short read of " + path_);
    return ok_status();
  }

  Result<std::size_t> read_some(std::uint64_t offset, MutByteView out) override {
    const std::shared_lock lock(mutex_);
    if (offset >= size_) return std::size_t{0};
    const std::size_t count =
        static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), size_ - offset));
    std::size_t done = 0;
    while (done < count) {
      const std::uint64_t at = offset + done;
      const std::size_t in_block = static_cast<std::size_t>(at % kBlockBytes);
      const std::size_t n = std::min(count - done, kBlockBytes - in_block);
      const auto found = blocks_.find(at / kBlockBytes);
      if (found == blocks_.end())
        std::memset(out.data() + done, 0, n);
      else
        std::memcpy(out.data() + done, found->second.get() + in_block, n);
      done += n;
    }
    return count;
  }

  Status write_at(std::uint64_t offset, ByteView data) override {
    const std::unique_lock lock(mutex_);
    std::size_t done = 0;
    while (done < data.size()) {
      const std::uint64_t at = offset + done;
      const std::size_t in_block = static_cast<std::size_t>(at % kBlockBytes);
      const std::size_t n = std::min(data.size() - done, kBlockBytes - in_block);
      auto& block = blocks_[at / kBlockBytes];
      if (block == nullptr) {
        if (!space_->take(kBlockBytes)) {
          blocks_.erase(at / kBlockBytes);
          return errno_error(ENOSPC, "cannot write", path_);
        }
        block = std::make_unique<std::uint8_t[]>(kBlockBytes);
      }
      std::memcpy(block.get() + in_block, data.data() + done, n);
      done += n;
    }
    size_ = std::max<std::uint64_t>(size_, offset + data.size());
    return ok_status();
  }

  Status write_gather(std::uint64_t offset, std::span<const ByteView> parts) override {
    for (const ByteView part : parts) {
      DIMS_TRY(write_at(offset, part));
      offset += part.size();
    }
    return ok_status();
  }

  Status sync_data() override { return ok_status(); }

  Status preallocate(std::uint64_t size) override {
    const std::unique_lock lock(mutex_);
    size_ = std::max(size_, size);
    return ok_status();
  }

  Status truncate(std::uint64_t size) override {
    const std::unique_lock lock(mutex_);
    for (auto it = blocks_.begin(); it != blocks_.end();) {
      const std::uint64_t start = it->first * kBlockBytes;
      if (start >= size) {
        space_->used_bytes.fetch_sub(kBlockBytes);
        it = blocks_.erase(it);
        continue;
      }
      if (start + kBlockBytes > size) {
        const auto keep = static_cast<std::size_t>(size - start);
        std::memset(it->second.get() + keep, 0, kBlockBytes - keep);
      }
      ++it;
    }
    size_ = size;
    return ok_status();
  }

  Result<std::uint64_t> size() override {
    const std::shared_lock lock(mutex_);
    return size_;
  }

  const std::string& path() const override { return path_; }

 private:
  static constexpr std::size_t kBlockBytes = 64 * 1024;
  std::string path_;
  std::shared_ptr<MemoryFileSystem::Space> space_;
  std::shared_mutex mutex_;
  std::uint64_t size_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<std::uint8_t[]>> blocks_;
};

MemoryFileSystem::MemoryFileSystem(std::uint64_t capacity_bytes)
    : space_(std::make_shared<Space>()) {
  space_->capacity_bytes = capacity_bytes;
}
MemoryFileSystem::~MemoryFileSystem() = default;

Result<std::shared_ptr<File>> MemoryFileSystem::open(const std::string& path, OpenMode mode) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(path);
  if (found != files_.end()) {
    if (mode == OpenMode::kCreateExclusive) return errno_error(EEXIST, "cannot open", path);
    return std::shared_ptr<File>(found->second);
  }
  if (mode == OpenMode::kReadOnly || mode == OpenMode::kReadWrite) {
    return errno_error(ENOENT, "cannot open", path);
  }
  auto file = std::make_shared<MemoryFile>(path, space_);
  files_[path] = file;
  return std::shared_ptr<File>(file);
}

Status MemoryFileSystem::remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (files_.erase(path) == 0) return errno_error(ENOENT, "cannot remove", path);
  return ok_status();
}

Status MemoryFileSystem::rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  auto node = files_.extract(from);
  if (node.empty()) return errno_error(ENOENT, "cannot rename", from);
  files_[to] = std::move(node.mapped());
  return ok_status();
}

Status MemoryFileSystem::make_folder(const std::string& path) {
  const std::lock_guard lock(mutex_);
  folders_[path] = true;
  return ok_status();
}

Result<std::vector<std::string>> MemoryFileSystem::list(const std::string& folder) {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [path, file] : files_) {
    if (parent_folder(path) == folder) names.push_back(path.substr(folder.size() + 1));
  }
  return names;
}

Result<bool> MemoryFileSystem::exists(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return files_.count(path) != 0 || folders_.count(path) != 0;
}

Status MemoryFileSystem::sync_folder(const std::string&) { return ok_status(); }

Result<std::uint64_t> MemoryFileSystem::free_bytes(const std::string&) {
  const std::uint64_t used = space_->used_bytes.load();
  if (space_->capacity_bytes == 0) return std::uint64_t{1} << 62;
  return used >= space_->capacity_bytes ? 0 : space_->capacity_bytes - used;
}

}  // namespace dims::io
