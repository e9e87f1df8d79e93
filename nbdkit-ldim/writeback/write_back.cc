#include "nbdkit-ldim/writeback/write_back.h"

#include <spdlog/spdlog.h>

namespace dims::ldim {
namespace {

constexpr std::chrono::milliseconds kTick{200};
constexpr std::chrono::milliseconds kFirstRetry{250};
constexpr std::chrono::milliseconds kLongestRetry{5000};
constexpr int kMissingTries = 3;

Error stopped_here() { return make_error(ErrorCode::kCancelled, "stopped between two steps of a commit"); }

}  // namespace

WriteBack::WriteBack(const WriteBackParts& parts, const WriteBackOptions& options)
    : parts_(parts), options_(options), domain_key_(parts.key.domain_key()) {
  stats_.committed_epoch = parts_.state.current().committed.epoch;
}

WriteBack::~WriteBack() { stop(); }

void WriteBack::start() { thread_ = std::thread([this] { run(); }); }

void WriteBack::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void WriteBack::nudge() {
  // Called at every write: only the first after a quiet time has to wake the thread.
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    wake = nudges_++ == 0;
  }
  if (wake) changed_.notify_all();
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
  const bool done = changed_.wait_for(lock, longest, [&] { return stop_ || stats_.committed_epoch >= epoch; });
  if (stats_.committed_epoch >= epoch) return ok_status();
  if (done) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
  return make_error(ErrorCode::kDeadlineExceeded,
                    "epoch " + std::to_string(epoch) + " is not on the server yet" +
                        (stats_.trouble.empty() ? "" : ": " + stats_.trouble));
}

// Decides whether to commit now; seals by itself what has been open for long.
bool WriteBack::due() {
  const std::chrono::nanoseconds now = parts_.clock.boottime();
  const JournalStats journal = parts_.journal.stats();
  bool seal = false;
  bool commit = false;
  {
    const std::lock_guard lock(mutex_);
    if (journal.open_epoch_bytes == 0) oldest_unsealed_ = std::chrono::nanoseconds(0);
    else if (oldest_unsealed_.count() == 0) oldest_unsealed_ = now;
    const bool unsent = journal.synced_epoch > stats_.committed_epoch;
    if (!unsent) oldest_unsent_ = std::chrono::nanoseconds(0);
    else if (oldest_unsent_.count() == 0) oldest_unsent_ = now;
    // Space is short: do not wait for the guest's flush, nor for the delay.
    const bool crowded = journal.bytes > journal.limit_bytes / 2;
    seal = journal.open_epoch_bytes != 0 &&
           (now - oldest_unsealed_ >= options_.seal_after || crowded);
    if (unsent && now >= retry_at_) {
      switch (options_.policy) {
        case WriteBackPolicy::kEager: commit = now - oldest_unsent_ >= options_.gather; break;
        case WriteBackPolicy::kDelay: commit = now - oldest_unsent_ >= options_.delay; break;
        case WriteBackPolicy::kManual: break;
      }
      commit = commit || requested_ || (crowded && options_.policy != WriteBackPolicy::kManual);
    }
    if (!unsent) requested_ = false;
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
    nudges_ = 0;
    lock.unlock();
    if (due()) {
      const auto committed = run_once();
      lock.lock();
      if (committed.ok()) {
        stats_.trouble.clear();
        retry_pause_ = std::chrono::milliseconds(0);
      } else {
        if (stats_.trouble.empty()) spdlog::warn("write-back waits: {}", committed.error().to_string());
        stats_.trouble = committed.error().to_string();
        retry_pause_ = std::min(std::max(retry_pause_ * 2, kFirstRetry), kLongestRetry);
        retry_at_ = parts_.clock.boottime() + retry_pause_;
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
  const CommitId through = parts_.journal.synced();
  {
    const std::lock_guard lock(mutex_);
    if (through.epoch <= stats_.committed_epoch) return false;
  }
  for (int tries = 1;; ++tries) {
    auto done = attempt(through);
    if (done.ok() || done.error().code != ErrorCode::kMissingObjects || tries == kMissingTries) return done;
    spdlog::warn("sending again: {}", done.error().to_string());
  }
}

Bytes WriteBack::make_record(const LdimState& state, const format::Reference& root, const CommitId& through) {
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
    // Another machine has the image now. Our epochs are the loser's: they become a branch.
    if (lease.error().code == ErrorCode::kLeaseHeld) return resolve_foreign_head(through);
    return lease.error();
  }
  const auto records = parts_.journal.records(state.committed.epoch, through.epoch);
  std::uint64_t last_order = 0;
  for (const JournalRecord& record : records) last_order = std::max(last_order, record.order);
  if (!step(CommitStep::kSealed)) return stopped_here();

  BuiltCommit built;
  {
    const tree::Cutter cutter(domain_key_, state.tree.chunk_mean_bytes);
    tree::UploadOptions upload;
    tree::Uploader uploader(parts_.remote, state.image, upload);
    const CommitParts commit_parts{parts_.journal, parts_.reader, parts_.fetcher, parts_.cache,
                                   domain_key_,    cutter,        uploader,       options_.compress};
    DIMS_ASSIGN(built, build_commit(commit_parts, records));
    DIMS_TRY(uploader.finish());
    const tree::UploadCounts counts = uploader.counts();
    const std::lock_guard lock(mutex_);
    stats_.pages += built.pages;
    stats_.chunks += built.chunks;
    stats_.chunks_sent += counts.sent;
    stats_.bytes_sent += counts.sent_bytes;
  }
  if (!step(CommitStep::kUploaded)) return stopped_here();

  const tree::TreeShape shape = parts_.reader.tree().shape();
  if (built.root == shape.root && !state.base.is_zero()) {
    // The same content again: no new version is needed, only our own bookkeeping.
    DIMS_TRY(finish(through, state.base, state.base_record, &built, last_order));
    return true;
  }
  contract::CommitOrder order;
  order.image = state.image;
  order.lease = lease->lease;
  order.token = lease->token;
  order.parent = state.base;
  order.record = make_record(state, built.root, through);
  const auto answer = parts_.remote.commit(order);
  if (!answer.ok()) {
    const Error& error = answer.error();
    if (error.code == ErrorCode::kStaleLease) parts_.lease.drop();
    if (error.code == ErrorCode::kConflict || error.code == ErrorCode::kOtherHistory) return resolve_foreign_head(through);
    return error;
  }
  if (!answer->missing.empty()) {
    return make_error(ErrorCode::kMissingObjects,
                      "the server lacks " + std::to_string(answer->missing.size()) + " objects of the commit");
  }
  if (!step(CommitStep::kCommitted)) return stopped_here();
  if (answer->repeated && !(answer->version == format::version_id(order.record))) {
    // The first answer to this commit id was lost; its record differs from ours only by time and seals.
    DIMS_ASSIGN(const contract::VersionInfo first, parts_.remote.get_version(state.image, answer->version, 0));
    order.record = first.record_bytes;
  }
  DIMS_TRY(finish(through, answer->version, std::move(order.record), &built, last_order));
  const std::lock_guard lock(mutex_);
  ++stats_.commits;
  return true;
}

// The LATER line of docs/durability.md, from the server's yes to the trimmed journal.
Status WriteBack::finish(const CommitId& through, const VersionId& version, Bytes record, const BuiltCommit* built,
                         std::uint64_t last_order) {
  DIMS_TRY(parts_.cache.sync());
  if (!step(CommitStep::kCacheSynced)) return stopped_here();
  LdimState state = parts_.state.current();
  state.base = version;
  state.base_record = std::move(record);
  state.committed = {through.journal, through.epoch, through.digest};
  DIMS_TRY(parts_.state.store(state));
  if (!step(CommitStep::kBaseRecorded)) return stopped_here();
  tree::TreeShape shape = parts_.reader.tree().shape();
  shape.root = built->root;
  parts_.reader.tree().advance(shape, built->touched);
  parts_.pending.remove_through(last_order);
  if (!step(CommitStep::kMapAdvanced)) return stopped_here();
  DIMS_TRY(parts_.journal.trim(through.epoch));
  if (!step(CommitStep::kTrimmed)) return stopped_here();
  {
    const std::lock_guard lock(mutex_);
    stats_.committed_epoch = through.epoch;
  }
  changed_.notify_all();
  return ok_status();
}

Result<bool> WriteBack::resolve_foreign_head(const CommitId&) {
  const LdimState state = parts_.state.current();
  DIMS_ASSIGN(const contract::ImageInfo image, parts_.remote.get_image(state.image));
  if (!(image.head == state.base) && !image.head.is_zero()) {
    // Walk back from the head to our base: if one of the versions on the way is our own commit whose reply was
    // lost, adopt it (only the newest version may be ours: nobody else's commit may stand above it).
    DIMS_ASSIGN(const contract::VersionInfo head, parts_.remote.get_version(state.image, image.head, 0));
    const auto ours = parts_.journal.commit_id(head.record.commit.epoch);
    if (head.record.commit.journal == parts_.journal.id() && ours && ours->digest == head.record.commit.digest) {
      DIMS_TRY(adopt(head));
      return true;
    }
  }
  DIMS_TRY(make_branch());
  // The next attempt commits there.
  return make_error(ErrorCode::kConflict, "another machine has written to the image; unsent writes go to " +
                                              parts_.state.current().branch_name);
}

Status WriteBack::adopt(const contract::VersionInfo& version) {
  const LdimState state = parts_.state.current();
  const std::uint64_t epoch = version.record.commit.epoch;
  const auto records = parts_.journal.records(state.committed.epoch, epoch);
  BuiltCommit built;
  std::uint64_t last_order = 0;
  PendingMap touched;
  for (const JournalRecord& record : records) {
    touched.insert(record);
    last_order = std::max(last_order, record.order);
  }
  built.touched = touched.touched_pages();
  DIMS_ASSIGN(built.root, format::open_root(version.record, parts_.key.image_key(state.image)));
  const auto id = parts_.journal.commit_id(epoch);
  if (!id) return make_error(ErrorCode::kInternal, "no commit id for epoch " + std::to_string(epoch));
  DIMS_TRY(finish(*id, version.id, version.record_bytes, &built, last_order));
  spdlog::info("version {} was our own commit whose reply had been lost", version.record.sequence);
  const std::lock_guard lock(mutex_);
  ++stats_.adopted;
  return ok_status();
}

Status WriteBack::make_branch() {
  LdimState state = parts_.state.current();
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
  const std::string stem = home.name + ".conflict-" + options_.machine_name + "-" + std::to_string(base_sequence);
  for (int suffix = 1; suffix < 1000; ++suffix) {
    branch.id = parts_.random.id<ImageId>();
    branch.key_check = parts_.key.key_check(branch.id);
    branch.name = suffix == 1 ? stem : stem + "-" + std::to_string(suffix);
    const auto made = parts_.remote.create_image(branch);
    if (made.ok()) break;
    if (made.error().code != ErrorCode::kAlreadyExists) return made.error();
  }
  state.image = branch.id;
  state.branch_name = branch.name;
  DIMS_TRY(parts_.state.store(state));
  parts_.fetcher.set_image(branch.id);
  parts_.lease.retarget(branch.id, state.session);
  spdlog::warn("another machine has written to {}: this session goes on as {}", home.name, branch.name);
  const std::lock_guard lock(mutex_);
  ++stats_.conflicts;
  return ok_status();
}

}  // namespace dims::ldim
