// KeyRuns: a large set of object keys in bounded memory: gathered in any order, read back ascending
// and without doubles. What does not fit goes to sorted run files, which end with the set; sixteen
// of a size become one, so a set of a thousand million keys has less than fifty files.
//
// Threads: one owner. Ownership: the file system outlives it. Memory: keys_in_memory_max keys (56
// bytes each), and 64 KiB a run while reading or merging. Errors: kIo, kNoSpace. Durable: nothing.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/format/object.h"
#include "common/io/file.h"

namespace dims::catalog {

using format::ObjectKey;

struct RunSpace {
  io::FileSystem* fs = nullptr;  // nullptr: everything stays in memory
  std::string folder;            // exists
  std::size_t keys_in_memory_max = 128 * 1024;
};

struct MarkedKey {
  ObjectKey key;
  std::uint8_t flags = 0;  // of doubles: all of them together
};

class KeyRuns {
 public:
  KeyRuns(RunSpace space, std::string name);
  ~KeyRuns();
  KeyRuns(const KeyRuns&) = delete;
  KeyRuns& operator=(const KeyRuns&) = delete;

  Status add(const ObjectKey& key, std::uint8_t flags = 0);
  bool empty() const { return added_ == 0; }
  std::uint64_t added() const { return added_; }

 private:
  friend class KeyCursor;
  struct RunFile {
    std::string path;
    unsigned merges = 0;
  };
  void sort_memory();
  Status spill();
  Status merge_newest();
  Result<std::shared_ptr<io::File>> new_run(unsigned merges);

  const RunSpace space_;
  const std::string name_;
  std::vector<MarkedKey> memory_;
  bool sorted_ = true;
  std::vector<RunFile> files_;  // the more often merged come first
  std::uint64_t files_made_ = 0;
  std::uint64_t added_ = 0;
};

// Reads several sets as one. The sets outlive it and must not grow meanwhile.
class KeyCursor {
 public:
  explicit KeyCursor(const std::vector<KeyRuns*>& sets);
  Result<std::optional<MarkedKey>> next();

 private:
  friend class KeyRuns;
  KeyCursor() = default;
  void open(io::FileSystem& fs, std::span<const KeyRuns::RunFile> files);

  struct Run {
    std::shared_ptr<io::File> file;  // nullptr: memory
    const std::vector<MarkedKey>* memory = nullptr;
    std::uint64_t at = 0;  // entry, or byte of the file
    std::vector<MarkedKey> block;
    std::size_t in_block = 0;
  };
  // nullptr: the run is at its end.
  Result<const MarkedKey*> peek(Run& run);
  Status push(std::size_t index);

  std::vector<Run> runs_;
  std::vector<std::pair<MarkedKey, std::size_t>> heap_;
  Status opened_;
  bool started_ = false;
};

}  // namespace dims::catalog
