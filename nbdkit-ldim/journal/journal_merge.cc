// Merging: the oldest log files, and merged files with much garbage, are replaced by one new merged
// file at a time. What the step writes is what is still the newest of its bytes at the horizon, a
// synced epoch; what it leaves out was overwritten by a record up to there, and up to there no
// state but the horizon's is ever offered again.
#include <algorithm>
#include <unordered_map>

#include "nbdkit-ldim/journal/journal_impl.h"
#include "nbdkit-ldim/journal/live_map.h"
#include "nbdkit-ldim/journal/merged_file.h"

namespace dims::ldim {

using namespace journal_format;

namespace {

constexpr std::size_t kCopyStep = 16384;  // records copied under one lock
// Ids of epochs that may have reached the server; far more than commits whose reply can be lost.
constexpr std::size_t kMaxIds = 16384;

struct CopyPiece {
  std::uint32_t record = 0;  // index into the plan's records
  ByteRange range;
  std::uint64_t bytes = 0;  // as a record
};

std::uint64_t bytes_of(const PackedRecord& record, ByteRange range) {
  return record_bytes(static_cast<RecordType>(record.kind()), range.offset, range.count);
}

// Worth the copying; the new file has its fixed cost too, but is no larger than it must be.
bool worth_it(std::uint64_t bytes, std::uint64_t live, bool urgent) {
  return bytes > live && bytes - live > kRecordsStart + bytes / (urgent ? 32 : 4);
}

// What is alive, as records to write. Where the pieces of a record would need more room than the
// record, the record stays whole: its dead bytes are overwritten by newer orders all the same.
std::vector<CopyPiece> pieces_to_keep(const std::vector<PackedRecord>& records) {
  const std::vector<LivePiece> live = live_pieces(records);
  std::vector<CopyPiece> out;
  for (std::size_t i = 0; i < live.size();) {
    const PackedRecord& record = records[live[i].record];
    const ByteRange whole{record.offset(), record.count};
    const std::uint64_t whole_bytes = bytes_of(record, whole);
    const std::size_t first = out.size();
    std::uint64_t sum = 0;
    const std::uint32_t index = live[i].record;
    for (; i < live.size() && live[i].record == index; ++i) {
      const std::uint64_t bytes = bytes_of(record, live[i].range);
      out.push_back({index, live[i].range, bytes});
      sum += bytes;
    }
    if (sum >= whole_bytes) {
      out.resize(first);
      out.push_back({index, whole, whole_bytes});
    }
  }
  return out;
}

}  // namespace

struct JournalImpl::MergeVictim {
  std::shared_ptr<JournalSegment> segment;
  bool log = false;
  std::uint64_t bytes = 0;
  std::uint64_t live = 0;
  std::vector<CopyPiece> pieces;  // ascending
};

struct JournalImpl::MergePlan {
  TrimState horizon;
  std::uint64_t trimmed_epoch = 0;  // a trim meanwhile ends the plan
  std::vector<PackedRecord> records;
  std::vector<MergeVictim> victims;  // log files first, oldest first
};

struct JournalImpl::MergeStep {
  std::size_t first = 0;  // of plan.victims
  std::size_t last = 0;   // behind it
};

HeldCommit JournalImpl::hold() {
  const Lock lock(mutex_);
  const auto entry = holds_.insert(synced_.epoch);
  return {synced_, std::shared_ptr<void>(nullptr, [this, entry](void*) {
            const Lock release(mutex_);
            holds_.erase(entry);
          })};
}

void JournalImpl::offer(std::uint64_t epoch) {
  const Lock lock(mutex_);
  if (epoch > trimmed_.epoch) offered_.insert(epoch);
}

std::vector<std::string> JournalImpl::drop_merged() {
  std::vector<std::string> paths;
  if (merged_.files.empty() || merged_.head.horizon.epoch > trimmed_.epoch) return paths;
  for (const Merged::File& file : merged_.files) {
    paths.push_back(file.segment->file().path());
    bytes_held_ -= file.end;
  }
  merged_ = Merged{};
  return paths;
}

Result<JournalImpl::MergePlan> JournalImpl::plan_merge(bool urgent) {
  MergePlan plan;
  std::vector<MergeVictim> candidates;
  {
    const Lock lock(mutex_);
    if (failed_) return latched();
    plan.trimmed_epoch = trimmed_.epoch;
    std::uint64_t limit = synced_.epoch;
    if (!holds_.empty()) limit = std::min(limit, *holds_.begin());
    const SealedEpoch* const epoch = sealed(limit);
    if (epoch != nullptr) {
      plan.horizon = {epoch->epoch, epoch->seal_order, epoch->digest};
    } else if (!merged_.files.empty()) {
      plan.horizon = merged_.head.horizon;
    } else {
      return plan;
    }
    for (std::size_t i = 0; i + 1 < segments_.size(); ++i) {
      const SegmentState& state = segments_[i];
      if (state.last_order > plan.horizon.order || segments_[i + 1].first_order > synced_order_)
        break;
      candidates.push_back({state.segment, true, state.bytes, 0, {}});
    }
    for (const Merged::File& file : merged_.files)
      candidates.push_back({file.segment, false, file.end, 0, {}});
  }
  // The lists only grow at their ends meanwhile: trims and merges are kept out.
  const auto copy = [&](const std::deque<PackedRecord>& from) {
    for (std::size_t i = 0;;) {
      const Lock lock(mutex_);
      const std::size_t stop = std::min(from.size(), i + kCopyStep);
      for (; i < stop && from[i].order <= plan.horizon.order; ++i) plan.records.push_back(from[i]);
      if (i < stop || stop == from.size()) return;
    }
  };
  copy(merged_.records);
  copy(records_);

  std::unordered_map<std::uint64_t, MergeVictim*> by_number;
  for (MergeVictim& victim : candidates) by_number[victim.segment->number()] = &victim;
  for (const CopyPiece& piece : pieces_to_keep(plan.records)) {
    const auto found = by_number.find(plan.records[piece.record].segment);
    if (found == by_number.end()) continue;
    found->second->live += piece.bytes;
    found->second->pieces.push_back(piece);
  }
  // Log files leave from the oldest on; those behind the last one that is worth it may stay.
  std::size_t logs = 0;
  for (std::size_t i = 0; i < candidates.size() && candidates[i].log; ++i) {
    if (worth_it(candidates[i].bytes, candidates[i].live, urgent)) logs = i + 1;
  }
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const bool chosen =
        candidates[i].log ? i < logs : worth_it(candidates[i].bytes, candidates[i].live, urgent);
    if (chosen) plan.victims.push_back(std::move(candidates[i]));
  }
  // Merged files may leave in any order: those with the most garbage first.
  const auto merged = std::find_if(plan.victims.begin(), plan.victims.end(),
                                   [](const MergeVictim& victim) { return !victim.log; });
  std::stable_sort(merged, plan.victims.end(), [](const MergeVictim& a, const MergeVictim& b) {
    return a.bytes - a.live > b.bytes - b.live;
  });
  return plan;
}

Result<MergedFile> JournalImpl::write_merged(const MergePlan& plan, const MergeStep& step,
                                             const Manifest& manifest,
                                             std::vector<MovedRecord>& moved) {
  // Together with its segment, for the records' places.
  std::vector<std::pair<CopyPiece, const MergeVictim*>> pieces;
  std::uint64_t bytes = kRecordsStart + kMergedBytes +
                        manifest_record_bytes(manifest.members.size(), manifest.ids.size());
  for (std::size_t i = step.first; i < step.last; ++i) {
    for (const CopyPiece& piece : plan.victims[i].pieces)
      pieces.emplace_back(piece, &plan.victims[i]);
    bytes += plan.victims[i].live;
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const auto& a, const auto& b) { return a.first.record < b.first.record; });
  std::shared_ptr<JournalSegment> segment;
  {
    Lock lock(mutex_);
    spare_cv_.wait(lock, [&] { return !creating_ || failed_.has_value(); });
    if (failed_) return latched();
    creating_ = true;
    const std::uint64_t number = next_number_++;
    const std::uint64_t synced_order = synced_order_;
    lock.unlock();
    auto made = JournalSegment::create(fs_, options_.folder, number, bytes, synced_order, identity_,
                                       options_.key, random_);
    lock.lock();
    creating_ = false;
    spare_cv_.notify_all();
    if (!made.ok()) return made.error();
    segment = std::move(made).value();
  }
  const auto fill = [&]() -> Result<MergedFile> {
    MergedWriter writer(segment);
    DIMS_TRY(writer.begin(plan.horizon));
    Bytes text;
    for (const auto& [piece, victim] : pieces) {
      const PackedRecord& record = plan.records[piece.record];
      const ByteRange whole{record.offset(), record.count};
      text.resize(record.kind() == WriteKind::kData ? piece.range.count : 0);
      if (!text.empty())
        DIMS_TRY(victim->segment->read(whole, record.file_offset, piece.range.offset, text));
      DIMS_ASSIGN(const std::uint64_t at,
                  writer.add(record.kind(), piece.range, record.order, text));
      MovedRecord one;
      one.record = {record.order, plan.horizon.epoch, record.kind(), piece.range, {segment, at}};
      one.old_location = {victim->segment, record.file_offset};
      one.old_range = whole;
      moved.push_back(std::move(one));
    }
    return writer.finish(manifest);
  };
  auto filled = fill();
  // A leftover is harmless: without a manifest it is garbage, with one it says the truth.
  if (!filled.ok()) (void)fs_.remove(segment->file().path());
  return filled;
}

std::vector<std::string> JournalImpl::switch_to(const MergePlan& plan, const MergeStep& step,
                                                MergedFile&& file) {
  const auto leaves = [&](std::uint64_t number) {
    for (std::size_t i = step.first; i < step.last; ++i) {
      if (plan.victims[i].segment->number() == number) return true;
    }
    return false;
  };
  // Only trims and merges change this list, and they are kept out.
  std::vector<PackedRecord> kept;
  for (const PackedRecord& record : merged_.records) {
    if (!leaves(record.segment)) kept.push_back(record);
  }
  std::deque<PackedRecord> records;
  std::merge(kept.begin(), kept.end(), file.records.begin(), file.records.end(),
             std::back_inserter(records),
             [](const PackedRecord& a, const PackedRecord& b) { return a.order < b.order; });

  std::vector<std::string> gone;
  for (std::size_t i = step.first; i < step.last; ++i)
    gone.push_back(plan.victims[i].segment->file().path());
  const Lock lock(mutex_);
  while (leaves(segments_.front().segment->number())) {
    bytes_held_ -= segments_.front().bytes;
    segments_.pop_front();
  }
  while (!records_.empty() && records_.front().order < file.manifest.head.next_order)
    records_.pop_front();
  std::erase_if(merged_.files, [&](const Merged::File& old) {
    if (!leaves(old.segment->number())) return false;
    bytes_held_ -= old.end;
    return true;
  });
  bytes_held_ += file.end;
  merged_.files.push_back({std::move(file.segment), file.end, file.chain});
  merged_.head = file.manifest.head;
  merged_.ids = std::move(file.manifest.ids);
  merged_.records.swap(records);
  while (epochs_.front().epoch < plan.horizon.epoch) epochs_.pop_front();
  offered_.erase(offered_.begin(), offered_.lower_bound(plan.horizon.epoch));
  ++merges_;
  return gone;
}

Status JournalImpl::run_merge_step(const MergePlan& plan, const MergeStep& step,
                                   MergeReport& report, std::vector<MovedRecord>& moved) {
  Manifest manifest;
  manifest.head = merged_.head;
  manifest.head.horizon = plan.horizon;
  std::uint64_t before = 0;
  {
    const Lock lock(mutex_);
    manifest.head.trim = trimmed_;
    for (const Merged::File& file : merged_.files) {
      const bool leaves =
          std::any_of(plan.victims.begin() + static_cast<std::ptrdiff_t>(step.first),
                      plan.victims.begin() + static_cast<std::ptrdiff_t>(step.last),
                      [&](const MergeVictim& victim) { return victim.segment == file.segment; });
      if (!leaves) manifest.members.push_back({file.segment->number(), file.end, file.chain});
    }
    std::size_t logs = 0;
    for (std::size_t i = step.first; i < step.last; ++i) {
      logs += plan.victims[i].log ? 1u : 0u;
      before += plan.victims[i].bytes;
    }
    if (logs > 0) {
      const SegmentState& next = segments_[logs];
      manifest.head.next_order = next.first_order;
      manifest.head.next_epoch = next.first_epoch;
      manifest.head.next_chain = next.start_chain;
    }
    manifest.ids = merged_.ids;
    for (const SealedEpoch& epoch : epochs_) {
      if (epoch.epoch >= plan.horizon.epoch) break;
      const bool maybe_sent = epoch.epoch <= recovered_epoch_ || offered_.count(epoch.epoch) != 0;
      const bool known = !manifest.ids.empty() && manifest.ids.back().epoch >= epoch.epoch;
      if (maybe_sent && !known) manifest.ids.push_back({epoch.epoch, epoch.digest});
    }
    // The newest are the likeliest: the server knows the last one that reached it.
    if (manifest.ids.size() > kMaxIds)
      manifest.ids.erase(manifest.ids.begin(),
                         manifest.ids.end() - static_cast<std::ptrdiff_t>(kMaxIds));
  }
  if (manifest_record_bytes(manifest.members.size(), manifest.ids.size()) > kMaxManifestBytes) {
    return make_error(ErrorCode::kResourceExhausted,
                      "the journal in " + options_.folder + " has too many files to be merged",
                      "let it send what it holds; then it empties");
  }
  auto file = write_merged(plan, step, manifest, moved);
  if (!file.ok()) return file.error().with_context("merging the journal");
  const std::uint64_t after = file->end;
  const std::vector<std::string> gone = switch_to(plan, step, std::move(file).value());
  remove_files(gone);
  report.files += gone.size();
  report.moved_bytes += after;
  report.freed_bytes += before > after ? before - after : 0;
  return ok_status();
}

Result<MergeReport> JournalImpl::merge(const MergeWish& wish) {
  const std::lock_guard merging(merge_mutex_);
  MergeReport report;
  MergePlan plan;
  {
    const std::lock_guard no_trim(trim_mutex_);
    DIMS_ASSIGN(plan, plan_merge(wish.urgent));
  }
  const std::uint64_t room = payload_bytes(segment_bytes_);
  for (MergeStep step; step.first < plan.victims.size(); step.first = step.last) {
    std::uint64_t live = plan.victims[step.first].live;
    for (step.last = step.first + 1; step.last < plan.victims.size(); ++step.last) {
      live += plan.victims[step.last].live;
      if (live > room) break;
    }
    std::vector<MovedRecord> moved;
    {
      const std::lock_guard no_trim(trim_mutex_);
      {
        const Lock lock(mutex_);
        if (failed_) return latched();
        if (trimmed_.epoch != plan.trimmed_epoch) return report;
      }
      DIMS_TRY(run_merge_step(plan, step, report, moved));
    }
    if (wish.on_moved) wish.on_moved(moved);
    if (wish.enough_bytes != 0 && report.freed_bytes >= wish.enough_bytes) break;
  }
  return report;
}

}  // namespace dims::ldim
