#include "rdim-server/catalog/key_runs.h"

#include <algorithm>

#include "common/base/wire.h"

namespace dims::catalog {
namespace {

constexpr std::size_t kEntryBytes = DomainId::kBytes + ObjectId::kBytes + 1;
constexpr std::size_t kEntriesABlock = 64 * kKiB / kEntryBytes;

bool key_less(const MarkedKey& a, const MarkedKey& b) { return a.key < b.key; }
bool later(const std::pair<MarkedKey, std::size_t>& a, const std::pair<MarkedKey, std::size_t>& b) {
  return b.first.key < a.first.key;
}

}  // namespace

KeyRuns::KeyRuns(RunSpace space, std::string name)
    : space_(std::move(space)), name_(std::move(name)) {}

KeyRuns::~KeyRuns() {
  for (const std::string& file : files_) (void)space_.fs->remove(file);
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

Status KeyRuns::spill() {
  const std::string path = space_.folder + "/" + name_ + "." + std::to_string(files_.size());
  DIMS_ASSIGN(const auto file, space_.fs->open(path, io::OpenMode::kCreate));
  files_.push_back(path);
  DIMS_TRY(file->truncate(0));
  Bytes block;
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    Writer w(block);
    w.id(memory_[i].key.domain);
    w.id(memory_[i].key.id);
    w.u8(memory_[i].flags);
    if (block.size() < kMiB && i + 1 < memory_.size()) continue;
    DIMS_TRY(file->write_at(at, block));
    at += block.size();
    block.clear();
  }
  memory_.clear();
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
    for (const std::string& path : set->files_) {
      auto file = set->space_.fs->open(path, io::OpenMode::kReadOnly);
      if (!file.ok()) {
        opened_ = file.error();
        return;
      }
      Run run;
      run.file = std::move(*file);
      runs_.push_back(std::move(run));
    }
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
