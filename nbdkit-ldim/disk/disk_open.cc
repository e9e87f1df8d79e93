// Disk: opening, and what a session starts with.
#include <spdlog/spdlog.h>

#include <thread>

#include "common/base/wire.h"
#include "nbdkit-ldim/disk/disk.h"

namespace dims::ldim {
namespace {

constexpr std::size_t kTreeMemoryBytes = 32 * kMiB;
constexpr std::size_t kDisklessTreeMemoryBytes = 16 * kMiB;

bool is_away(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded;
}

}  // namespace

Disk::Disk(const DiskOptions& options, const DiskEnvironment& environment)
    : options_(options), environment_(environment) {}

Result<std::unique_ptr<Disk>> Disk::open(const DiskOptions& options,
                                         const DiskEnvironment& environment) {
  std::unique_ptr<Disk> disk(new Disk(options, environment));
  DIMS_TRY(disk->start());
  return disk;
}

Status Disk::start() {
  DIMS_ASSIGN(key_, format::load_key_file(options_.key_path));
  root_ = options_.diskless() ? "mem:" : options_.cache_folder;
  DIMS_TRY(find_out(online_at_start_));
  DIMS_TRY(open_folder());
  PageCacheOptions cache_options;
  cache_options.folder = root_ + "/cache";
  cache_options.machine = identity_.machine;
  cache_options.image = identity_.image;
  cache_options.key = keys_.pages;
  cache_options.limit_bytes = options_.cache_bytes;
  DIMS_ASSIGN(cache_, PageCache::open(environment_.fs, cache_options, environment_.random));
  fetcher_ = std::make_unique<Fetcher>(environment_.remote, *cache_, state_at_start_.image,
                                       environment_.quitting);
  image_bytes_ = state_at_start_.image_bytes;

  tree::TreeShape shape;
  shape.parameters = state_at_start_.tree;
  shape.image_bytes = state_at_start_.image_bytes;
  if (!state_at_start_.base.is_zero()) {
    DIMS_ASSIGN(const auto record, format::decode_version(state_at_start_.base_record));
    if (!(record.signer == key_.signing.public_key)) {
      return make_error(ErrorCode::kWrongKey,
                        "the base version was not signed by the key file's signer",
                        "use the key file that the image was imported with");
    }
    DIMS_ASSIGN(shape.root, format::open_root(record, key_.image_key(record.image)));
  }
  tree_ = std::make_unique<BaseTree>(
      *fetcher_, shape, options_.diskless() ? kDisklessTreeMemoryBytes : kTreeMemoryBytes);
  reader_ = std::make_unique<BaseReader>(*tree_, *cache_, *fetcher_);
  DIMS_TRY(open_journal());

  contract::LeaseRequest lease_request;
  lease_request.image = state_at_start_.image;
  lease_request.session = state_at_start_.session;
  lease_request.machine = identity_.machine;
  lease_request.machine_name = options_.machine_name;
  lease_ = std::make_unique<LeaseKeeper>(environment_.remote, lease_request);
  if (options_.mode == SessionMode::kPersonal) {
    WriteBackOptions write_back;
    write_back.policy = options_.write_back;
    write_back.delay = options_.write_back_delay;
    write_back.compress = options_.compress;
    write_back.machine_name = options_.machine_name;
    write_back.at_step = environment_.at_step;
    write_back_ = std::make_unique<WriteBack>(
        WriteBackParts{environment_.remote, *journal_, pending_, *reader_, *fetcher_, *cache_,
                       *state_, *lease_, key_, environment_.clock, environment_.random,
                       identity_.machine},
        write_back);
  }
  DIMS_TRY(begin_or_resume(online_at_start_, false));
  if (options_.read_ahead) {
    read_ahead_ = std::make_unique<ReadAhead>(*reader_, pages_for(size()), ReadAheadOptions{});
  }
  if (write_back_ != nullptr) write_back_->start();
  if (tidy_ != nullptr) tidy_->start();
  watch_thread_ = std::thread([this] { watch(); });
  return ok_status();
}

// Asks the server for the image and checks the key, before anything is written. Away is no error if
// the folder knows the image.
Status Disk::find_out(bool& online) {
  online = false;
  std::optional<FolderIdentity> known;
  if (!options_.diskless()) {
    DIMS_ASSIGN(known, read_identity(environment_.fs, root_));
  }
  const auto give_up = environment_.clock.boottime() + options_.connect_wait;
  for (;;) {
    const auto hello = environment_.remote.hello();
    auto image = hello.ok() ? environment_.remote.find_image(options_.image)
                            : Result<contract::ImageInfo>(hello.error());
    if (image.ok()) {
      online = true;
      image_ = std::move(image).value();
      break;
    }
    if (!is_away(image.error())) return image.error();
    if (environment_.clock.boottime() >= give_up) {
      if (known) break;
      Error error = image.error();
      error.message = "the server cannot be reached and " +
                      (options_.diskless() ? std::string("there is no cache")
                                           : root_ + " has never seen image " + options_.image) +
                      ": " + error.message;
      error.hint = "start once with the server reachable";
      return error;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  if (online) {
    if (!(image_.key_check == key_.key_check(image_.id))) {
      return make_error(
          ErrorCode::kWrongKey,
          "the key file " + options_.key_path + " does not belong to image " + options_.image,
          "use the key file that the image was imported with");
    }
    if (image_.head.is_zero() && image_.origin.is_zero()) {
      return make_error(ErrorCode::kNotFound, "image " + options_.image + " has no version yet",
                        "finish its import with 'rdim image import'");
    }
    if (known && !(known->image == image_.id)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "cache folder " + root_ + " belongs to another image (id " +
                            known->image.hex() + ", but " + options_.image + " is " +
                            image_.id.hex() + ")",
                        "give each image a cache folder of its own");
    }
    return ok_status();
  }
  spdlog::warn("the server {} cannot be reached: working from {}", options_.server, root_);
  image_.id = known->image;
  image_.name = options_.image;
  return ok_status();
}

Status Disk::open_folder() {
  if (options_.diskless()) {
    identity_ = {environment_.random.id<MachineId>(), image_.id, key_.key_check(image_.id)};
    keys_ = {environment_.random.id<Secret32>(), environment_.random.id<Secret32>(),
             environment_.random.id<Secret32>()};
    DIMS_TRY(environment_.fs.make_folder(root_));
  } else {
    // A key that does not fit is refused before the folder is touched (find_out, or the identity
    // here).
    DIMS_ASSIGN(const auto known, read_identity(environment_.fs, root_));
    if (known && !(known->key_check == key_.key_check(known->image))) {
      return make_error(
          ErrorCode::kWrongKey,
          "the key file " + options_.key_path + " does not belong to cache folder " + root_,
          "use the key file that the image was imported with");
    }
    DIMS_TRY(environment_.fs.make_folder(root_));
    if (&environment_.fs == &io::posix_file_system()) {
      DIMS_ASSIGN(lock_, FolderLock::take(root_));
    }
    DIMS_ASSIGN(identity_,
                prepare_folder(environment_.fs, root_, image_.id, key_, environment_.random));
    DIMS_ASSIGN(keys_,
                open_folder_keys(environment_.fs, root_, identity_, key_, environment_.random));
  }
  // Each mode has a base of its own: unsent personal epochs must never see theirs move.
  const std::string suffix =
      options_.mode == SessionMode::kPersonal ? "" : "-" + std::string(mode_name(options_.mode));
  state_ = std::make_unique<StateFile>(environment_.fs, root_ + "/state" + suffix, keys_.state,
                                       identity_.machine, environment_.random);
  DIMS_ASSIGN(const auto known_state, state_->load());
  if (known_state) {
    state_at_start_ = *known_state;
    if (!online_at_start_ && state_at_start_.image_name != options_.image) {
      return make_error(ErrorCode::kInvalidArgument,
                        "cache folder " + root_ + " belongs to image " +
                            state_at_start_.image_name + ", not " + options_.image,
                        "give each image a cache folder of its own");
    }
    return ok_status();
  }
  if (!online_at_start_) {
    return make_error(
        ErrorCode::kUnavailable,
        "the server cannot be reached and " + root_ + " holds no version of " + options_.image,
        "start once with the server reachable");
  }
  LdimState fresh;
  fresh.image_name = options_.image;
  fresh.home_image = image_.id;
  fresh.image = image_.id;
  fresh.session = environment_.random.id<SessionId>();
  fresh.mode = mode_name(options_.mode);
  fresh.boot_id = host_boot_id();
  fresh.image_bytes = image_.image_bytes;
  fresh.tree = image_.tree;
  const VersionId start = image_.head.is_zero() ? image_.origin : image_.head;
  DIMS_ASSIGN(const contract::VersionInfo head,
              environment_.remote.get_version(image_.id, start, 0));
  fresh.base = head.id;
  fresh.base_record = head.record_bytes;
  state_at_start_ = fresh;
  return state_->store(fresh);
}

Status Disk::open_journal() {
  if (options_.mode == SessionMode::kReadOnly) return ok_status();
  // A shared session's writes live in a journal of their own, which its end throws away.
  const bool shared = options_.mode == SessionMode::kShared;
  const std::string folder = root_ + (shared ? "/scratch" : "/journal");
  const bool resumes = resumable();
  if (shared && !resumes) {
    DIMS_ASSIGN(const bool there, environment_.fs.exists(folder));
    if (there) {
      DIMS_ASSIGN(const auto names, environment_.fs.list(folder));
      for (const std::string& name : names) DIMS_TRY(environment_.fs.remove(folder + "/" + name));
    }
  }
  JournalOptions journal;
  journal.folder = folder;
  journal.machine = identity_.machine;
  journal.image = identity_.image;
  journal.session = state_at_start_.session;
  journal.key = keys_.journal;
  journal.limit_bytes = options_.journal_bytes;
  if (options_.diskless()) journal.segment_bytes = 16 * kMiB;
  DIMS_TRY(environment_.fs.make_folder(folder));
  auto opened = Journal::open(environment_.fs, journal, environment_.clock, environment_.random);
  if (!opened.ok() && opened.error().code == ErrorCode::kNoSpace) {
    // The cache yields first: what is in it can be fetched again, what the guest writes cannot.
    DIMS_TRY(cache_->yield_space(2 * journal.segment_bytes));
    opened = Journal::open(environment_.fs, journal, environment_.clock, environment_.random);
  }
  if (!opened.ok()) return opened.error();
  journal_ = std::move(opened).value();
  const bool same_journal = journal_->id() == state_at_start_.committed.journal;
  const std::uint64_t committed = same_journal && !shared ? state_at_start_.committed.epoch : 0;
  if (!shared && !same_journal && committed == 0) {
    state_at_start_.committed = {journal_->id(), 0, {}};
    DIMS_TRY(state_->store(state_at_start_));
  }
  const JournalStats stats = journal_->stats();
  if (!shared && stats.trimmed_epoch > committed) {
    return make_error(ErrorCode::kCorrupt,
                      "the state file in " + root_ + " is older than its journal (epoch " +
                          std::to_string(committed) + ", journal begins after " +
                          std::to_string(stats.trimmed_epoch) +
                          "): it was restored from an old copy",
                      "use a new cache folder; this one's unsent writes can be recovered with its "
                      "newest state file");
  }
  // A crash between base record and trim leaves records that the base holds already.
  if (!shared && committed > journal_->synced().epoch) {
    return make_error(ErrorCode::kCorrupt,
                      "the journal in " + root_ +
                          " is older than the state file (it ends with epoch " +
                          std::to_string(journal_->synced().epoch) + ", the base holds epoch " +
                          std::to_string(committed) + "): it was restored from an old copy",
                      "nothing is lost that was committed: start with a new cache folder");
  }
  if (!shared && committed > stats.trimmed_epoch) DIMS_TRY(journal_->trim(committed));
  for (const JournalRecord& record : journal_->records(committed, ~std::uint64_t{0}))
    pending_.insert(record);
  tidy_ = std::make_unique<JournalTidy>(*journal_, pending_);
  return ok_status();
}

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
  const SessionId session = environment_.random.id<SessionId>();
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
// not.
Status Disk::take_lease() {
  auto lease = lease_->ensure();
  if (lease.ok()) return ok_status();
  if (is_away(lease.error())) return ok_status();
  if (lease.error().code != ErrorCode::kLeaseHeld) return lease.error();
  DIMS_ASSIGN(const contract::ImageInfo info,
              environment_.remote.get_image(state_->current().image));
  if (!info.holder) return lease_->ensure().ok() ? ok_status() : Status(lease.error());
  const auto give_up =
      environment_.clock.boottime() + info.holder->expires_in + std::chrono::seconds(1);
  spdlog::warn("waiting up to {} s for the lease: {}", info.holder->expires_in.count() / 1000,
               lease.error().to_string());
  while (environment_.clock.boottime() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    lease = lease_->ensure();
    if (lease.ok()) return ok_status();
  }
  return lease.error();
}

// The head must stand on what this machine knows; otherwise the server lost history (restored from
// a backup?).
Status Disk::check_descends(const VersionId& head, std::uint64_t head_sequence,
                            const VersionId& base) {
  if (head == base) return ok_status();
  DIMS_ASSIGN(const auto base_record, format::decode_version(state_->current().base_record, false));
  // The last session ended on a conflict branch: that is an image of its own, and stays.
  if (!(base_record.image == state_->current().home_image)) return ok_status();
  const auto foreign = [&] {
    return make_error(
        ErrorCode::kOtherHistory,
        "the server's history of " + options_.image + " does not contain version " +
            std::to_string(base_record.sequence) +
            " that this machine knows (its head is version " + std::to_string(head_sequence) +
            "): the server was restored from an older copy, or replaced",
        "nothing was overwritten; give other-history=accept to start on the server's head, "
        "or use another cache folder");
  };
  if (head_sequence <= base_record.sequence) return foreign();
  const std::uint64_t steps = head_sequence - base_record.sequence + 1;
  DIMS_ASSIGN(const auto versions,
              environment_.remote.list_versions(state_->current().home_image,
                                                static_cast<std::uint32_t>(steps)));
  for (const contract::VersionInfo& version : versions) {
    if (version.id == base || version.record.parent == base) return ok_status();
  }
  return foreign();
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
  const Status descends = check_descends(head, image.head_sequence, state.base);
  if (!descends.ok() &&
      !(descends.error().code == ErrorCode::kOtherHistory && options_.accept_other_history))
    return descends;
  DIMS_ASSIGN(const contract::VersionInfo version,
              environment_.remote.get_version(image.id, head, 0));
  if (!(version.record.signer == key_.signing.public_key)) {
    return make_error(
        ErrorCode::kWrongKey,
        "version " + std::to_string(version.record.sequence) + " was signed by somebody else",
        "use the key file that the image was imported with");
  }
  tree::TreeShape shape = tree_->shape();
  DIMS_ASSIGN(shape.root, format::open_root(version.record, key_.image_key(version.record.image)));
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
    s.base = head;
    s.base_record = version.record_bytes;
  }));
  tree_->reset(shape);
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
  const auto answer = environment_.remote.open_session(request);
  if (!answer.ok()) return answer.error();
  const std::lock_guard lock(watch_mutex_);
  known_head_ = answer->image.head;
  known_head_sequence_ = answer->image.head_sequence;
  return ok_status();
}

}  // namespace dims::ldim
