#include "nbdkit-ldim/pagemap/tidy.h"

#include <algorithm>
#include <chrono>

namespace dims::ldim {

namespace {

constexpr std::uint64_t kBeginPercent = 25;
constexpr std::uint64_t kCrowdedPercent = 70;
constexpr std::uint64_t kUrgentFiles = 2;             // freed, then the writer that waits goes on
constexpr std::chrono::milliseconds kUrgentWait{50};  // for another's merge; it may take minutes
constexpr std::chrono::milliseconds kTick{500};
constexpr std::chrono::milliseconds kAfterTrouble{30000};

}  // namespace

// Ends a merge's turn, however it ends.
class JournalTidy::Turn {
 public:
  explicit Turn(JournalTidy& tidy) : tidy_(tidy) {}
  ~Turn() {
    {
      const std::lock_guard lock(tidy_.mutex_);
      tidy_.merging_ = false;
    }
    tidy_.changed_.notify_all();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  JournalTidy& tidy_;
};

bool merging_is_due(const JournalStats& journal, std::uint64_t pending_journal_bytes, bool urgent) {
  const std::uint64_t garbage =
      journal.bytes > pending_journal_bytes ? journal.bytes - pending_journal_bytes : 0;
  // The open file and the spare are no garbage, but count as such.
  const std::uint64_t fixed = 2 * journal.segment_bytes;
  // Now the open file is full, and there is no spare.
  if (urgent) return garbage > journal.segment_bytes / 4;
  if (journal.bytes > journal.limit_bytes / 100 * kCrowdedPercent)
    return garbage >= fixed + 2 * journal.segment_bytes;
  return journal.bytes > journal.limit_bytes / 100 * kBeginPercent &&
         garbage >= journal.bytes / 2 && garbage > fixed;
}

void JournalTidy::start() {
  thread_ = std::thread([this] { run(); });
}

void JournalTidy::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<bool> JournalTidy::run_once(bool urgent) {
  const std::uint64_t before = journal_.stats().bytes;
  {
    std::unique_lock lock(mutex_);
    const auto free = [&] { return !merging_; };
    if (!urgent)
      changed_.wait(lock, free);
    else if (!changed_.wait_for(lock, kUrgentWait, free))
      return true;
    merging_ = true;
  }
  const Turn turn(*this);
  const JournalStats stats = journal_.stats();
  // Whoever had the turn before has made room for us too.
  if (urgent && stats.bytes + stats.segment_bytes <= before) return true;
  if (!merging_is_due(stats, pending_.journal_bytes(), urgent)) return false;
  {
    // The same files again would give the same answer.
    const std::lock_guard lock(mutex_);
    if (!urgent && futile_bytes_ != 0 && stats.bytes < futile_bytes_ + stats.segment_bytes &&
        stats.bytes >= futile_bytes_) {
      return false;
    }
    futile_bytes_ = 0;
  }
  // Only what is sealed and synced can be merged; a guest that never flushes must not fill the
  // journal.
  const auto sealed = journal_.flush();
  if (!sealed.ok()) return sealed.error();
  MergeWish wish;
  wish.enough_bytes = urgent ? kUrgentFiles * stats.segment_bytes : 0;
  wish.urgent = urgent;
  wish.on_moved = [&](const std::vector<MovedRecord>& moved) { pending_.repoint(moved); };
  const auto merged = journal_.merge(wish);
  const std::lock_guard lock(mutex_);
  trouble_ = merged.ok() ? std::string() : merged.error().to_string();
  if (!merged.ok()) return merged.error();
  if (merged->files == 0) futile_bytes_ = stats.bytes;
  return merged->files > 0;
}

std::string JournalTidy::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

void JournalTidy::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    const auto done = run_once(false);
    lock.lock();
    const std::chrono::milliseconds pause = done.ok() ? kTick : kAfterTrouble;
    changed_.wait_for(lock, pause, [&] { return stop_; });
  }
}

}  // namespace dims::ldim
