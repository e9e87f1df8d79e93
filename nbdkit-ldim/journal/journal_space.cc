#include <algorithm>

#include "common/base/parse.h"
#include "nbdkit-ldim/journal/journal_impl.h"

namespace dims::ldim {

using namespace journal_format;

Status JournalImpl::obtain_spare(Lock& lock) {
  if (creating_) {
    spare_cv_.wait(lock, [&] { return !creating_ || failed_.has_value(); });
    return ok_status();  // the caller looks again
  }
  const std::vector<std::string> gone = take_reclaimable();
  creating_ = true;
  if (!gone.empty()) {
    lock.unlock();
    remove_files(gone);
    lock.lock();
  }
  Status status;
  // One file's worth is for merge(): a full journal must be able to shrink.
  if (bytes_held_ + 2 * segment_bytes_ > options_.limit_bytes) {
    status =
        make_error(ErrorCode::kNoSpace,
                   "the journal in " + options_.folder + " is full (" + format_size(bytes_held_) +
                       " of " + format_size(options_.limit_bytes) + ")",
                   "it empties as writes reach the server; raise its limit if this happens often");
  } else {
    bytes_held_ += segment_bytes_;
    const std::uint64_t number = next_number_++;
    const std::uint64_t synced_order = synced_order_;
    lock.unlock();
    Result<std::shared_ptr<JournalSegment>> made =
        make_error(ErrorCode::kResourceExhausted, "no memory for a new journal file");
    try {
      made = JournalSegment::create(fs_, options_.folder, number, segment_bytes_, synced_order,
                                    identity_, options_.key, random_);
    } catch (const std::bad_alloc&) {  // who waits for the file must hear of it
    }
    lock.lock();
    if (made.ok()) {
      spares_.push_back(std::move(made).value());
    } else {
      bytes_held_ -= segment_bytes_;
      status = made.error();  // nothing is lost by it: not latched, the next append tries again
    }
  }
  creating_ = false;
  spare_cv_.notify_all();
  return status;
}

// Half of the file is used: make the next one now, in the thread that noticed, so that the one that
// needs it does not wait for the syncs. What goes wrong here is told to the one who needs it.
void JournalImpl::prepare_spare() {
  Lock lock(mutex_);
  if (!failed_ && spares_.empty() && !creating_) (void)obtain_spare(lock);
}

std::vector<std::string> JournalImpl::take_reclaimable() {
  std::vector<std::string> paths;
  while (segments_.size() > 1) {
    const SegmentState& old = segments_.front();
    // The next file's start must be durable, for the chain goes on from there; and so must be the
    // trim state, in a file that stays.
    if (old.last_order > trimmed_.order || segments_[1].first_order > synced_order_) break;
    const bool told =
        std::any_of(segments_.begin() + 1, segments_.end(), [&](const SegmentState& s) {
          return s.slot_trim_epoch >= trimmed_.epoch ||
                 (s.start_trim_epoch >= trimmed_.epoch && s.first_order <= synced_order_);
        });
    if (!told) break;
    paths.push_back(old.segment->file().path());
    bytes_held_ -= old.bytes;
    segments_.pop_front();
  }
  return paths;
}

void JournalImpl::remove_files(const std::vector<std::string>& paths) {
  // A file that stays is garbage for the next open; its space is then given back.
  for (const std::string& path : paths) (void)fs_.remove(path);
}

Status JournalImpl::trim(std::uint64_t through_epoch) {
  const std::lock_guard trimming(trim_mutex_);
  TrimState state;
  std::shared_ptr<JournalSegment> home;
  {
    const Lock lock(mutex_);
    if (failed_) return latched();
    if (through_epoch <= trimmed_.epoch) return ok_status();
    if (through_epoch > synced_.epoch) {
      return make_error(ErrorCode::kInvalidArgument,
                        "epoch " + std::to_string(through_epoch) + " cannot be trimmed: only " +
                            std::to_string(synced_.epoch) + " epochs are synced");
    }
    const SealedEpoch* const epoch = sealed(through_epoch);
    if (epoch == nullptr) return ok_status();  // inside the merged group
    state = {epoch->epoch, epoch->seal_order, epoch->digest};
    home = segments_.back().segment;
    ++trim_generation_;
  }
  Status done = home->write_trim_slot(trim_generation_, state);
  if (done.ok()) done = home->file().sync_data();
  std::vector<std::string> gone;
  {
    const Lock lock(mutex_);
    if (!done.ok()) return fail(done.error());
    // A flush's sync of the same file may have been told what this one was not.
    if (failed_) return latched();
    trimmed_ = state;
    for (SegmentState& segment : segments_) {
      if (segment.segment == home) segment.slot_trim_epoch = state.epoch;
    }
    while (!epochs_.empty() && epochs_.front().epoch <= state.epoch) epochs_.pop_front();
    while (!records_.empty() && records_.front().order <= state.order) records_.pop_front();
    gone = take_reclaimable();
    for (std::string& path : drop_merged()) gone.push_back(std::move(path));
    offered_.erase(offered_.begin(), offered_.upper_bound(state.epoch));
    spare_tried_ = false;
  }
  remove_files(gone);
  return ok_status();
}

std::uint64_t JournalImpl::payload_bytes(std::uint64_t segment_bytes) const {
  const std::uint64_t fixed = kRecordsStart + kStartBytes + kSealBytes;
  return segment_bytes > fixed ? segment_bytes - fixed : 0;
}

JournalStats JournalImpl::stats() {
  const Lock lock(mutex_);
  JournalStats out = start_stats_;
  out.bytes = bytes_held_;
  out.limit_bytes = options_.limit_bytes;
  out.records = records_.size() + merged_.records.size();
  out.ending_epoch = open_epoch_ - 1;
  out.sealed_epoch = epochs_.empty() ? trimmed_.epoch : epochs_.back().epoch;
  out.synced_epoch = synced_.epoch;
  out.trimmed_epoch = trimmed_.epoch;
  if (!merged_.files.empty()) out.merged_epoch = merged_.head.horizon.epoch;
  for (const Merged::File& file : merged_.files) out.merged_bytes += file.end;
  out.segment_bytes = segment_bytes_;
  out.merges = merges_;
  out.open_epoch_bytes = open_epoch_bytes_;
  out.open_epoch_records = open_records_;
  const std::uint64_t used = position_ + kSealBytes;
  out.free_bytes = segments_.back().bytes > used ? segments_.back().bytes - used : 0;
  std::uint64_t more = spares_.size();
  if (bytes_held_ + segment_bytes_ < options_.limit_bytes)  // one is kept for merge()
    more += (options_.limit_bytes - bytes_held_) / segment_bytes_ - 1;
  out.free_bytes += more * payload_bytes(segment_bytes_);
  out.failed = failed_.has_value();
  return out;
}

}  // namespace dims::ldim
