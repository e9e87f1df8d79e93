#include <algorithm>

#include "nbdkit-ldim/journal/journal_impl.h"

namespace dims::ldim {

using namespace journal_format;

// One thread seals and syncs for all that came meanwhile; the rest wait for it.
Result<CommitId> JournalImpl::flush() {
  FailOnThrow guard(*this);
  guard.arm(true);
  Lock lock(mutex_);
  // The epoch in which every write that has returned lies.
  const std::uint64_t wanted = open_records_ > 0 ? open_epoch_ : open_epoch_ - 1;
  for (;;) {
    if (failed_) return latched();
    if (synced_.epoch >= wanted) return synced_;
    if (syncing_) {
      sync_cv_.wait(lock, [&] { return !syncing_ || failed_.has_value(); });
      continue;
    }
    DIMS_TRY(seal_and_sync(lock));
  }
}

Status JournalImpl::seal_and_sync(Lock& lock) {
  syncing_ = true;
  Placed seal = reserve(RecordType::kSeal, {0, sizeof(SealPayload)}, kSealBytes);
  ++open_epoch_;
  open_records_ = 0;
  lock.unlock();
  Status done = write_control(seal);
  lock.lock();

  // Everything before the seal is in the kernel's hands: what is unsynced now lies in these files.
  std::vector<std::shared_ptr<JournalSegment>> files;
  if (done.ok()) done = wait_retired(lock, seal.body.order);
  for (const SegmentState& state : segments_) {
    if (state.dirty && state.first_order <= seal.body.order) files.push_back(state.segment);
  }
  std::uint64_t note_generation = 0;
  if (done.ok()) {
    lock.unlock();
    for (const auto& file : files) {
      done = file->file().sync_data();
      if (!done.ok()) break;
    }
    lock.lock();
    if (!done.ok()) done = fail(done.error());
    // A trim's sync of the same file may have been told what this one was not.
    if (done.ok() && failed_) done = latched();
  }
  std::shared_ptr<JournalSegment> note_home;
  if (done.ok()) {
    for (SegmentState& state : segments_) {
      if (state.last_order != 0 && state.last_order <= seal.body.order) state.dirty = false;
    }
    synced_order_ = seal.body.order;
    synced_.epoch = sealing_.epoch;
    synced_.digest = sealing_.digest;
    note_home = segments_.back().segment;
    note_generation = ++note_generation_;
  }
  if (note_home != nullptr) {
    // A hint for recovery: tells damage from a torn tail. It need not be durable, only true.
    lock.unlock();
    const Status noted = note_home->write_note(note_generation, seal.body.order);
    lock.lock();
    if (!noted.ok()) done = fail(noted.error());
  }
  syncing_ = false;
  sync_cv_.notify_all();
  return done;
}

CommitId JournalImpl::synced() {
  const Lock lock(mutex_);
  return synced_;
}

const SealedEpoch* JournalImpl::sealed(std::uint64_t epoch) const {
  if (epochs_.empty() || epoch < epochs_.front().epoch || epoch > epochs_.back().epoch)
    return nullptr;
  return &epochs_[static_cast<std::size_t>(epoch - epochs_.front().epoch)];
}

std::optional<CommitId> JournalImpl::commit_id(std::uint64_t epoch) {
  const Lock lock(mutex_);
  if (epoch == trimmed_.epoch) return CommitId{identity_.journal, epoch, trimmed_.digest};
  if (const SealedEpoch* found = sealed(epoch))
    return CommitId{identity_.journal, epoch, found->digest};
  for (const ManifestId& id : merged_.ids) {
    if (id.epoch == epoch) return CommitId{identity_.journal, epoch, id.digest};
  }
  return std::nullopt;
}

std::uint64_t JournalImpl::group_end(std::uint64_t epoch) {
  const Lock lock(mutex_);
  return merged_.files.empty() ? epoch : std::max(epoch, merged_.head.horizon.epoch);
}

}  // namespace dims::ldim
