#include "nbdkit-ldim/writeback/write_back.h"

#include <spdlog/spdlog.h>

namespace dims::ldim {
namespace {

constexpr std::chrono::milliseconds kTick{200};
constexpr std::chrono::milliseconds kFirstRetry{250};
constexpr std::chrono::milliseconds kLongestRetry{5000};
constexpr int kMissingTries = 3;
constexpr std::uint64_t kStateSpace = kMiB;  // far more than the state file has

Error stopped_here() {
  return make_error(ErrorCode::kCancelled, "stopped between two steps of a commit");
}

}  // namespace

WriteBack::WriteBack(const WriteBackParts& parts, const WriteBackOptions& options)
    : parts_(parts), options_(options), domain_key_(parts.key.domain_key()) {
  stats_.committed_epoch = parts_.state.current().committed.epoch;
}

WriteBack::~WriteBack() { stop(); }

void WriteBack::start() {
  thread_ = std::thread([this] { run(); });
}

void WriteBack::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
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

WriteBackStats WriteBack::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

Status WriteBack::commit_through(std::uint64_t epoch, std::chrono::milliseconds longest) {
  request();
  std::unique_lock lock(mutex_);
  const auto give_up = std::chrono::steady_clock::now() + longest;
  const auto ended = [&] { return stop_ || stats_.committed_epoch >= epoch; };
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
  if (stats_.committed_epoch >= epoch) return ok_status();
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
      commit = commit || requested_ || (crowded && options_.policy != WriteBackPolicy::kManual);
    }
    // What is committed now answers all requests up to here; a failure asks again (run()).
    asked = commit && requested_;
    if (!unsent || commit) requested_ = false;
  }
  if (seal) {
    const auto sealed = parts_.journal.flush();
    if (!sealed.ok()) spdlog::error("cannot seal the open epoch: {}", sealed.error().to_string());
  }
  return commit;
}

void WriteBack::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    changed_.wait_for(lock, kTick, [&] { return stop_ || requested_; });
    if (stop_) return;
    lock.unlock();
    bool asked = false;
    if (due(asked)) {
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
        retry_at_ = parts_.clock.boottime() + retry_pause_;
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
    if (done.ok() || done.error().code != ErrorCode::kMissingObjects || tries == kMissingTries)
      return done;
    spdlog::warn("sending again: {}", done.error().to_string());
  }
}

Bytes WriteBack::make_record(const LdimState& state, const format::Reference& root,
                             const CommitId& through) {
  format::VersionRecord record;
  record.org = parts_.key.org;
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
  record.domain_epoch = domain_key_.epoch();
  record.image_epoch = 1;
  record.time_unix_ns = static_cast<std::uint64_t>(parts_.clock.wall().count());
  record.machine = parts_.machine;
  format::seal_root_key(record, parts_.key.image_key(state.image), root.key, parts_.random);
  return format::encode_version(record, parts_.key.signing);
}

Result<bool> WriteBack::attempt(const CommitId& through) {
  const LdimState state = parts_.state.current();
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
    const tree::Cutter cutter(domain_key_, state.tree.chunk_mean_bytes);
    tree::UploadOptions upload;
    tree::Uploader uploader(parts_.remote, state.image, upload);
    const CommitParts commit_parts{parts_.journal, parts_.reader,    parts_.fetcher,
                                   parts_.cache,   domain_key_,      cutter,
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
  }
  if (!step(CommitStep::kUploaded)) return stopped_here();

  if (done.root == parts_.reader.tree().shape().root && !state.base.is_zero()) {
    // The same content again: no new version is needed, only our own bookkeeping.
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
  order.record = make_record(state, done.root, through);
  parts_.journal.offer(through.epoch);  // the reply may get lost
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
  if (!step(CommitStep::kCommitted)) return stopped_here();
  done.version = answer->version;
  done.record = std::move(order.record);
  if (!(answer->version == format::version_id(done.record))) {
    // The first answer to this commit id was lost; that record counts, and its root: another
    // compressor may have packed the same pages differently.
    DIMS_ASSIGN(const contract::VersionInfo first,
                parts_.remote.get_version(state.image, answer->version, 0));
    done.record = first.record_bytes;
    DIMS_ASSIGN(done.root, format::open_root(first.record, parts_.key.image_key(state.image)));
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
  const auto record_base = [&] {
    return parts_.state.update([&](LdimState& state) {
      state.base = done.version;
      state.base_record = done.record;
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
  }
  changed_.notify_all();
  return ok_status();
}

Result<bool> WriteBack::resolve_foreign_head(const Error& refused) {
  const LdimState state = parts_.state.current();
  DIMS_ASSIGN(const contract::ImageInfo image, parts_.remote.get_image(state.image));
  const VersionId head = image.head.is_zero() ? image.origin : image.head;
  // Nobody has committed: when the lease is free again we go on.
  if (head == state.base && refused.code == ErrorCode::kLeaseHeld) return refused;
  DIMS_ASSIGN(const contract::VersionInfo newest, parts_.remote.get_version(state.image, head, 0));
  // Our own commit whose reply was lost? Only the newest version may be: what stands above it is
  // foreign.
  const auto ours = parts_.journal.commit_id(newest.record.commit.epoch);
  if (newest.record.commit.journal == parts_.journal.id() && ours &&
      ours->digest == newest.record.commit.digest) {
    DIMS_TRY(adopt(newest));
    return true;
  }
  DIMS_TRY(make_branch());
  // The next attempt commits there.
  return make_error(ErrorCode::kConflict,
                    "another machine has written to the image; unsent writes go to " +
                        parts_.state.current().branch_name);
}

Status WriteBack::adopt(const contract::VersionInfo& version) {
  const LdimState state = parts_.state.current();
  const std::uint64_t epoch = version.record.commit.epoch;
  Committed done;
  PendingMap touched;
  // Merged with newer epochs meanwhile, its records are not told apart: all of the group may have
  // been touched, and all stay pending for the commit of the group's end.
  const std::uint64_t group_end = parts_.journal.group_end(epoch);
  for (const JournalRecord& record : parts_.journal.records(state.committed.epoch, group_end)) {
    touched.insert(record);
    if (group_end == epoch) done.last_order = std::max(done.last_order, record.order);
  }
  done.touched = touched.touched_pages();
  DIMS_ASSIGN(done.root, format::open_root(version.record, parts_.key.image_key(state.image)));
  const auto id = parts_.journal.commit_id(epoch);
  if (!id)
    return make_error(ErrorCode::kInternal, "no commit id for epoch " + std::to_string(epoch));
  done.through = *id;
  done.version = version.id;
  done.record = version.record_bytes;
  DIMS_TRY(finish(std::move(done)));
  spdlog::info("version {} was our own commit whose reply had been lost", version.record.sequence);
  const std::lock_guard lock(mutex_);
  ++stats_.adopted;
  return ok_status();
}

Status WriteBack::make_branch() {
  const LdimState state = parts_.state.current();
  DIMS_ASSIGN(const contract::ImageInfo home, parts_.remote.get_image(state.home_image));
  std::uint64_t base_sequence = 0;
  if (!state.base_record.empty()) {
    DIMS_ASSIGN(const auto base, format::decode_version(state.base_record, false));
    base_sequence = base.sequence;
  }
  contract::ImageInfo branch;
  branch.image_bytes = state.image_bytes;
  branch.tree = state.tree;
  branch.domain = parts_.key.domain;
  branch.origin = state.base;
  branch.conflict_of = home.name;
  // The id is recorded before it is used: after a lost reply or a crash the same branch is asked
  // for again.
  branch.id = state.planned_branch.is_zero() ? parts_.random.id<ImageId>() : state.planned_branch;
  branch.key_check = parts_.key.key_check(branch.id);
  const std::string stem =
      home.name + ".conflict-" + options_.machine_name + "-" + std::to_string(base_sequence);
  branch.name = state.planned_name.empty() ? stem : state.planned_name;
  constexpr int kMaxNames = 1000;
  Status made = make_error(ErrorCode::kInternal, "no name tried");
  for (int suffix = 2; suffix <= kMaxNames; ++suffix) {
    DIMS_TRY(parts_.state.update([&](LdimState& s) {
      s.planned_branch = branch.id;
      s.planned_name = branch.name;
    }));
    const auto answer = parts_.remote.create_image(branch);
    made = answer.ok() ? ok_status() : Status(answer.error());
    if (made.ok() || made.error().code != ErrorCode::kAlreadyExists) break;
    branch.name = stem + "-" + std::to_string(suffix);
  }
  DIMS_TRY(made);
  DIMS_TRY(parts_.state.update([&](LdimState& s) {
    s.image = branch.id;
    s.branch_name = branch.name;
    s.planned_branch = ImageId{};
    s.planned_name.clear();
  }));
  parts_.fetcher.set_image(branch.id);
  parts_.lease.retarget(branch.id, state.session);
  spdlog::warn("another machine has written to {}: this session goes on as {}", home.name,
               branch.name);
  const std::lock_guard lock(mutex_);
  ++stats_.conflicts;
  return ok_status();
}

}  // namespace dims::ldim
