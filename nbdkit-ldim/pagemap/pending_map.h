// The pending map: which bytes of the guest's disk the journal holds, newest write first.
//
// An interval map over byte ranges, so that writes of any alignment need no page of the base. Bytes
// that it does not cover come from the base (cache or server).
// Threads: all methods are thread-safe; lookups run in parallel. Ownership: entries keep their
// journal segment alive. Units: bytes. Errors: none.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "nbdkit-ldim/journal/journal.h"

namespace dims::ldim {

// A piece of a record that is still the newest for its bytes.
struct PendingPiece {
  ByteRange range;  // guest bytes of this piece
  WriteKind kind = WriteKind::kData;
  std::uint64_t order = 0;
  ByteRange record_range;  // guest bytes of the whole record, for Journal::read
  JournalLocation location;
};

class PendingMap {
 public:
  PendingMap();
  ~PendingMap();
  PendingMap(const PendingMap&) = delete;
  PendingMap& operator=(const PendingMap&) = delete;

  // Enters a record. Where it overlaps entries of a higher order number, those stay.
  void insert(const JournalRecord& record);
  // The pieces that overlap `range`, clipped to it, ascending, without gaps being reported.
  std::vector<PendingPiece> lookup(ByteRange range) const;
  // Fast answer to "does anything overlap?"; exact.
  bool overlaps(ByteRange range) const;
  // Removes every piece whose order number is <= through_order (they are committed). A record of
  // such an order that is inserted later is ignored: the base holds it, or something newer.
  void remove_through(std::uint64_t through_order);
  // Pieces that still point at a record that was copied (Journal::merge) point at the copy from now
  // on; all others stay. What does not fit inside the copy stays as well.
  void repoint(const std::vector<MovedRecord>& moved);
  void clear();

  std::uint64_t pieces() const;
  std::uint64_t covered_bytes() const;
  // About what the pieces would need as journal records, if nothing else were there.
  std::uint64_t journal_bytes() const;
  // Pages touched by any piece, as ascending, merged page ranges.
  std::vector<PageRange> touched_pages() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dims::ldim
