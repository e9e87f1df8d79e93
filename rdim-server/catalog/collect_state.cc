#include "rdim-server/catalog/collect_state.h"

#include "common/base/wire.h"

namespace dims::catalog {
namespace {

constexpr std::string_view kCollectMagic = "GCS1";
constexpr std::uint32_t kCollectFormat = 1;

void put_place(Writer& w, const std::optional<ObjectKey>& after) {
  w.u8(after ? 1 : 0);
  w.id(after ? after->domain : DomainId{});
  w.id(after ? after->id : ObjectId{});
}

std::optional<ObjectKey> take_place(Reader& r) {
  const bool there = r.u8() != 0;
  ObjectKey key;
  key.domain = r.id<DomainId>();
  key.id = r.id<ObjectId>();
  return there ? std::optional<ObjectKey>(key) : std::nullopt;
}

void put_runs(Writer& w, const std::vector<std::vector<RunFile>>& sets) {
  w.u32(static_cast<std::uint32_t>(sets.size()));
  for (const auto& files : sets) {
    w.u32(static_cast<std::uint32_t>(files.size()));
    for (const RunFile& file : files) {
      w.u32(file.number);
      w.u64(file.keys);
    }
  }
}

std::vector<std::vector<RunFile>> take_runs(Reader& r) {
  std::vector<std::vector<RunFile>> sets;
  for (std::uint32_t n = r.u32(); n > 0 && r.ok(); --n) {
    auto& files = sets.emplace_back();
    for (std::uint32_t k = r.u32(); k > 0 && r.ok(); --k) {
      RunFile& file = files.emplace_back();
      file.number = r.u32();
      file.keys = r.u64();
    }
  }
  return sets;
}

}  // namespace

std::string_view name_of(CollectorPhase phase) {
  switch (phase) {
    case CollectorPhase::kRoots:
      return "roots";
    case CollectorPhase::kTouched:
      return "touched";
    case CollectorPhase::kMark:
      return "mark";
    case CollectorPhase::kFind:
      return "find";
    case CollectorPhase::kSweep:
      return "sweep";
    case CollectorPhase::kReclaim:
      return "reclaim";
    case CollectorPhase::kDone:
      return "done";
  }
  return "done";
}

Bytes encode_collect_state(const CollectState& state) {
  Bytes out;
  Writer w(out);
  w.raw(as_bytes(kCollectMagic));
  w.u32(kCollectFormat);
  w.id(state.owner);
  w.u64(state.began_s);
  w.u64(state.touched_before_s);
  w.u64(state.grace_s);
  w.u64(state.resumed);
  w.u8(static_cast<std::uint8_t>(state.phase));
  put_place(w, state.row_after);
  w.u8(state.mark.level);
  put_place(w, state.mark.after);
  w.u64(state.mark.nodes);
  put_runs(w, state.mark.runs);
  w.u8(state.dead_level);
  put_place(w, state.dead_after);
  put_runs(w, state.dead);
  for (const std::uint64_t figure : state.figures) w.u64(figure);
  return out;
}

Result<CollectState> decode_collect_state(ByteView bytes) {
  Reader r(bytes);
  const auto damaged = [](const std::string& what) {
    return make_error(ErrorCode::kCorrupt, "the state of a collection " + what);
  };
  if (as_text(r.raw(kCollectMagic.size())) != kCollectMagic) return damaged("is none");
  if (const std::uint32_t format = r.u32(); r.ok() && format != kCollectFormat) {
    return make_error(ErrorCode::kUnsupported,
                      "the state of a collection has format " + std::to_string(format));
  }
  CollectState state;
  state.owner = r.id<RunOwner>();
  state.began_s = r.u64();
  state.touched_before_s = r.u64();
  state.grace_s = r.u64();
  state.resumed = r.u64();
  const std::uint8_t phase = r.u8();
  state.row_after = take_place(r);
  state.mark.level = r.u8();
  state.mark.after = take_place(r);
  state.mark.nodes = r.u64();
  state.mark.runs = take_runs(r);
  state.dead_level = r.u8();
  state.dead_after = take_place(r);
  state.dead = take_runs(r);
  for (std::uint64_t& figure : state.figures) figure = r.u64();
  if (!r.at_end()) return damaged("is cut short or too long");
  if (phase < static_cast<std::uint8_t>(CollectorPhase::kTouched) ||
      phase > static_cast<std::uint8_t>(CollectorPhase::kSweep)) {
    return damaged("has an unknown phase");
  }
  state.phase = static_cast<CollectorPhase>(phase);
  if (state.owner.is_zero() || state.mark.level > Marker::kLevels ||
      state.dead_level > Marker::kLevels || state.dead.size() != Marker::kLevels ||
      state.mark.runs.size() != Marker::kLevels) {
    return damaged("does not fit");
  }
  return state;
}

}  // namespace dims::catalog
