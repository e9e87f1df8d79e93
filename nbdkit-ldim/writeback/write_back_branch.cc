// WriteBack: what happens when the server's head is not what this session stands on.
#include <spdlog/spdlog.h>

#include <utility>

#include "nbdkit-ldim/writeback/rescue.h"
#include "nbdkit-ldim/writeback/write_back.h"

namespace dims::ldim {

Result<bool> WriteBack::resolve_foreign_head(const Error& refused) {
  const LdimState state = parts_.state.current();
  DIMS_ASSIGN(const contract::ImageInfo image, parts_.remote.get_image(state.image));
  const VersionId head = image.head.is_zero() ? image.origin : image.head;
  // Nobody has committed: when the lease is free again we go on.
  if (head == state.base && refused.code == ErrorCode::kLeaseHeld) return refused;
  DIMS_ASSIGN(const bool adopted, adopt_if_ours(state, head));
  if (adopted) return true;
  DIMS_TRY(make_branch());
  // The next attempt commits there.
  return make_error(ErrorCode::kConflict, "the image has another head; unsent writes go to " +
                                              parts_.state.current().branch_name);
}

// Our own commit whose reply was lost? Only the newest version may be: what stands above it is
// foreign.
Result<bool> WriteBack::adopt_if_ours(const LdimState& state, const VersionId& head) {
  DIMS_ASSIGN(const contract::VersionInfo newest, parts_.remote.get_version(state.image, head, 0));
  const auto ours = parts_.journal.commit_id(newest.record.commit.epoch);
  if (!ours || !(newest.id == head) || !check_ours(newest, state, *ours).ok()) return false;
  DIMS_TRY(adopt(newest));
  return true;
}

// Whether a version is one that this journal made on this base, by this very user: a server can
// copy what he has sent into a version of its own, and its word alone must not empty the journal.
Status WriteBack::check_ours(const contract::VersionInfo& version, const LdimState& state,
                             const CommitId& through) {
  const format::VersionRecord& record = version.record;
  const format::CommitPoint point{through.journal, through.epoch, through.digest};
  // A branch may stand on the server's head instead: rescue() brings all that is below as well.
  const bool stands_here = record.parent == state.base || !(state.image == state.home_image);
  if (!(record.commit == point) || !(record.image == state.image) || !stands_here) {
    return make_error(ErrorCode::kUntrusted,
                      "the server takes version " + std::to_string(record.sequence) +
                          " for a commit of this machine, and it is not",
                      "the writes stay in the journal; ask whoever runs the server");
  }
  return parts_.key->check_own(record);
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
  DIMS_ASSIGN(done.root, format::open_root(version.record, parts_.key->image_key(version.record)));
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

Status WriteBack::branch_off() {
  const std::lock_guard work(work_mutex_);
  return make_branch();
}

Status WriteBack::make_branch() {
  const LdimState state = parts_.state.current();
  DIMS_ASSIGN(const contract::ImageInfo home, parts_.remote.get_image(state.home_image));
  std::uint64_t base_sequence = 0;
  if (!state.base_record.empty()) {
    DIMS_ASSIGN(const auto base, format::decode_version(state.base_record, false));
    base_sequence = base.sequence;
  }
  const auto branch = create_branch(home, state.base, base_sequence);
  // The server does not know the version that we stand on.
  if (!branch.ok() && branch.error().code == ErrorCode::kNotFound) return rescue();
  if (!branch.ok()) return branch.error();
  DIMS_TRY(enter_branch(*branch));
  spdlog::warn("the head of {} is not what these writes stand on: they go to {}", home.name,
               branch->name);
  return ok_status();
}

Result<contract::ImageInfo> WriteBack::create_branch(const contract::ImageInfo& home,
                                                     const VersionId& origin,
                                                     std::uint64_t sequence) {
  const LdimState state = parts_.state.current();
  contract::ImageInfo branch;
  branch.image_bytes = state.image_bytes;
  branch.tree = state.tree;
  branch.domain = parts_.key->domain;
  branch.origin = origin;
  branch.conflict_of = home.name;
  // The id is recorded before it is used: after a lost reply or a crash the same branch is asked
  // for again.
  branch.id = state.planned_branch.is_zero() ? parts_.random.id<ImageId>() : state.planned_branch;
  branch.key_check = parts_.key->key_check(branch.id);
  const std::string stem =
      home.name + ".conflict-" + options_.machine_name + "-" + std::to_string(sequence);
  branch.name = state.planned_name.empty() ? stem : state.planned_name;
  constexpr int kMaxNames = 1000;
  bool planned = !state.planned_branch.is_zero();
  Status made = make_error(ErrorCode::kInternal, "no name tried");
  for (int suffix = 2; suffix <= kMaxNames;) {
    DIMS_TRY(parts_.state.update([&](LdimState& s) {
      s.planned_branch = branch.id;
      s.planned_name = branch.name;
    }));
    const auto answer = parts_.remote.create_image(branch);
    made = answer.ok() ? ok_status() : Status(answer.error());
    if (made.ok() || made.error().code != ErrorCode::kAlreadyExists) break;
    if (std::exchange(planned, false)) {
      const auto there = parts_.remote.get_image(branch.id);
      if (there.ok()) {
        // An attempt that was cut short made it on another version: of no use, and perhaps empty.
        if (there->head.is_zero() || there->head == there->origin)
          (void)parts_.remote.remove_image(branch.id).ok();
        branch.id = parts_.random.id<ImageId>();
        branch.key_check = parts_.key->key_check(branch.id);
        continue;
      }
    }
    branch.name = stem + "-" + std::to_string(suffix++);
  }
  DIMS_TRY(made);
  return branch;
}

Status WriteBack::enter_branch(const contract::ImageInfo& branch) {
  DIMS_TRY(parts_.state.update([&](LdimState& s) {
    s.image = branch.id;
    s.branch_name = branch.name;
    s.planned_branch = ImageId{};
    s.planned_name.clear();
  }));
  parts_.fetcher.set_image(branch.id);
  parts_.lease.retarget(branch.id, parts_.state.current().session);
  const std::lock_guard lock(mutex_);
  ++stats_.conflicts;
  return ok_status();
}

bool WriteBack::lost_branch(const Error& refused) {
  const LdimState state = parts_.state.current();
  if (state.image == state.home_image || !is_absent(refused)) return false;
  const auto branch = parts_.remote.get_image(state.image);
  return !branch.ok() && is_absent(branch.error()) &&
         parts_.remote.get_image(state.home_image).ok();
}

void WriteBack::leave_lost_branch() {
  const std::lock_guard work(work_mutex_);
  const Error gone = make_error(ErrorCode::kNotFound, "the branch is not on the server any more");
  if (lost_branch(gone)) spdlog::warn("{}", leave_branch(gone).to_string());
}

// What this session has read and not sent stands on the branch's last version. The next commit
// finds another head on the image, and makes a branch of that version.
Error WriteBack::leave_branch(const Error& gone) {
  const LdimState state = parts_.state.current();
  const Status stored = parts_.state.update([](LdimState& s) {
    s.image = s.home_image;
    s.branch_name.clear();
  });
  if (!stored.ok()) return stored.error();
  parts_.fetcher.set_image(state.home_image);
  parts_.lease.retarget(state.home_image, state.session);
  return make_error(ErrorCode::kConflict,
                    "the branch " + state.branch_name +
                        " of this session was removed: what it writes goes to another (" +
                        gone.message + ")");
}

// What an attempt that was cut short has made and entered, if it is still empty; else a new one on
// the head.
Result<contract::ImageInfo> WriteBack::rescue_branch(const LdimState& state,
                                                     const contract::ImageInfo& home,
                                                     std::uint64_t sequence) {
  if (!(state.image == state.home_image)) {
    auto own = parts_.remote.get_image(state.image);
    if (own.ok() && !own->origin.is_zero() && !(own->origin == state.base) &&
        own->head == own->origin)
      return own;
  }
  return create_branch(home, home.head.is_zero() ? home.origin : home.head, sequence);
}

Status WriteBack::rescue() {
  const LdimState state = parts_.state.current();
  DIMS_ASSIGN(const contract::ImageInfo home, parts_.remote.get_image(state.home_image));
  DIMS_ASSIGN(const format::VersionRecord base, format::decode_version(state.base_record, false));
  spdlog::warn("the server does not know version {} of {}: bringing it what this machine has",
               base.sequence, home.name);
  DIMS_ASSIGN(const contract::ImageInfo branch, rescue_branch(state, home, base.sequence));
  const VersionId head = branch.origin;
  DIMS_ASSIGN(const contract::VersionInfo newest, parts_.remote.get_version(branch.id, head, 0));

  const auto key = parts_.key.get();
  const format::DomainKey domain_key = key->domain_key();
  const HeldCommit held = parts_.journal.hold();
  const CommitId& through = held.through;
  const auto records = parts_.journal.records(state.committed.epoch, through.epoch);
  Committed done;
  done.through = through;
  for (const JournalRecord& record : records)
    done.last_order = std::max(done.last_order, record.order);
  tree::TreeShape shape = parts_.reader.tree().shape();
  tree::Uploader uploader(parts_.remote, branch.id, {});
  // The base first: what is built on it refers to its objects, and they must be there before.
  DIMS_TRY(upload_tree({parts_.remote, parts_.fetcher, uploader, domain_key, branch.id}, shape));
  DIMS_TRY(uploader.finish());
  if (!records.empty()) {
    const tree::Cutter cutter(domain_key, state.tree.chunk_mean_bytes);
    DIMS_ASSIGN(BuiltCommit built,
                build_commit({parts_.journal, parts_.reader, parts_.fetcher, parts_.cache,
                              domain_key, cutter, uploader, options_.compress},
                             records));
    DIMS_TRY(uploader.finish());
    shape.root = built.root;
    done.touched = std::move(built.touched);
  }
  done.root = shape.root;

  if (!(branch.id == state.image)) DIMS_TRY(enter_branch(branch));
  DIMS_ASSIGN(const contract::LeaseGrant lease, parts_.lease.ensure());
  LdimState stands = parts_.state.current();
  stands.base = head;
  stands.base_record = newest.record_bytes;
  contract::CommitOrder order;
  order.image = branch.id;
  order.lease = lease.lease;
  order.token = lease.token;
  order.parent = head;
  order.record = make_record(*key, stands, done.root, through);
  parts_.journal.offer(through.epoch);  // the reply may get lost
  DIMS_ASSIGN(const contract::CommitAnswer answer, parts_.remote.commit(order));
  if (!answer.missing.empty()) {
    return make_error(ErrorCode::kMissingObjects, "the server lacks " +
                                                      std::to_string(answer.missing.size()) +
                                                      " objects of the rescued version");
  }
  done.version = answer.version;
  done.record = std::move(order.record);
  if (!(answer.version == format::version_id(done.record))) {
    DIMS_ASSIGN(const contract::VersionInfo first,
                parts_.remote.get_version(branch.id, answer.version, 0));
    stands.image = branch.id;
    DIMS_TRY(check_ours(first, stands, through));
    done.record = first.record_bytes;
    DIMS_ASSIGN(done.root, format::open_root(first.record, parts_.key->image_key(first.record)));
  }
  DIMS_TRY(finish(std::move(done)));
  spdlog::warn("this machine's state of {} is kept on the server as {}", home.name, branch.name);
  return ok_status();
}

}  // namespace dims::ldim
