// Disk: how a session begins or goes on: lease, base, what the server is told.
#include <spdlog/spdlog.h>

#include <thread>

#include "common/base/wire.h"
#include "common/contract/image_head.h"
#include "nbdkit-ldim/disk/disk.h"

namespace dims::ldim {

// A session goes on if its guest may still be alive: same boot of the host, not ended, and a client
// was here within session-grace. When in doubt it goes on: its base must not move under a guest.
bool Disk::resumable() const {
  if (options_.diskless() || !state_at_start_.session_open ||
      state_at_start_.mode != mode_name(options_.mode) ||
      state_at_start_.boot_id != host_boot_id()) {
    return false;
  }
  const auto note = io::read_file(environment_.fs, root_ + "/alive", 64);
  if (!note.ok() || note->size() != 8) return true;
  Reader r(*note);
  const std::chrono::nanoseconds seen(static_cast<std::int64_t>(r.u64()));
  return environment_.clock.boottime() - seen < options_.session_grace;
}

Status Disk::begin_or_resume(bool online, bool anew) {
  const bool resumes = !anew && resumable();
  if (resumes) {
    spdlog::info("session {} goes on, on version {}", state_at_start_.session.short_hex(),
                 state_at_start_.base.short_hex());
    if (online && options_.mode == SessionMode::kPersonal) {
      const auto lease = lease_->ensure();
      if (!lease.ok()) spdlog::warn("no lease yet: {}", lease.error().to_string());
    }
  } else {
    DIMS_TRY(start_new_session(online));
  }
  if (online) {
    const Status told = tell_server_of_session();
    if (!told.ok())
      spdlog::warn("the server did not take note of the session: {}", told.error().to_string());
  }
  return ok_status();
}

// A shared session's writes end with it.
Status Disk::drop_shared_writes() {
  DIMS_ASSIGN(const CommitId all, journal_->flush());
  DIMS_TRY(journal_->trim(all.epoch));
  pending_.clear();
  return ok_status();
}

Status Disk::start_new_session(bool online) {
  const bool personal = options_.mode == SessionMode::kPersonal;
  if (options_.mode == SessionMode::kShared) DIMS_TRY(drop_shared_writes());
  if (personal) {
    const auto sealed = journal_->flush();
    if (!sealed.ok()) return sealed.error();
  }
  LdimState state = state_->current();
  bool unsent = personal && journal_->synced().epoch > state.committed.epoch;
  if (unsent && online) {
    // Unsent epochs stand on the old base: they are stored before the base moves, on the image or
    // on a branch.
    for (int tries = 0; tries < 4 && unsent; ++tries) {
      const auto sent = write_back_->run_once();
      if (!sent.ok() && sent.error().code != ErrorCode::kConflict) {
        spdlog::warn("unsent writes stay here for now: {}", sent.error().to_string());
        break;
      }
      unsent = journal_->synced().epoch > state_->current().committed.epoch;
    }
    state = state_->current();
  }
  // From here to the end no commit may move the base as well.
  std::unique_lock<std::mutex> no_commit;
  if (write_back_ != nullptr) no_commit = write_back_->hold();
  // With unsent writes it keeps their base until the server is told of the new session.
  if (online && !unsent && !state.session.is_zero())
    (void)environment_.remote.close_session(state.image, state.session).ok();
  const SessionId session = new_session(folder_tag(keys_), environment_.random);
  told_ = false;
  DIMS_TRY(state_->update([&](LdimState& s) {
    s.session = session;
    s.mode = mode_name(options_.mode);
    s.boot_id = host_boot_id();
    s.session_open =
        false;  // until it has begun: a start that fails here is no session to go on with
    if (!unsent && !(s.image == s.home_image)) {
      spdlog::warn("the last session's writes are kept as {}", s.branch_name);
      s.image = s.home_image;
      s.branch_name.clear();
    }
  }));
  state = state_->current();
  fetcher_->set_image(state.image);
  lease_->retarget(state.image, state.session);
  if (online && personal) DIMS_TRY(take_lease());
  if (!unsent && online) {
    // Asked again under the lease: nobody else can move the head between this answer and our first
    // commit.
    DIMS_ASSIGN(image_, environment_.remote.get_image(state.home_image));
    DIMS_TRY(move_base(image_));
  }
  DIMS_TRY(state_->update([](LdimState& s) { s.session_open = true; }));
  state_at_start_ = state_->current();
  spdlog::info("session {} begins on version {}", state_at_start_.session.short_hex(),
               state_at_start_.base.short_hex());
  return ok_status();
}

// One writer at a time. A holder that does not renew (it crashed) is waited for; one that does is
// asked to send and release, or pushed aside, only if this machine's user says so; it is given up
// when it has sent nothing for so long.
Status Disk::take_lease() {
  auto lease = lease_->ensure();
  if (lease.ok() || is_away(lease.error())) return ok_status();
  if (lease.error().code != ErrorCode::kLeaseHeld) return lease.error();
  const ImageId image = state_->current().image;
  DIMS_ASSIGN(contract::ImageInfo info, environment_.remote.get_image(image));
  if (!info.holder) return lease_->ensure().ok() ? ok_status() : Status(lease.error());
  const bool asks = options_.lease != LeaseKeeper::LeaseAsk::kPlain;
  constexpr std::chrono::milliseconds kLongestWait = std::chrono::minutes(10);
  const std::chrono::milliseconds longest =
      asks ? options_.hand_off_wait
           : std::min(info.holder->expires_in + std::chrono::seconds(1), kLongestWait);
  auto give_up = environment_.clock.boottime() + longest;
  spdlog::warn("waiting up to {} s for the lease: {}", longest.count() / 1000,
               lease.error().to_string());
  constexpr std::chrono::milliseconds kPause{250};
  constexpr int kLookEvery = 8;
  auto left = info.holder->expires_in;
  std::uint64_t to_send = info.holder->unsent_bytes;
  for (int round = 1; environment_.clock.boottime() < give_up; ++round) {
    if (quitting() || halted_.load()) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
    lease = lease_->acquire(asks ? LeaseKeeper::LeaseAsk::kHandOff : LeaseKeeper::LeaseAsk::kPlain);
    if (lease.ok()) return ok_status();
    std::this_thread::sleep_for(kPause);
    if (round % kLookEvery != 0) continue;
    const auto now = environment_.remote.get_image(image);
    if (!now.ok() || !now->holder) continue;
    if (asks) {
      spdlog::warn("{} still has {} bytes to send", now->holder->machine_name,
                   now->holder->unsent_bytes);
      // A thin line is not a dead one: as long as it sends it is waited for.
      if (now->holder->unsent_bytes < to_send) give_up = environment_.clock.boottime() + longest;
      to_send = now->holder->unsent_bytes;
    } else if (now->holder->expires_in > left) {
      break;  // it renews: whoever has it is at work
    }
    left = now->holder->expires_in;
  }
  if (options_.lease != LeaseKeeper::LeaseAsk::kTakeOver) return lease.error();
  lease = lease_->acquire(LeaseKeeper::LeaseAsk::kTakeOver);
  if (!lease.ok()) return lease.error();
  spdlog::warn("took {} over from {}: what it has not sent becomes a branch of its own",
               options_.image, info.holder->machine_name);
  return ok_status();
}

// The head must stand on what this machine knows of the image; otherwise the server lost history
// (restored from a backup?). Each version names its parent's hash, so nothing in between can be
// left out or put in. What the last session left on a conflict branch is an image of its own.
Status Disk::check_descends(const contract::VersionInfo& head) {
  const LdimState state = state_->current();
  if (state.home_base.is_zero() || head.id == state.home_base) return ok_status();
  const auto foreign = [&] {
    return make_error(
        ErrorCode::kOtherHistory,
        "the server's history of " + options_.image + " does not contain version " +
            std::to_string(state.home_sequence) + " that this machine knows (its head is version " +
            std::to_string(head.record.sequence) +
            "): the server was restored from an older copy, or replaced",
        "nothing was overwritten; give other-history=accept to start on the server's head, "
        "or use another cache folder");
  };
  if (head.record.sequence <= state.home_sequence) return foreign();
  const std::uint64_t steps = head.record.sequence - state.home_sequence;
  DIMS_ASSIGN(const auto versions, environment_.remote.list_versions(
                                       state.home_image, static_cast<std::uint32_t>(steps)));
  VersionId next = head.id;
  // Committed since, by a machine that holds the lease as this one does not.
  std::uint64_t newer = 0;
  for (const contract::VersionInfo& version : versions) {
    if (version.record.sequence > head.record.sequence) {
      ++newer;
      continue;
    }
    if (!(version.id == next)) break;
    if (version.record.parent == state.home_base) return ok_status();
    next = version.record.parent;
  }
  // They took the place of as many at the list's end.
  for (; newer > 0 && !next.is_zero(); --newer) {
    DIMS_ASSIGN(const contract::VersionInfo version,
                environment_.remote.get_version(state.home_image, next, 0));
    if (version.record.parent == state.home_base) return ok_status();
    next = version.record.parent;
  }
  return foreign();
}

// What this machine knows and the server does not is brought there as a branch, before anything
// else: then nothing is lost whichever of the two the user goes on with.
Status Disk::meet_other_history(const Error& foreign) {
  if (options_.accept_other_history) return ok_status();
  if (write_back_ == nullptr) return foreign;
  const Status rescued = write_back_->rescue();
  Error error = foreign;
  if (!rescued.ok()) {
    error.message += "; this machine's state could not be stored there: " + rescued.error().message;
    return error;
  }
  // It has been told; the next start takes the server's head.
  DIMS_TRY(state_->update([](LdimState& s) {
    s.home_base = {};
    s.home_sequence = 0;
  }));
  error.message += "; this machine's state is now kept there as " + state_->current().branch_name;
  error.hint = "start again to go on from the server's head, or choose with 'rdim image resolve " +
               options_.image + "'";
  return error;
}

Status Disk::move_base(const contract::ImageInfo& image) {
  const LdimState state = state_->current();
  const VersionId head = image.head.is_zero() ? image.origin : image.head;
  {
    const std::lock_guard lock(watch_mutex_);
    known_head_ = head;
    known_head_sequence_ = image.head_sequence;
  }
  if (head == state.base) return ok_status();
  DIMS_ASSIGN(const contract::VersionInfo version,
              environment_.remote.get_version(image.id, head, 0));
  DIMS_TRY(contract::check_head(image, version, *key_.get()));
  if (version.record.image_bytes != state.image_bytes || !(version.record.tree == state.tree)) {
    return make_error(ErrorCode::kUntrusted,
                      "version " + std::to_string(version.record.sequence) + " of " +
                          options_.image + " has another size or tree than this disk",
                      "use another cache folder, if the image was made anew");
  }
  const Status descends = check_descends(version);
  if (!descends.ok() && descends.error().code == ErrorCode::kOtherHistory)
    DIMS_TRY(meet_other_history(descends.error()));
  else if (!descends.ok())
    return descends;
  tree::TreeShape shape = tree_->shape();
  DIMS_ASSIGN(shape.root, format::open_root(version.record, key_->image_key(version.record)));
  // The modified list: an optimisation, the new tree can always be walked.
  std::uint64_t nodes = 0;
  const Status listed =
      environment_.remote.diff(image.id, state.base, head, [&](contract::DiffPart part) {
        for (std::size_t i = 0; i < part.keys.size(); ++i) {
          if (!(format::object_id(part.nodes[i]) == part.keys[i].id)) continue;
          fetcher_->keep_node(part.keys[i].id, part.nodes[i]);
          ++nodes;
        }
        return true;
      });
  if (!listed.ok()) spdlog::warn("no modified list: {}", listed.error().to_string());
  DIMS_TRY(cache_->sync());
  DIMS_TRY(state_->update([&](LdimState& s) {
    s.base = s.home_base = head;
    s.base_record = version.record_bytes;
    s.home_sequence = version.record.sequence;
  }));
  tree_->reset(shape);
  if (fill_ != nullptr) fill_->restart();
  spdlog::info("base moved to version {} ({} changed nodes)", version.record.sequence, nodes);
  return ok_status();
}

Status Disk::tell_server_of_session() {
  const LdimState state = state_->current();
  contract::SessionRequest request;
  request.image = state.image;
  request.session = state.session;
  request.machine = identity_.machine;
  request.machine_name = options_.machine_name;
  request.mode = state.mode;
  request.base = state.base;
  if (journal_ != nullptr && options_.mode == SessionMode::kPersonal)
    request.journal = journal_->id();
  // Also what no flush has sealed yet.
  if (journal_ != nullptr) request.unsent_bytes = pending_.covered_bytes();
  const auto answer = environment_.remote.open_session(request);
  if (!answer.ok()) return answer.error();
  told_ = true;
  const std::lock_guard lock(watch_mutex_);
  known_head_ = answer->image.head;
  known_head_sequence_ = answer->image.head_sequence;
  note_branches(answer->image.branches);
  return ok_status();
}

}  // namespace dims::ldim
