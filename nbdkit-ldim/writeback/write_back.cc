#include "nbdkit-ldim/writeback/write_back.h"

#include <spdlog/spdlog.h>

#include <array>
#include <utility>

namespace dims::ldim {
namespace {

constexpr std::chrono::milliseconds kTick{200};
constexpr std::chrono::milliseconds kFirstRetry{250};
constexpr std::chrono::milliseconds kLongestRetry{5000};
constexpr int kMissingTries = 3;
// Who waits for the lease asks again and again; one that has not for so long waits no more.
constexpr std::chrono::minutes kAskedForLong{2};
constexpr std::uint64_t kStateSpace = kMiB;  // far more than the state file has

Error stopped_here() {
  return make_error(ErrorCode::kCancelled, "stopped between two steps of a commit");
}

}  // namespace

std::chrono::milliseconds jittered(std::chrono::milliseconds pause, Random& random) {
  std::array<std::uint8_t, 1> one{};
  random.fill(one);
  return pause * 3 / 4 + pause * one[0] / 512;
}

WriteBack::WriteBack(const WriteBackParts& parts, const WriteBackOptions& options)
    : parts_(parts), options_(options) {
  stats_.committed_epoch = parts_.state.current().committed.epoch;
  stats_.sent_epoch = stats_.received_epoch = stats_.committed_epoch;
  // Whoever ran before may have offered what is unsent.
  offered_ = parts_.journal.synced().epoch > stats_.committed_epoch;
}

WriteBack::~WriteBack() { stop(); }

void WriteBack::start() {
  thread_ = std::thread([this] { run(); });
}

void WriteBack::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void WriteBack::request() {
  {
    const std::lock_guard lock(mutex_);
    requested_ = true;
    retry_at_ = std::chrono::nanoseconds(0);
  }
  changed_.notify_all();
}

void WriteBack::request_in_time() {
  {
    const std::lock_guard lock(mutex_);
    requested_ = true;
  }
  changed_.notify_all();
}

void WriteBack::retry_now() {
  const std::lock_guard lock(mutex_);
  retry_at_ = std::chrono::nanoseconds(0);
  retry_pause_ = std::chrono::milliseconds(0);
}

void WriteBack::hand_over(const std::string& to) {
  {
    const std::lock_guard lock(mutex_);
    hand_over_asked_ = parts_.clock.boottime();
    if (!hand_over_to_.empty()) return;
    hand_over_to_ = to.empty() ? "another machine" : to;
    requested_ = true;
    retry_at_ = std::chrono::nanoseconds(0);
  }
  changed_.notify_all();
}

// What was written before the request is on the server: let the other machine have the lease.
void WriteBack::finish_hand_over(std::unique_lock<std::mutex>& lock) {
  const std::string to = std::exchange(hand_over_to_, std::string());
  hand_over_epoch_.reset();
  hand_over_bytes_ = 0;
  lock.unlock();
  spdlog::warn("the lease is handed to {}", to);
  parts_.lease.surrender(to);
  if (options_.on_handed_over) options_.on_handed_over();
  lock.lock();
}

std::uint64_t WriteBack::unsent_bytes() const {
  const std::uint64_t pending = parts_.pending.covered_bytes();
  const std::lock_guard lock(mutex_);
  // What the guest writes meanwhile is not waited for: it would hide that this machine sends.
  const std::uint64_t left = hand_over_epoch_ ? std::min(hand_over_bytes_, pending) : pending;
  if (left == 0) return 0;
  return std::max<std::uint64_t>(1, left - std::min<std::uint64_t>(left, arrived_));
}

void WriteBack::branch_is_gone() {
  {
    const std::lock_guard lock(mutex_);
    look_at_branch_ = true;
  }
  changed_.notify_all();
}

WriteBackStats WriteBack::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

Status WriteBack::reach(AckPoint point, std::uint64_t epoch, std::chrono::milliseconds longest) {
  request();
  std::unique_lock lock(mutex_);
  const auto give_up = std::chrono::steady_clock::now() + longest;
  const auto reached = [&] {
    switch (point) {
      case AckPoint::kSent:
        return stats_.sent_epoch >= epoch;
      case AckPoint::kReceived:
        return stats_.received_epoch >= epoch;
      case AckPoint::kCommitted:
        break;
    }
    return stats_.committed_epoch >= epoch;
  };
  const auto ended = [&] { return stop_ || reached(); };
  // One request is one commit, and that may have been an older one whose reply was lost: ask until
  // it is ours.
  constexpr std::chrono::milliseconds kAskAgain{250};
  while (!ended() && std::chrono::steady_clock::now() < give_up) {
    requested_ = true;
    changed_.notify_all();
    changed_.wait_for(
        lock,
        std::min<std::chrono::nanoseconds>(kAskAgain, give_up - std::chrono::steady_clock::now()),
        ended);
  }
  const bool done = ended();
  if (reached()) return ok_status();
  if (done) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
  return make_error(ErrorCode::kDeadlineExceeded,
                    "epoch " + std::to_string(epoch) + " is not on the server yet" +
                        (stats_.trouble.empty() ? "" : ": " + stats_.trouble));
}

// Decides whether to commit now; seals by itself what has been open for long.
bool WriteBack::due(bool& asked) {
  const std::chrono::nanoseconds now = parts_.clock.boottime();
  bool seal = false;
  bool commit = false;
  bool asked_to_go = false;
  {
    const std::lock_guard lock(mutex_);
    // Under the lock: a request that comes later must not be taken for one that this state answers.
    const JournalStats journal = parts_.journal.stats();
    if (journal.open_epoch_records == 0)
      oldest_unsealed_ = std::chrono::nanoseconds(0);
    else if (oldest_unsealed_.count() == 0 || journal.sealed_epoch != sealed_before_)
      oldest_unsealed_ = now;
    sealed_before_ = journal.sealed_epoch;
    const bool unsent = journal.synced_epoch > stats_.committed_epoch;
    if (!unsent)
      oldest_unsent_ = std::chrono::nanoseconds(0);
    else if (oldest_unsent_.count() == 0 || stats_.committed_epoch != committed_before_)
      oldest_unsent_ = now;
    committed_before_ = stats_.committed_epoch;
    // Space is short: do not wait for the guest's flush, nor for the delay.
    const bool crowded = journal.bytes > journal.limit_bytes / 2;
    if (!hand_over_to_.empty() && now - hand_over_asked_ > kAskedForLong) {
      spdlog::warn("{} does not ask for the image any more", hand_over_to_);
      hand_over_to_.clear();
      hand_over_epoch_.reset();
      hand_over_bytes_ = 0;
    }
    asked_to_go = !hand_over_to_.empty() && !hand_over_epoch_;
    seal = journal.open_epoch_records != 0 &&
           (now - oldest_unsealed_ >= options_.seal_after || crowded);

    if (unsent && now >= retry_at_) {
      switch (options_.policy) {
        case WriteBackPolicy::kEager:
          commit = now - oldest_unsent_ >= options_.gather;
          break;
        case WriteBackPolicy::kDelay:
          commit = now - oldest_unsent_ >= options_.delay;
          break;
        case WriteBackPolicy::kManual:
          break;
      }
      commit = commit || requested_ || !hand_over_to_.empty() ||
               (crowded && options_.policy != WriteBackPolicy::kManual);
    }
    // What is committed now answers all requests up to here; a failure asks again (run()).
    asked = commit && requested_;
    if (!unsent || commit) requested_ = false;
  }
  // Before the lease goes, whatever was answered must be on the server: also what somebody else is
  // sealing just now, of which the journal says that nothing is open. flush() waits for that, too.
  if (seal || asked_to_go) {
    const auto sealed = parts_.journal.flush();
    if (!sealed.ok()) spdlog::error("cannot seal the open epoch: {}", sealed.error().to_string());
  }
  if (asked_to_go) {
    const std::uint64_t pending = parts_.pending.covered_bytes();
    const std::lock_guard lock(mutex_);
    hand_over_epoch_ = parts_.journal.synced().epoch;
    hand_over_bytes_ = pending;
  }
  return commit;
}

void WriteBack::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    changed_.wait_for(lock, kTick, [&] { return stop_ || requested_ || look_at_branch_; });
    if (stop_) return;
    const bool look = std::exchange(look_at_branch_, false);
    lock.unlock();
    if (look) leave_lost_branch();
    bool asked = false;
    const bool commit = due(asked);
    lock.lock();
    if (hand_over_epoch_ && stats_.committed_epoch >= *hand_over_epoch_) finish_hand_over(lock);
    lock.unlock();
    if (commit) {
      const auto committed = run_once();
      lock.lock();
      if (committed.ok()) {
        stats_.trouble.clear();
        retry_pause_ = std::chrono::milliseconds(0);
      } else {
        if (stats_.trouble.empty())
          spdlog::warn("write-back waits: {}", committed.error().to_string());
        stats_.trouble = committed.error().to_string();
        retry_pause_ = std::min(std::max(retry_pause_ * 2, kFirstRetry), kLongestRetry);
        retry_at_ = parts_.clock.boottime() + jittered(retry_pause_, parts_.random);
        requested_ = requested_ || asked;
      }
      changed_.notify_all();
      if (!committed.ok()) changed_.wait_for(lock, kTick, [&] { return stop_; });
    } else {
      lock.lock();
      // A request that must wait for its retry time must not spin.
      if (requested_) changed_.wait_for(lock, std::chrono::milliseconds(20), [&] { return stop_; });
    }
  }
}

Result<bool> WriteBack::run_once() {
  const std::lock_guard work(work_mutex_);
  // What is being sent is a group of its own: nothing newer is merged with it meanwhile.
  const HeldCommit held = parts_.journal.hold();
  const CommitId& through = held.through;
  {
    const std::lock_guard lock(mutex_);
    if (through.epoch <= stats_.committed_epoch) return false;
  }
  for (int tries = 1;; ++tries) {
    auto done = attempt(through);
    if (!done.ok() && lost_branch(done.error())) return leave_branch(done.error());
    if (done.ok() || done.error().code != ErrorCode::kMissingObjects || tries == kMissingTries)
      return done;
    spdlog::warn("sending again: {}", done.error().to_string());
  }
}

Bytes WriteBack::make_record(const format::KeyFile& key, const LdimState& state,
                             const format::Reference& root, const CommitId& through) {
  format::VersionRecord record;
  record.org = key.org;
  record.parent = state.base;
  record.image = state.image;
  record.root = root.object_key();
  record.image_bytes = state.image_bytes;
  record.tree = state.tree;
  record.sequence = 1;
  if (!state.base_record.empty()) {
    const auto base = format::decode_version(state.base_record, false);
    if (base.ok()) {
      record.sequence = base->sequence + 1;
      record.generation = base->generation;
    }
  }
  record.commit = {through.journal, through.epoch, through.digest};
  record.domain_epoch = key.domain_key().epoch();
  record.image_epoch = key.image_epoch();
  record.time_unix_ns = static_cast<std::uint64_t>(parts_.clock.wall().count());
  record.machine = key.machine_of_record(parts_.machine);
  format::seal_root_key(record, key.image_key(state.image), root.key, parts_.random);
  return format::encode_version(record, key.signing);
}

Result<bool> WriteBack::attempt(const CommitId& through) {
  const LdimState state = parts_.state.current();
  // The same keys to the end of the attempt, whatever login comes meanwhile.
  const auto key = parts_.key.get();
  auto lease = parts_.lease.ensure();
  if (!lease.ok()) {
    // Another machine has the image now. If it has committed, our epochs are the loser's.
    if (lease.error().code == ErrorCode::kLeaseHeld) return resolve_foreign_head(lease.error());
    return lease.error();
  }
  const auto records = parts_.journal.records(state.committed.epoch, through.epoch);
  Committed done;
  done.through = through;
  for (const JournalRecord& record : records)
    done.last_order = std::max(done.last_order, record.order);
  if (!step(CommitStep::kSealed)) return stopped_here();

  {
    const format::DomainKey domain_key = key->domain_key();
    const tree::Cutter cutter(domain_key, state.tree.chunk_mean_bytes);
    arrived_ = 0;
    tree::UploadOptions upload;
    upload.arrived = &arrived_;
    upload.cancel = &stopping_;
    tree::Uploader uploader(parts_.remote, state.image, upload);
    const CommitParts commit_parts{parts_.journal, parts_.reader,    parts_.fetcher,
                                   parts_.cache,   domain_key,       cutter,
                                   uploader,       options_.compress};
    DIMS_ASSIGN(BuiltCommit built, build_commit(commit_parts, records));
    DIMS_TRY(uploader.finish());
    done.root = built.root;
    done.touched = std::move(built.touched);
    const tree::UploadCounts counts = uploader.counts();
    const std::lock_guard lock(mutex_);
    stats_.pages += built.pages;
    stats_.chunks += built.chunks;
    stats_.chunks_sent += counts.sent;
    stats_.bytes_sent += counts.sent_bytes;
    stats_.sent_epoch = std::max(stats_.sent_epoch, through.epoch);
  }
  changed_.notify_all();
  if (!step(CommitStep::kUploaded)) return stopped_here();

  // The same content again: no new version is needed, only our own bookkeeping. Unless a commit was
  // offered whose answer never came: it may be the head, below somebody else's, or still on its
  // way, and it holds what was taken back since. Then the server's order decides.
  if (!offered_ && done.root == parts_.reader.tree().shape().root && !state.base.is_zero()) {
    done.version = state.base;
    done.record = state.base_record;
    DIMS_TRY(finish(std::move(done)));
    return true;
  }
  contract::CommitOrder order;
  order.image = state.image;
  order.lease = lease->lease;
  order.token = lease->token;
  order.parent = state.base;
  order.record = make_record(*key, state, done.root, through);
  parts_.journal.offer(through.epoch);  // the reply may get lost
  offered_ = true;
  const auto answer = parts_.remote.commit(order);
  if (!answer.ok()) {
    const Error& error = answer.error();
    if (error.code == ErrorCode::kStaleLease) parts_.lease.drop();
    if (error.code == ErrorCode::kConflict || error.code == ErrorCode::kOtherHistory) {
      return resolve_foreign_head(error);
    }
    return error;
  }
  if (!answer->missing.empty()) {
    return make_error(
        ErrorCode::kMissingObjects,
        "the server lacks " + std::to_string(answer->missing.size()) + " objects of the commit");
  }
  {
    const std::lock_guard lock(mutex_);
    stats_.received_epoch = std::max(stats_.received_epoch, through.epoch);
  }
  changed_.notify_all();
  if (!step(CommitStep::kCommitted)) return stopped_here();
  done.version = answer->version;
  done.record = std::move(order.record);
  if (!(answer->version == format::version_id(done.record))) {
    // The first answer to this commit id was lost; that record counts, and its root: another
    // compressor may have packed the same pages differently.
    DIMS_ASSIGN(const contract::VersionInfo first,
                parts_.remote.get_version(state.image, answer->version, 0));
    DIMS_TRY(check_ours(first, state, through));
    done.record = first.record_bytes;
    DIMS_ASSIGN(done.root, format::open_root(first.record, parts_.key->image_key(first.record)));
  }
  DIMS_TRY(finish(std::move(done)));
  const std::lock_guard lock(mutex_);
  ++stats_.commits;
  return true;
}

// The LATER line of docs/durability.md, from the server's yes to the trimmed journal.
Status WriteBack::finish(Committed done) {
  DIMS_TRY(parts_.cache.sync());
  if (!step(CommitStep::kCacheSynced)) return stopped_here();
  // Of the home image, not of a branch: what its later heads must descend from.
  std::optional<format::VersionRecord> home;
  if (!done.record.empty()) {
    DIMS_ASSIGN(home, format::decode_version(done.record, false));
    if (!(home->image == parts_.state.current().home_image)) home.reset();
  }
  const auto record_base = [&] {
    return parts_.state.update([&](LdimState& state) {
      state.base = done.version;
      state.base_record = done.record;
      if (home) {
        state.home_base = done.version;
        state.home_sequence = home->sequence;
      }
      state.committed = {done.through.journal, done.through.epoch, done.through.digest};
    });
  };
  Status recorded = record_base();
  if (!recorded.ok() && recorded.error().code == ErrorCode::kNoSpace) {
    // The journal is freed only behind this record: on a full disk the cache must yield for it.
    (void)parts_.cache.yield_space(kStateSpace).ok();
    recorded = record_base();
  }
  DIMS_TRY(recorded);
  offered_ = false;  // what was offered stands on another base: it cannot land any more
  if (!step(CommitStep::kBaseRecorded)) return stopped_here();
  tree::TreeShape shape = parts_.reader.tree().shape();
  shape.root = done.root;
  parts_.reader.tree().advance(shape, done.touched);
  parts_.pending.remove_through(done.last_order);
  if (!step(CommitStep::kMapAdvanced)) return stopped_here();
  DIMS_TRY(parts_.journal.trim(done.through.epoch));
  if (!step(CommitStep::kTrimmed)) return stopped_here();
  {
    const std::lock_guard lock(mutex_);
    stats_.committed_epoch = done.through.epoch;
    stats_.received_epoch = std::max(stats_.received_epoch, done.through.epoch);
    stats_.sent_epoch = std::max(stats_.sent_epoch, done.through.epoch);
  }
  changed_.notify_all();
  return ok_status();
}

}  // namespace dims::ldim
