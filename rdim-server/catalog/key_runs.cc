#include "rdim-server/catalog/key_runs.h"

#include <algorithm>

#include "common/base/wire.h"

namespace dims::catalog {
namespace {

constexpr std::size_t kEntryBytes = DomainId::kBytes + ObjectId::kBytes + 1;
constexpr std::size_t kRunHeadBytes = 16 + 4;
constexpr std::size_t kEntriesABlock = (64 * kKiB - kRunHeadBytes) / kEntryBytes;
constexpr std::size_t kBlockBytes = kRunHeadBytes + kEntriesABlock * kEntryBytes;

bool key_less(const MarkedKey& a, const MarkedKey& b) { return a.key < b.key; }
bool later(const std::pair<MarkedKey, std::size_t>& a, const std::pair<MarkedKey, std::size_t>& b) {
  return b.first.key < a.first.key;
}

Error not_as_written(const std::string& path) {
  return make_error(ErrorCode::kCorrupt, "a run file is not what was written: " + path);
}

Bytes digest_of(const RunOwner& owner, const std::string& name, std::uint32_t number,
                std::uint64_t block, ByteView rest) {
  Bytes place;
  Writer w(place);
  w.string(as_bytes("dims run 1"));
  w.id(owner);
  w.string(as_bytes(name));
  w.u32(number);
  w.u64(block);
  const Digest digest = crypto::sha256({place, rest});
  return Bytes(digest.bytes.begin(), digest.bytes.begin() + 16);
}

// Writes one run file, ascending.
class RunWriter {
 public:
  RunWriter(std::shared_ptr<io::File> file, const RunOwner& owner, const std::string& name,
            std::uint32_t number)
      : file_(std::move(file)), owner_(owner), name_(name), number_(number) {}

  Status put(const MarkedKey& entry) {
    block_.push_back(entry);
    return block_.size() == kEntriesABlock ? write() : ok_status();
  }
  Status end(bool sync) {
    if (!block_.empty()) DIMS_TRY(write());
    return sync ? file_->sync_data() : ok_status();
  }
  std::uint64_t keys() const { return keys_; }

 private:
  Status write() {
    Bytes rest;
    rest.reserve(kBlockBytes);
    Writer w(rest);
    w.u32(static_cast<std::uint32_t>(block_.size()));
    for (const MarkedKey& entry : block_) {
      w.id(entry.key.domain);
      w.id(entry.key.id);
      w.u8(entry.flags);
    }
    const Bytes digest = digest_of(owner_, name_, number_, blocks_, rest);
    const std::vector<ByteView> parts{digest, rest};
    DIMS_TRY(file_->write_gather(blocks_ * kBlockBytes, parts));
    keys_ += block_.size();
    ++blocks_;
    block_.clear();
    return ok_status();
  }

  const std::shared_ptr<io::File> file_;
  const RunOwner owner_;
  const std::string& name_;
  const std::uint32_t number_;
  std::vector<MarkedKey> block_;
  std::uint64_t blocks_ = 0, keys_ = 0;
};

std::uint64_t blocks_of(const RunFile& file) {
  return (file.keys + kEntriesABlock - 1) / kEntriesABlock;
}
std::uint64_t bytes_of(const RunFile& file) {
  return blocks_of(file) * kRunHeadBytes + file.keys * kEntryBytes;
}

}  // namespace

KeyRuns::KeyRuns(RunSpace space, std::string name)
    : space_(std::move(space)), name_(std::move(name)) {}

KeyRuns::~KeyRuns() {
  if (space_.lasting()) return;
  for (const std::string& path : paths()) (void)space_.fs->remove(path);
}

std::string KeyRuns::path_of(const RunFile& file) const {
  return space_.folder + "/" + (space_.lasting() ? kLastingPrefix : "") + name_ + "." +
         std::to_string(file.number);
}

std::vector<std::string> KeyRuns::paths() const {
  std::vector<std::string> out;
  for (const RunFile& file : files_) out.push_back(path_of(file));
  return out;
}

Status KeyRuns::add(const ObjectKey& key, std::uint8_t flags) {
  if (sorted_ && !memory_.empty() && !(memory_.back().key < key)) sorted_ = false;
  memory_.push_back({key, flags});
  if (memory_.size() < space_.keys_in_memory_max) return ok_status();
  sort_memory();
  // Doubles gone, it may fit again.
  if (space_.fs == nullptr || memory_.size() < space_.keys_in_memory_max / 2) return ok_status();
  return spill();
}

void KeyRuns::sort_memory() {
  if (sorted_) return;
  std::stable_sort(memory_.begin(), memory_.end(), key_less);
  std::size_t kept = 0;
  for (std::size_t i = 1; i < memory_.size(); ++i) {
    if (memory_[i].key == memory_[kept].key) {
      memory_[kept].flags |= memory_[i].flags;
    } else {
      memory_[++kept] = memory_[i];
    }
  }
  memory_.resize(memory_.empty() ? 0 : kept + 1);
  sorted_ = true;
}

Status KeyRuns::spill() {
  RunFile run{next_number_++, 0};
  const std::string path = path_of(run);
  const auto written = [&]() -> Status {
    DIMS_ASSIGN(const auto file, space_.fs->open(path, io::OpenMode::kCreate));
    DIMS_TRY(file->truncate(0));
    RunWriter writer(file, space_.owner, name_, run.number);
    for (const MarkedKey& entry : memory_) DIMS_TRY(writer.put(entry));
    DIMS_TRY(writer.end(space_.lasting()));
    run.keys = writer.keys();
    return ok_status();
  }();
  if (!written.ok()) {
    (void)space_.fs->remove(path);
    return written;
  }
  files_.push_back(run);
  memory_.clear();
  sorted_ = true;
  return files_.size() > space_.files_max ? merge() : ok_status();
}

// Every run that is read takes an open file and a block of memory. Those that were merged stay on
// the disk if the set is lasting: what was saved last names them.
Status KeyRuns::merge() {
  RunFile run{next_number_++, 0};
  const std::string path = path_of(run);
  const auto merged = [&]() -> Status {
    DIMS_ASSIGN(const auto file, space_.fs->open(path, io::OpenMode::kCreate));
    DIMS_TRY(file->truncate(0));
    RunWriter writer(file, space_.owner, name_, run.number);
    KeyCursor cursor({this});
    for (;;) {
      DIMS_ASSIGN(const auto entry, cursor.next());
      if (!entry) break;
      DIMS_TRY(writer.put(*entry));
    }
    DIMS_TRY(writer.end(space_.lasting()));
    run.keys = writer.keys();
    return ok_status();
  }();
  if (!merged.ok()) {
    (void)space_.fs->remove(path);
    return merged;
  }
  if (!space_.lasting()) {
    for (const std::string& old : paths()) (void)space_.fs->remove(old);
  }
  files_ = {run};
  return ok_status();
}

Status KeyRuns::save() {
  if (memory_.empty()) return ok_status();
  sort_memory();
  return spill();
}

Status KeyRuns::restore(const std::vector<RunFile>& files) {
  for (const RunFile& run : files) {
    DIMS_ASSIGN(const auto file, space_.fs->open(path_of(run), io::OpenMode::kReadOnly));
    DIMS_ASSIGN(const std::uint64_t bytes, file->size());
    if (bytes != bytes_of(run)) return not_as_written(path_of(run));
    next_number_ = std::max(next_number_, run.number + 1);
  }
  files_ = files;
  return ok_status();
}

KeyCursor::KeyCursor(const std::vector<KeyRuns*>& sets, const std::optional<ObjectKey>& after) {
  for (KeyRuns* const set : sets) {
    set->sort_memory();
    if (!set->memory_.empty()) {
      Run run;
      run.set = set;
      if (after) {
        const auto begin = std::upper_bound(set->memory_.begin(), set->memory_.end(),
                                            MarkedKey{*after, 0}, key_less);
        run.at = static_cast<std::uint64_t>(begin - set->memory_.begin());
      }
      runs_.push_back(std::move(run));
    }
    for (const RunFile& file : set->files_) {
      if (opened_.ok()) opened_ = open(*set, file, after);
    }
  }
}

Status KeyCursor::open(const KeyRuns& set, const RunFile& file,
                       const std::optional<ObjectKey>& after) {
  Run run;
  DIMS_ASSIGN(run.file, set.space_.fs->open(set.path_of(file), io::OpenMode::kReadOnly));
  run.set = &set;
  run.what = file;
  if (after && blocks_of(file) != 0) {
    // The last block that does not begin behind it.
    std::uint64_t low = 0, high = blocks_of(file);
    while (high - low > 1) {
      const std::uint64_t middle = low + (high - low) / 2;
      DIMS_TRY(read_block(run, middle));
      (*after < run.block.front().key ? high : low) = middle;
    }
    DIMS_TRY(read_block(run, low));
    const auto begin =
        std::upper_bound(run.block.begin(), run.block.end(), MarkedKey{*after, 0}, key_less);
    run.in_block = static_cast<std::size_t>(begin - run.block.begin());
  }
  runs_.push_back(std::move(run));
  return ok_status();
}

Status KeyCursor::read_block(Run& run, std::uint64_t block) {
  const std::uint64_t before = block * kEntriesABlock;
  const std::size_t count = std::min<std::uint64_t>(kEntriesABlock, run.what.keys - before);
  Bytes raw(kRunHeadBytes + count * kEntryBytes);
  DIMS_TRY(run.file->read_at(block * kBlockBytes, raw));
  const ByteView rest = ByteView(raw).subspan(16);
  const Bytes digest =
      digest_of(run.set->space_.owner, run.set->name_, run.what.number, block, rest);
  Reader r(rest);
  if (!std::equal(digest.begin(), digest.end(), raw.begin()) || r.u32() != count) {
    return not_as_written(run.file->path());
  }
  run.block.clear();
  run.block.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    MarkedKey& entry = run.block.emplace_back();
    entry.key.domain = r.id<DomainId>();
    entry.key.id = r.id<ObjectId>();
    entry.flags = r.u8();
  }
  run.at = block + 1;
  run.in_block = 0;
  return ok_status();
}

Result<const MarkedKey*> KeyCursor::peek(Run& run) {
  const MarkedKey* const none = nullptr;
  if (!run.file) {
    const auto& memory = run.set->memory_;
    return run.at < memory.size() ? &memory[run.at] : none;
  }
  if (run.in_block == run.block.size()) {
    if (run.at == blocks_of(run.what)) return none;
    DIMS_TRY(read_block(run, run.at));
  }
  return &run.block[run.in_block];
}

Status KeyCursor::push(std::size_t index) {
  DIMS_ASSIGN(const MarkedKey* const entry, peek(runs_[index]));
  if (entry == nullptr) return ok_status();
  heap_.emplace_back(*entry, index);
  std::push_heap(heap_.begin(), heap_.end(), later);
  return ok_status();
}

Result<std::optional<MarkedKey>> KeyCursor::next() {
  DIMS_TRY(opened_);
  if (!started_) {
    started_ = true;
    for (std::size_t i = 0; i < runs_.size(); ++i) DIMS_TRY(push(i));
  }
  std::optional<MarkedKey> out;
  while (!heap_.empty() && (!out || heap_.front().first.key == out->key)) {
    const auto [entry, index] = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
    if (out) {
      out->flags |= entry.flags;
    } else {
      out = entry;
    }
    Run& run = runs_[index];
    if (!run.file) {
      ++run.at;
    } else {
      ++run.in_block;
    }
    DIMS_TRY(push(index));
  }
  return out;
}

Status tidy_runs(const RunSpace& space, const std::vector<std::string>* keep) {
  if (space.fs == nullptr) return ok_status();
  DIMS_ASSIGN(const std::vector<std::string> names, space.fs->list(space.folder));
  for (const std::string& name : names) {
    const std::string path = space.folder + "/" + name;
    const bool lasting = name.starts_with(kLastingPrefix);
    const bool needed =
        keep == nullptr ? lasting
                        : !lasting || std::find(keep->begin(), keep->end(), path) != keep->end();
    if (!needed) DIMS_TRY(space.fs->remove(path));
  }
  return ok_status();
}

}  // namespace dims::catalog
