// KeyRuns: a large set of object keys in bounded memory: gathered in any order, read back ascending
// and without doubles. What does not fit goes to sorted run files. They end with the set, unless
// it is lasting: then they stay for a process that goes on with it (collect_state.h).
//
// Threads: one owner. Ownership: the file system outlives it. Memory: keys_in_memory_max keys (56
// bytes each), and 64 KiB a run while reading. Errors: kIo, kNoSpace (nothing is lost: the keys
// stay in memory), kCorrupt for a run file that is not what was written. Durable: what save()
// covered.
//
// A run file is blocks of 64 KiB at most: digest (16), count (4), count times domain (16), id (32),
// flags (1). The digest binds the block to its place: owner, name and number of the file, number of
// the block. No key may be missing where a sweep asks who is not marked.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/format/object.h"
#include "common/io/file.h"

namespace dims::catalog {

using format::ObjectKey;
using RunOwner = Id<struct RunOwnerTag, 16>;

struct RunSpace {
  io::FileSystem* fs = nullptr;  // nullptr: everything stays in memory
  std::string folder;            // exists
  std::size_t keys_in_memory_max = 128 * 1024;
  // Of a lasting set: whose it is, for ever. Zero: the files end with the set.
  RunOwner owner;
  std::size_t files_max = 32;  // of one set; more become one

  bool lasting() const { return !owner.is_zero(); }
};

struct MarkedKey {
  ObjectKey key;
  std::uint8_t flags = 0;  // of doubles: all of them together
};

struct RunFile {
  std::uint32_t number = 0;
  std::uint64_t keys = 0;
  friend bool operator==(const RunFile&, const RunFile&) = default;
};

class KeyRuns {
 public:
  KeyRuns(RunSpace space, std::string name);
  ~KeyRuns();
  KeyRuns(const KeyRuns&) = delete;
  KeyRuns& operator=(const KeyRuns&) = delete;

  Status add(const ObjectKey& key, std::uint8_t flags = 0);
  bool empty() const { return memory_.empty() && files_.empty(); }

  // Of a lasting set, no cursor being open: what is in memory goes to a file too, and all of them
  // are durable on return once their folder is synced.
  Status save();
  const std::vector<RunFile>& files() const { return files_; }
  std::vector<std::string> paths() const;
  // Of a set that is new: goes on with what save() left. kNotFound, kCorrupt.
  Status restore(const std::vector<RunFile>& files);

 private:
  friend class KeyCursor;
  std::string path_of(const RunFile& file) const;
  void sort_memory();
  Status spill();
  Status merge();

  const RunSpace space_;
  const std::string name_;
  std::vector<MarkedKey> memory_;
  bool sorted_ = true;
  std::vector<RunFile> files_;
  std::uint32_t next_number_ = 0;
};

// Reads several sets as one. The sets outlive it and must not change meanwhile.
class KeyCursor {
 public:
  // Begins behind `after`.
  explicit KeyCursor(const std::vector<KeyRuns*>& sets,
                     const std::optional<ObjectKey>& after = std::nullopt);
  Result<std::optional<MarkedKey>> next();

 private:
  struct Run {
    std::shared_ptr<io::File> file;  // nullptr: memory
    const KeyRuns* set = nullptr;
    RunFile what;
    std::uint64_t at = 0;  // entry of the memory, or block of the file
    std::vector<MarkedKey> block;
    std::size_t in_block = 0;
  };
  Status open(const KeyRuns& set, const RunFile& file, const std::optional<ObjectKey>& after);
  Status read_block(Run& run, std::uint64_t block);
  // nullptr: the run is at its end.
  Result<const MarkedKey*> peek(Run& run);
  Status push(std::size_t index);

  std::vector<Run> runs_;
  std::vector<std::pair<MarkedKey, std::size_t>> heap_;
  Status opened_;
  bool started_ = false;
};

// The names of lasting sets' run files begin so.
inline constexpr const char* kLastingPrefix = "lasting-";
// Removes from the folder those of lasting sets that `keep` (paths) does not name; without it, all
// others: what a crash left.
Status tidy_runs(const RunSpace& space, const std::vector<std::string>* keep = nullptr);

}  // namespace dims::catalog
