#include "tests/support/sim_file.h"

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <optional>

#include "common/base/clock.h"
#include "common/io/errno_map.h"

namespace dims::test {

namespace {
constexpr std::uint64_t kSector = 512;

// A change of a file that was not synced yet.
struct Change {
  bool resize = false;
  std::uint64_t offset = 0;  // or the new size
  Bytes data;
};

struct Inode {
  Bytes now;                    // what readers see
  Bytes durable;                // what the last sync made safe
  std::vector<Change> changes;  // since then
};

struct NameChange {
  enum class Kind { kCreate, kRemove, kRename } kind = Kind::kCreate;
  std::string name;
  std::string to;  // of a rename
  std::shared_ptr<Inode> inode;
};

using Names = std::map<std::string, std::shared_ptr<Inode>>;

void apply_write(Bytes& bytes, std::uint64_t offset, ByteView data) {
  if (bytes.size() < offset + data.size()) bytes.resize(offset + data.size());
  std::copy(data.begin(), data.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
}

// How a power cut treats what is unsynced; drawn once a cut, so that extremes come up often.
struct Outcome {
  enum class Mode { kNothing, kEverything, kMixed, kPrefix, kAlmostAll } mode;
  std::uint64_t percent;
};

Outcome draw_outcome(SeededRandom& random) {
  return {static_cast<Outcome::Mode>(random.below(5)), 5 + random.below(91)};
}

// How many of a sector's `count` states survive (0 = the durable one).
std::uint64_t surviving_states(const Outcome& outcome, std::uint64_t count, SeededRandom& random) {
  switch (outcome.mode) {
    case Outcome::Mode::kNothing:
      return 0;
    case Outcome::Mode::kEverything:
      return count;
    case Outcome::Mode::kAlmostAll:
      return random.below(12) == 0 ? random.below(count + 1) : count;
    default:
      return random.below(100) < outcome.percent ? count - random.below(count)
                                                 : random.below(count);
  }
}

Bytes surviving_bytes(const Inode& inode, const Outcome& outcome, SeededRandom& random) {
  if (inode.changes.empty()) return inode.durable;
  // A prefix of the size changes survives, for file systems log them in order.
  std::vector<std::uint64_t> sizes{inode.durable.size()};
  std::map<std::uint64_t, std::uint64_t> states;  // sector -> times written
  std::uint64_t size = inode.durable.size();
  for (const Change& change : inode.changes) {
    if (change.resize) {
      size = change.offset;
    } else {
      size = std::max(size, change.offset + change.data.size());
      for (std::uint64_t s = change.offset / kSector;
           s * kSector < change.offset + change.data.size(); ++s)
        ++states[s];
    }
    sizes.push_back(size);
  }
  std::uint64_t kept = random.below(sizes.size());
  if (outcome.mode == Outcome::Mode::kNothing) kept = 0;
  if (outcome.mode == Outcome::Mode::kEverything || outcome.mode == Outcome::Mode::kAlmostAll)
    kept = sizes.size() - 1;
  const std::uint64_t cut =
      kept;  // kPrefix: changes before this survive whole, the next one is torn
  if (outcome.mode != Outcome::Mode::kPrefix) {
    for (auto& [sector, count] : states) count = surviving_states(outcome, count, random);
  }
  Bytes bytes = inode.durable;
  std::map<std::uint64_t, std::uint64_t> seen;
  for (std::size_t i = 0; i < inode.changes.size(); ++i) {
    const Change& change = inode.changes[i];
    if (change.resize) {
      if (i < kept) bytes.resize(change.offset);
      continue;
    }
    for (std::uint64_t s = change.offset / kSector;
         s * kSector < change.offset + change.data.size(); ++s) {
      bool survives;
      if (outcome.mode == Outcome::Mode::kPrefix)
        survives = i < cut || (i == cut && random.below(2) == 0);
      else
        survives = seen[s]++ < states[s];
      if (!survives) continue;
      const std::uint64_t from = std::max(change.offset, s * kSector);
      const std::uint64_t to = std::min(change.offset + change.data.size(), (s + 1) * kSector);
      apply_write(bytes, from, ByteView(change.data).subspan(from - change.offset, to - from));
    }
  }
  bytes.resize(sizes[kept]);
  return bytes;
}

void apply_name(Names& names, const NameChange& change) {
  switch (change.kind) {
    case NameChange::Kind::kCreate:
      names[change.name] = change.inode;
      break;
    case NameChange::Kind::kRemove:
      names.erase(change.name);
      break;
    case NameChange::Kind::kRename:
      names.erase(change.name);
      names[change.to] = change.inode;
      break;
  }
}

}  // namespace

struct SimDisk {
  mutable std::mutex mutex;
  Names now;
  Names durable;
  std::vector<NameChange> name_changes;
  std::map<std::string, bool> folders;

  std::uint64_t calls = 0;
  std::uint64_t syncs = 0;
  std::uint64_t bytes_read = 0;
  std::map<std::uint64_t, SimFault> plan;
  std::optional<std::uint64_t> stop_at;
  bool fail_next_sync = false;
  bool fault_hit = false;
  std::uint64_t capacity = 0;
  std::function<void(const std::string&, std::uint64_t, std::uint64_t)> hook;

  bool stopped() const { return stop_at && calls > *stop_at; }

  // Counts a call; the fault that it meets, if any.
  std::optional<SimFault> meet() {
    const std::uint64_t index = calls++;
    if (stop_at && index >= *stop_at) {
      fault_hit = true;
      return SimFault::kIo;
    }
    const auto found = plan.find(index);
    if (found == plan.end()) return std::nullopt;
    const SimFault fault = found->second;
    plan.erase(found);
    fault_hit = true;
    return fault;
  }
  static Error error_of(SimFault fault, const std::string& what, const std::string& path) {
    return io::errno_error(fault == SimFault::kSpace ? ENOSPC : EIO, what, path);
  }
  bool room_for(std::uint64_t more) const {
    if (capacity == 0) return true;
    std::uint64_t used = 0;
    for (const auto& [name, inode] : now) used += inode->now.size();
    return used + more <= capacity;
  }
};

class SimFile : public io::File {
 public:
  SimFile(std::string path, std::shared_ptr<Inode> inode, std::shared_ptr<SimDisk> disk)
      : path_(std::move(path)), inode_(std::move(inode)), disk_(std::move(disk)) {}

  Status read_at(std::uint64_t offset, MutByteView out) override {
    DIMS_ASSIGN(const std::size_t n, read_some(offset, out));
    if (n != out.size()) return make_error(ErrorCode::kCorrupt, "short read of " + path_);
    return ok_status();
  }

  Result<std::size_t> read_some(std::uint64_t offset, MutByteView out) override {
    const std::lock_guard lock(disk_->mutex);
    if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot read", path_);
    if (offset >= inode_->now.size()) return std::size_t{0};
    const std::size_t n = std::min<std::size_t>(out.size(), inode_->now.size() - offset);
    std::copy_n(inode_->now.begin() + static_cast<std::ptrdiff_t>(offset), n, out.begin());
    disk_->bytes_read += n;
    return n;
  }

  Status write_at(std::uint64_t offset, ByteView data) override {
    if (disk_->hook) disk_->hook(path_, offset, data.size());
    const std::lock_guard lock(disk_->mutex);
    const auto fault = disk_->meet();
    std::size_t count = data.size();
    if (fault) count = *fault == SimFault::kShort && !disk_->stopped() ? data.size() / 2 : 0;
    if (offset + count > inode_->now.size() &&
        !disk_->room_for(offset + count - inode_->now.size())) {
      return io::errno_error(ENOSPC, "cannot write", path_);
    }
    if (count > 0) {
      apply_write(inode_->now, offset, data.first(count));
      inode_->changes.push_back(
          {false, offset, Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(count))});
    }
    if (fault) return SimDisk::error_of(*fault, "cannot write", path_);
    return ok_status();
  }

  Status write_gather(std::uint64_t offset, std::span<const ByteView> parts) override {
    Bytes all;
    for (const ByteView part : parts) all.insert(all.end(), part.begin(), part.end());
    return write_at(offset, all);
  }

  Status sync_data() override {
    const std::lock_guard lock(disk_->mutex);
    auto fault = disk_->meet();
    if (!fault && disk_->fail_next_sync) {
      disk_->fail_next_sync = false;
      disk_->fault_hit = true;
      fault = SimFault::kIo;
    }
    if (fault) {
      if (!disk_->stopped()) inode_->changes.clear();  // marked clean, never written
      return SimDisk::error_of(*fault, "cannot sync", path_);
    }
    // Replayed, not copied: what an earlier failed sync lost stays lost.
    for (const Change& change : inode_->changes) {
      if (change.resize)
        inode_->durable.resize(change.offset);
      else
        apply_write(inode_->durable, change.offset, change.data);
    }
    inode_->changes.clear();
    ++disk_->syncs;
    return ok_status();
  }

  Status preallocate(std::uint64_t size) override {
    const std::lock_guard lock(disk_->mutex);
    if (const auto fault = disk_->meet())
      return SimDisk::error_of(*fault, "cannot reserve space for", path_);
    if (size <= inode_->now.size()) return ok_status();
    if (!disk_->room_for(size - inode_->now.size()))
      return io::errno_error(ENOSPC, "cannot reserve space for", path_);
    resize(size);
    return ok_status();
  }

  Status truncate(std::uint64_t size) override {
    const std::lock_guard lock(disk_->mutex);
    if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot resize", path_);
    resize(size);
    return ok_status();
  }

  Result<std::uint64_t> size() override {
    const std::lock_guard lock(disk_->mutex);
    if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot stat", path_);
    return static_cast<std::uint64_t>(inode_->now.size());
  }

  const std::string& path() const override { return path_; }

 private:
  void resize(std::uint64_t size) {
    inode_->now.resize(size);
    inode_->changes.push_back({true, size, {}});
  }

  std::string path_;
  std::shared_ptr<Inode> inode_;
  std::shared_ptr<SimDisk> disk_;
};

SimFileSystem::SimFileSystem() : disk_(std::make_shared<SimDisk>()) {}
SimFileSystem::~SimFileSystem() = default;

Result<std::shared_ptr<io::File>> SimFileSystem::open(const std::string& path, io::OpenMode mode) {
  const std::lock_guard lock(disk_->mutex);
  if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot open", path);
  auto found = disk_->now.find(path);
  if (found != disk_->now.end() && mode == io::OpenMode::kCreateExclusive) {
    return io::errno_error(EEXIST, "cannot open", path);
  }
  if (found == disk_->now.end()) {
    if (mode == io::OpenMode::kReadOnly || mode == io::OpenMode::kReadWrite) {
      return io::errno_error(ENOENT, "cannot open", path);
    }
    found = disk_->now.emplace(path, std::make_shared<Inode>()).first;
    disk_->name_changes.push_back({NameChange::Kind::kCreate, path, {}, found->second});
  }
  return std::shared_ptr<io::File>(std::make_shared<SimFile>(path, found->second, disk_));
}

Status SimFileSystem::remove(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot remove", path);
  if (disk_->now.erase(path) == 0) return io::errno_error(ENOENT, "cannot remove", path);
  disk_->name_changes.push_back({NameChange::Kind::kRemove, path, {}, nullptr});
  return ok_status();
}

Status SimFileSystem::rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(disk_->mutex);
  if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot rename", from);
  const auto found = disk_->now.find(from);
  if (found == disk_->now.end()) return io::errno_error(ENOENT, "cannot rename", from);
  disk_->name_changes.push_back({NameChange::Kind::kRename, from, to, found->second});
  apply_name(disk_->now, disk_->name_changes.back());
  return ok_status();
}

Status SimFileSystem::make_folder(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  if (const auto fault = disk_->meet())
    return SimDisk::error_of(*fault, "cannot make folder", path);
  disk_->folders[path] = true;
  return ok_status();
}

Result<std::vector<std::string>> SimFileSystem::list(const std::string& folder) {
  const std::lock_guard lock(disk_->mutex);
  if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot list", folder);
  std::vector<std::string> names;
  for (const auto& [path, inode] : disk_->now) {
    if (io::parent_folder(path) == folder) names.push_back(path.substr(path.rfind('/') + 1));
  }
  return names;
}

Result<bool> SimFileSystem::exists(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot look up", path);
  return disk_->now.count(path) != 0 || disk_->folders.count(path) != 0;
}

Status SimFileSystem::sync_folder(const std::string& folder) {
  const std::lock_guard lock(disk_->mutex);
  if (const auto fault = disk_->meet())
    return SimDisk::error_of(*fault, "cannot sync folder", folder);
  std::vector<NameChange> others;
  for (NameChange& change : disk_->name_changes) {
    // A rename between folders becomes durable with either.
    const bool ours =
        io::parent_folder(change.name) == folder ||
        (change.kind == NameChange::Kind::kRename && io::parent_folder(change.to) == folder);
    if (ours)
      apply_name(disk_->durable, change);
    else
      others.push_back(std::move(change));
  }
  disk_->name_changes = std::move(others);
  return ok_status();
}

Result<std::uint64_t> SimFileSystem::free_bytes(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  if (const auto fault = disk_->meet()) return SimDisk::error_of(*fault, "cannot look up", path);
  if (disk_->capacity == 0) return std::uint64_t{1} << 62;
  std::uint64_t used = 0;
  for (const auto& [name, inode] : disk_->now) used += inode->now.size();
  return disk_->capacity > used ? disk_->capacity - used : 0;
}

std::unique_ptr<SimFileSystem> SimFileSystem::after_power_cut(std::uint64_t seed) const {
  SeededRandom random(seed);
  auto after = std::make_unique<SimFileSystem>();
  const std::lock_guard lock(disk_->mutex);
  const Outcome outcome = draw_outcome(random);
  Names names = disk_->durable;
  const std::uint64_t kept_names = random.below(disk_->name_changes.size() + 1);
  for (std::size_t i = 0; i < disk_->name_changes.size(); ++i) {
    bool survives = random.below(100) < outcome.percent;
    if (outcome.mode == Outcome::Mode::kNothing) survives = false;
    if (outcome.mode == Outcome::Mode::kEverything) survives = true;
    if (outcome.mode == Outcome::Mode::kPrefix) survives = i < kept_names;
    if (survives) apply_name(names, disk_->name_changes[i]);
  }
  std::map<const Inode*, std::shared_ptr<Inode>> fresh;  // an inode may have two names
  for (const auto& [path, inode] : names) {
    auto& copy = fresh[inode.get()];
    if (copy == nullptr) {
      copy = std::make_shared<Inode>();
      copy->durable = surviving_bytes(*inode, outcome, random);
      copy->now = copy->durable;
    }
    after->disk_->now[path] = copy;
  }
  after->disk_->durable = after->disk_->now;
  after->disk_->folders = disk_->folders;
  after->disk_->capacity = disk_->capacity;
  return after;
}

std::unique_ptr<SimFileSystem> SimFileSystem::copy() const {
  auto after = std::make_unique<SimFileSystem>();
  const std::lock_guard lock(disk_->mutex);
  std::map<const Inode*, std::shared_ptr<Inode>> fresh;
  const auto copy_of = [&](const std::shared_ptr<Inode>& inode) {
    if (inode == nullptr) return std::shared_ptr<Inode>();
    auto& made = fresh[inode.get()];
    if (made == nullptr) made = std::make_shared<Inode>(*inode);
    return made;
  };
  for (const auto& [path, inode] : disk_->now) after->disk_->now[path] = copy_of(inode);
  for (const auto& [path, inode] : disk_->durable) after->disk_->durable[path] = copy_of(inode);
  for (const NameChange& change : disk_->name_changes) {
    after->disk_->name_changes.push_back(
        {change.kind, change.name, change.to, copy_of(change.inode)});
  }
  after->disk_->folders = disk_->folders;
  after->disk_->capacity = disk_->capacity;
  return after;
}

std::uint64_t SimFileSystem::calls() const {
  const std::lock_guard lock(disk_->mutex);
  return disk_->calls;
}
std::uint64_t SimFileSystem::bytes_read() const {
  const std::lock_guard lock(disk_->mutex);
  return disk_->bytes_read;
}
std::uint64_t SimFileSystem::syncs() const {
  const std::lock_guard lock(disk_->mutex);
  return disk_->syncs;
}
void SimFileSystem::fail_call(std::uint64_t index, SimFault fault) {
  const std::lock_guard lock(disk_->mutex);
  disk_->plan[index] = fault;
}
void SimFileSystem::stop_at_call(std::uint64_t index) {
  const std::lock_guard lock(disk_->mutex);
  disk_->stop_at = index;
}
void SimFileSystem::fail_next_sync() {
  const std::lock_guard lock(disk_->mutex);
  disk_->fail_next_sync = true;
}
void SimFileSystem::clear_faults() {
  const std::lock_guard lock(disk_->mutex);
  disk_->plan.clear();
  disk_->stop_at.reset();
  disk_->fail_next_sync = false;
  disk_->fault_hit = false;
}
bool SimFileSystem::fault_hit() const {
  const std::lock_guard lock(disk_->mutex);
  return disk_->fault_hit;
}
void SimFileSystem::set_capacity(std::uint64_t bytes) {
  const std::lock_guard lock(disk_->mutex);
  disk_->capacity = bytes;
}
void SimFileSystem::on_write(
    std::function<void(const std::string&, std::uint64_t, std::uint64_t)> hook) {
  disk_->hook = std::move(hook);
}

Bytes SimFileSystem::peek(const std::string& path) const {
  const std::lock_guard lock(disk_->mutex);
  const auto found = disk_->now.find(path);
  return found == disk_->now.end() ? Bytes{} : found->second->now;
}
void SimFileSystem::poke(const std::string& path, std::uint64_t offset, ByteView bytes) {
  const std::lock_guard lock(disk_->mutex);
  const auto found = disk_->now.find(path);
  if (found == disk_->now.end()) return;
  apply_write(found->second->now, offset, bytes);
  apply_write(found->second->durable, offset, bytes);
}
void SimFileSystem::plant(const std::string& path, ByteView bytes) {
  const std::lock_guard lock(disk_->mutex);
  auto inode = std::make_shared<Inode>();
  inode->now.assign(bytes.begin(), bytes.end());
  inode->durable = inode->now;
  disk_->now[path] = inode;
  disk_->durable[path] = inode;
}
void SimFileSystem::erase(const std::string& path) {
  const std::lock_guard lock(disk_->mutex);
  disk_->now.erase(path);
  disk_->durable.erase(path);
}

}  // namespace dims::test
