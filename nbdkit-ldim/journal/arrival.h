// WriteArrival: when a write came, kept while it waits. A write may wait for long: for room, for a
// new file, for the end of a quiesce. Its client may have gone meanwhile and come back, and what
// that has written since must stay. So a write that has waited counts as having happened when it
// came: where a write that came later was placed first, it is not placed any more.
//
// Threads: its owner's; the journal changes it under its own lock. Ownership: the request's; must
// not outlive the journal. Units: bytes of the guest's disk. Errors: none.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/units.h"

namespace dims::ldim {

enum class WriteKind : std::uint8_t;
class JournalImpl;
class JournalSegment;
struct JournalRecord;

class WriteArrival {
 public:
  WriteArrival() = default;
  ~WriteArrival();
  WriteArrival(const WriteArrival&) = delete;
  WriteArrival& operator=(const WriteArrival&) = delete;

  // Once append() has returned ok: the later writes that stand where this one was not placed. Their
  // own threads may not have entered them into the page map yet, so this one does.
  std::vector<JournalRecord> covers() const;

 private:
  friend class JournalImpl;
  // A later write, placed first. Weak: a request that waits for room must not hold a file. Whoever
  // placed it holds the file until he has entered it into the page map.
  struct Cover {
    std::uint64_t order = 0;
    std::uint64_t epoch = 0;
    WriteKind kind{};
    ByteRange range;
    std::weak_ptr<JournalSegment> segment;
    std::uint64_t file_offset = 0;
  };
  void cover_with(const Cover& later);

  JournalImpl* journal_ = nullptr;  // null: it has not waited
  std::uint64_t number_ = 0;
  std::uint64_t at_ = 0;         // where the write begins
  std::vector<ByteRange> left_;  // what nothing later covers, ascending
  std::vector<Cover> covers_;
};

}  // namespace dims::ldim
