#include "nbdkit-ldim/journal/salvage.h"

#include <algorithm>

#include "nbdkit-ldim/journal/recovery.h"

namespace dims::ldim {
namespace {

struct Source {
  const PackedRecord* record = nullptr;
  const JournalSegment* segment = nullptr;
};

// Everything in the order in which it was written.
std::vector<Source> in_order(const RecoveredJournal& found) {
  std::vector<Source> out;
  const auto take = [&](const auto& files) {
    for (const auto& file : files) {
      for (const PackedRecord& record : file.records) {
        if (record.order > found.trimmed.order) out.push_back({&record, file.segment.get()});
      }
    }
  };
  take(found.merged);
  std::sort(out.begin(), out.end(),
            [](const Source& a, const Source& b) { return a.record->order < b.record->order; });
  take(found.segments);
  return out;
}

// The epochs' ends, oldest first. Inside a merged group there is none, and its end counts only if
// the chain gets there: what the group has overwritten later is gone.
std::vector<SealedEpoch> ends(const RecoveredJournal& found) {
  std::vector<SealedEpoch> out;
  std::uint64_t group_end = 0;
  if (!found.merged.empty()) {
    const auto& head = found.merged.back().manifest.head;
    group_end = head.horizon.epoch;
    if (head.next_order > head.horizon.order) out.push_back({group_end, head.horizon.order, {}, 0});
  }
  for (const RecoveredSegment& file : found.segments) {
    for (const SealedEpoch& seal : file.seals) {
      if (seal.epoch >= group_end) out.push_back(seal);
    }
  }
  return out;
}

Status copy(const Source& source, Journal& target, SalvageReport& report) {
  const PackedRecord& record = *source.record;
  const ByteRange range{record.offset(), record.count};
  Bytes data;
  if (record.kind() == WriteKind::kData) {
    data.resize(range.count);
    DIMS_TRY(source.segment->read(range, record.file_offset, range.offset, data));
  }
  const auto appended = target.append(record.kind(), range, data);
  if (!appended.ok()) return appended.error();
  ++report.writes;
  report.bytes += range.count;
  return ok_status();
}

Result<std::uint64_t> bytes_in(io::FileSystem& fs, const std::string& folder) {
  std::uint64_t sum = 0;
  DIMS_ASSIGN(const auto names, fs.list(folder));
  for (const std::string& name : names) {
    DIMS_ASSIGN(const auto file, fs.open(folder + "/" + name, io::OpenMode::kReadOnly));
    DIMS_ASSIGN(const std::uint64_t bytes, file->size());
    sum += bytes;
  }
  return sum;
}

}  // namespace

Result<SalvageReport> salvage_journal(io::FileSystem& fs, const JournalOptions& damaged,
                                      const JournalOptions& target, std::uint64_t committed_epoch,
                                      Clock& clock, Random& random) {
  const auto whole = examine_journal(fs, damaged, io::OpenMode::kReadOnly);
  if (whole.ok()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the journal in " + damaged.folder + " is whole: there is nothing to salvage",
                      "start LDIM on this folder as always");
  }
  if (whole.error().code != ErrorCode::kCorrupt) return whole.error();
  DIMS_ASSIGN(const RecoveredJournal found, examine_damaged_journal(fs, damaged));
  SalvageReport report;
  report.damage = whole.error().message;
  const std::vector<SealedEpoch> sealed = ends(found);
  if (sealed.empty() || sealed.back().epoch < found.trimmed.epoch) {
    return make_error(ErrorCode::kCorrupt,
                      "nothing of the journal in " + damaged.folder +
                          " can be proven: the damage lies too far in front (" + report.damage +
                          ")",
                      "keep a copy of the folder; start with a new cache folder");
  }
  report.last_epoch = sealed.back().epoch;
  if (found.synced_order > sealed.back().seal_order)
    report.lost_writes = found.synced_order - sealed.back().seal_order;
  // Nothing is sent while it is made, and it needs no more than twice what the records needed
  // there.
  JournalOptions roomy = target;
  DIMS_ASSIGN(const std::uint64_t held, bytes_in(fs, damaged.folder));
  roomy.limit_bytes = std::max(target.limit_bytes, 2 * held + 4 * target.segment_bytes);
  DIMS_ASSIGN(const auto journal, Journal::open(fs, roomy, clock, random));
  const std::vector<Source> sources = in_order(found);
  auto at = sources.begin();
  for (const SealedEpoch& end : sealed) {
    const bool wanted = end.epoch > committed_epoch;
    for (; at != sources.end() && at->record->order < end.seal_order; ++at) {
      if (wanted) DIMS_TRY(copy(*at, *journal, report));
    }
    if (!wanted) continue;
    DIMS_ASSIGN([[maybe_unused]] const CommitId flushed, journal->flush());
    ++report.epochs;
  }
  return report;
}

}  // namespace dims::ldim
