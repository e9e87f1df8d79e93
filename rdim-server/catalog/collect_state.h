// CollectState: how far a collection has come, so that it goes on there after a restart. One row of
// the RefStore; the keys themselves are in the run files that it names (key_runs.h).
//
// Threads: values. Errors: kCorrupt, kUnsupported for a format of the future. Durable: encode() is
// the record `maintenance/collector` (docs/formats/store.md).
#pragma once

#include "rdim-server/catalog/marker.h"

namespace dims::catalog {

inline constexpr const char* kCollectStateKey = "maintenance/collector";

// The numbers are stored.
enum class CollectorPhase : std::uint8_t {
  kRoots = 0,
  kTouched = 1,
  kMark = 2,
  kFind = 3,
  kSweep = 4,
  kReclaim = 5,
  kDone = 6,
};
std::string_view name_of(CollectorPhase phase);

struct CollectState {
  RunOwner owner;
  std::uint64_t began_s = 0;
  std::uint64_t touched_before_s = 0;
  std::uint64_t grace_s = 0;
  std::uint64_t resumed = 0;  // times
  CollectorPhase phase = CollectorPhase::kTouched;
  std::optional<ObjectKey> row_after;  // of the store's rows; kTouched, kFind
  MarkPlace mark;                      // until kSweep
  std::uint8_t dead_level = 0;         // kSweep: whose keys are looked at
  std::optional<ObjectKey> dead_after;
  std::vector<std::vector<RunFile>> dead;  // of each level; kFind, kSweep
  // As figures: images, versions kept and dropped, records removed; objects, garbage, its bytes,
  // removed, spared.
  std::array<std::uint64_t, 9> figures{};
};

Bytes encode_collect_state(const CollectState& state);
Result<CollectState> decode_collect_state(ByteView bytes);

}  // namespace dims::catalog
