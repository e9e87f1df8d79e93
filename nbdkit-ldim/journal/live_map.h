// Which bytes of a list of records are still the newest: what merging has to keep.
//
// Threads: free function. Units: guest bytes. Errors: none. Cost: n log n of the records.
#pragma once

#include <cstdint>
#include <vector>

#include "nbdkit-ldim/journal/recovery.h"

namespace dims::ldim {

struct LivePiece {
  std::uint32_t record = 0;  // index into the list
  ByteRange range;
};

// Ascending by record, then by offset. `records` ascends by order: the later one wins.
std::vector<LivePiece> live_pieces(const std::vector<PackedRecord>& records);

}  // namespace dims::ldim
