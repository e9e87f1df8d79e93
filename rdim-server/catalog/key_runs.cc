#include "rdim-server/catalog/key_runs.h"

#include <algorithm>

#include "common/base/wire.h"

namespace dims::catalog {
namespace {

constexpr std::size_t kEntryBytes = DomainId::kBytes + ObjectId::kBytes + 1;
constexpr std::size_t kEntriesABlock = 64 * kKiB / kEntryBytes;

constexpr std::size_t kRunsMerged = 16;

// Entries in order, to a file.
class RunWriter {
 public:
  explicit RunWriter(io::File& file) : file_(file) {}
  Status add(const MarkedKey& entry) {
    Writer w(block_);
    w.id(entry.key.domain);
    w.id(entry.key.id);
    w.u8(entry.flags);
    return block_.size() < kMiB ? ok_status() : end();
  }
  Status end() {
    DIMS_TRY(file_.write_at(at_, block_));
    at_ += block_.size();
    block_.clear();
    return ok_status();
  }

 private:
  io::File& file_;
  Bytes block_;
  std::uint64_t at_ = 0;
};

bool key_less(const MarkedKey& a, const MarkedKey& b) { return a.key < b.key; }
bool later(const std::pair<MarkedKey, std::size_t>& a, const std::pair<MarkedKey, std::size_t>& b) {
  return b.first.key < a.first.key;
}

}  // namespace

KeyRuns::KeyRuns(RunSpace space, std::string name)
    : space_(std::move(space)), name_(std::move(name)) {}

KeyRuns::~KeyRuns() {
  for (const RunFile& file : files_) (void)space_.fs->remove(file.path);
}

Status KeyRuns::add(const ObjectKey& key, std::uint8_t flags) {
  ++added_;
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

Result<std::shared_ptr<io::File>> KeyRuns::new_run(unsigned merges) {
  const std::string path = space_.folder + "/" + name_ + "." + std::to_string(files_made_++);
  DIMS_ASSIGN(std::shared_ptr<io::File> file, space_.fs->open(path, io::OpenMode::kCreate));
  files_.push_back({path, merges});
  DIMS_TRY(file->truncate(0));
  return file;
}

Status KeyRuns::spill() {
  {
    DIMS_ASSIGN(const auto file, new_run(0));
    RunWriter writer(*file);
    for (const MarkedKey& entry : memory_) DIMS_TRY(writer.add(entry));
    DIMS_TRY(writer.end());
  }
  memory_.clear();
  const auto newest_alike = [this] {
    return files_.size() >= kRunsMerged &&
           files_[files_.size() - kRunsMerged].merges == files_.back().merges;
  };
  while (newest_alike()) DIMS_TRY(merge_newest());
  return ok_status();
}

Status KeyRuns::merge_newest() {
  const std::size_t first = files_.size() - kRunsMerged;
  KeyCursor cursor;
  cursor.open(*space_.fs, std::span(files_).subspan(first));
  DIMS_ASSIGN(const auto file, new_run(files_.back().merges + 1));
  RunWriter writer(*file);
  for (;;) {
    DIMS_ASSIGN(const auto entry, cursor.next());
    if (!entry) break;
    DIMS_TRY(writer.add(*entry));
  }
  DIMS_TRY(writer.end());
  for (std::size_t i = 0; i < kRunsMerged; ++i) DIMS_TRY(space_.fs->remove(files_[first + i].path));
  const auto begin = files_.begin() + static_cast<std::ptrdiff_t>(first);
  files_.erase(begin, begin + kRunsMerged);
  return ok_status();
}

KeyCursor::KeyCursor(const std::vector<KeyRuns*>& sets) {
  for (KeyRuns* const set : sets) {
    set->sort_memory();
    if (!set->memory_.empty()) {
      Run run;
      run.memory = &set->memory_;
      runs_.push_back(std::move(run));
    }
    if (!set->files_.empty()) open(*set->space_.fs, set->files_);
  }
}

void KeyCursor::open(io::FileSystem& fs, std::span<const KeyRuns::RunFile> files) {
  for (const KeyRuns::RunFile& one : files) {
    auto file = fs.open(one.path, io::OpenMode::kReadOnly);
    if (!file.ok()) {
      opened_ = file.error();
      return;
    }
    Run run;
    run.file = std::move(*file);
    runs_.push_back(std::move(run));
  }
}

Result<const MarkedKey*> KeyCursor::peek(Run& run) {
  const MarkedKey* const none = nullptr;
  if (run.memory != nullptr) {
    return run.at < run.memory->size() ? &(*run.memory)[run.at] : none;
  }
  if (run.in_block < run.block.size()) return &run.block[run.in_block];
  Bytes raw(kEntriesABlock * kEntryBytes);
  DIMS_ASSIGN(const std::size_t count, run.file->read_some(run.at, raw));
  if (count % kEntryBytes != 0) {
    return make_error(ErrorCode::kIo, "a run file is cut short: " + run.file->path());
  }
  run.at += count;
  run.block.clear();
  run.in_block = 0;
  Reader r(ByteView(raw).first(count));
  while (r.remaining() != 0) {
    MarkedKey& entry = run.block.emplace_back();
    entry.key.domain = r.id<DomainId>();
    entry.key.id = r.id<ObjectId>();
    entry.flags = r.u8();
  }
  return run.block.empty() ? none : run.block.data();
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
    if (run.memory != nullptr) {
      ++run.at;
    } else {
      ++run.in_block;
    }
    DIMS_TRY(push(index));
  }
  return out;
}

}  // namespace dims::catalog
