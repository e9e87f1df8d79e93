// Disk: opening a cache folder, its journal and its parts.
#include <spdlog/spdlog.h>

#include <thread>

#include "common/base/parse.h"
#include "common/contract/image_head.h"
#include "nbdkit-ldim/disk/disk.h"

namespace dims::ldim {
namespace {

constexpr std::size_t kTreeMemoryBytes = 32 * kMiB;
constexpr std::size_t kDisklessTreeMemoryBytes = 16 * kMiB;

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
  if (options_.keys) {
    key_.set(options_.keys);
  } else {
    DIMS_ASSIGN(format::KeyFile keys, format::load_key_file(options_.key_path));
    key_.set(std::make_shared<const format::KeyFile>(std::move(keys)));
  }
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
    DIMS_TRY(key_->check_signer(record));
    DIMS_ASSIGN(shape.root, format::open_root(record, key_->image_key(record)));
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
  make_write_back();
  if (online_at_start_ && write_back_ != nullptr && !options_.diskless()) {
    DIMS_ASSIGN(const bool restored, journal_is_restored());
    if (restored) {
      spdlog::warn("{} was restored from an old copy: the server knows newer writes of its journal",
                   root_);
      DIMS_TRY(replace_restored_journal());
    }
  }
  DIMS_TRY(branch_what_was_salvaged());
  DIMS_TRY(begin_or_resume(online_at_start_, false));
  if (options_.read_ahead) {
    read_ahead_ = std::make_unique<ReadAhead>(*reader_, pages_for(size()), ReadAheadOptions{});
  }
  if (options_.fill) {
    fill_ = std::make_unique<Fill>(Fill::Parts{environment_.remote, *reader_, *tree_, *cache_,
                                               environment_.clock, pages_for(size())});
  }
  if (!options_.diskless()) {
    version_fetch_ = std::make_unique<VersionFetch>(
        VersionFetch::Parts{environment_.remote, *fetcher_, *cache_, *tree_, key_});
    const std::lock_guard lock(watch_mutex_);
    if (!known_head_.is_zero() && !(known_head_ == state_at_start_.base))
      version_fetch_->announce(state_at_start_.image, known_head_);
  }
  if (write_back_ != nullptr) write_back_->start();
  if (tidy_ != nullptr) tidy_->start();
  watch_thread_ = std::thread([this] { watch(); });
  environment_.remote.on_rebuilt([this] { on_rebuilt(); });
  return ok_status();
}

void Disk::make_write_back() {
  if (options_.mode != SessionMode::kPersonal) return;
  WriteBackOptions write_back;
  write_back.policy = options_.write_back;
  write_back.delay = options_.write_back_delay;
  write_back.seal_after = options_.seal_after;
  write_back.compress = options_.compress;
  write_back.machine_name = options_.machine_name;
  write_back.at_step = environment_.at_step;
  write_back.on_handed_over = [this] { on_handed_over(); };
  write_back_ = std::make_unique<WriteBack>(
      WriteBackParts{environment_.remote, *journal_, pending_, *reader_, *fetcher_, *cache_,
                     *state_, *lease_, key_, environment_.clock, environment_.random,
                     identity_.machine},
      write_back);
  lease_->set_unsent([this] {
    const JournalStats stats = journal_->stats();
    if (stats.synced_epoch <= state_->current().committed.epoch) return std::uint64_t{0};
    return write_back_->unsent_bytes();
  });
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
    if (!(image_.key_check == key_->key_check(image_.id))) {
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
  const auto key = key_.get();
  if (options_.diskless()) {
    identity_ = {environment_.random.id<MachineId>(), image_.id, key_->key_check(image_.id)};
    keys_ = {environment_.random.id<Secret32>(), environment_.random.id<Secret32>(),
             environment_.random.id<Secret32>()};
    DIMS_TRY(environment_.fs.make_folder(root_));
  } else {
    // A key that does not fit is refused before the folder is touched (find_out, or the identity
    // here).
    DIMS_ASSIGN(const auto known, read_identity(environment_.fs, root_));
    if (known && !(known->key_check == key_->key_check(known->image))) {
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
                prepare_folder(environment_.fs, root_, image_.id, *key, environment_.random));
    DIMS_ASSIGN(keys_,
                open_folder_keys(environment_.fs, root_, identity_, *key, environment_.random));
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
  if (options_.mode == SessionMode::kPersonal) {
    // Its writes stand on the version that the state named: on any other they would be a disk that
    // never was.
    DIMS_ASSIGN(const bool orphaned, holds_files(environment_.fs, root_ + "/journal"));
    if (orphaned) {
      return make_error(ErrorCode::kCorrupt,
                        "the file state in " + root_ +
                            " is missing, and there is a journal whose writes stand on it",
                        "put the file back; or, to give up what was not sent, use a new cache "
                        "folder");
    }
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
  fresh.session = new_session(folder_tag(keys_), environment_.random);
  fresh.mode = mode_name(options_.mode);
  fresh.boot_id = host_boot_id();
  fresh.image_bytes = image_.image_bytes;
  fresh.tree = image_.tree;
  const VersionId start = image_.head.is_zero() ? image_.origin : image_.head;
  DIMS_ASSIGN(const contract::VersionInfo head,
              environment_.remote.get_version(image_.id, start, 0));
  DIMS_TRY(contract::check_head(image_, head, *key_.get()));
  fresh.base = fresh.home_base = head.id;
  fresh.base_record = head.record_bytes;
  fresh.home_sequence = head.record.sequence;
  state_at_start_ = fresh;
  return state_->store(fresh);
}

Status Disk::open_journal() {
  if (options_.mode == SessionMode::kReadOnly) return ok_status();
  // A shared session's writes live in a journal of their own, which its end throws away.
  const bool shared = options_.mode == SessionMode::kShared;
  const std::string folder = root_ + (shared ? "/scratch" : "/journal");
  DIMS_ASSIGN(const bool salvaging, holds_files(environment_.fs, root_ + "/" + kSalvageFolder));
  DIMS_ASSIGN(const bool noted, environment_.fs.exists(root_ + "/" + kSalvageNote));
  if (!shared && salvaging && noted) {
    return make_error(ErrorCode::kCorrupt,
                      "a salvage of the journal in " + root_ + " was interrupted",
                      "run 'ldim salvage' again");
  }
  const bool resumes = resumable();
  if (shared && !resumes) DIMS_TRY(empty_folder(environment_.fs, folder));
  DIMS_ASSIGN(const RestoredNote restored, restored_note());
  if (!shared && restored.all_sent) DIMS_TRY(empty_folder(environment_.fs, folder));
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
  // A start that one notices explains itself.
  constexpr double kLongSeconds = 2;
  spdlog::log(stats.recovery_seconds < kLongSeconds ? spdlog::level::info : spdlog::level::warn,
              "the journal was read in {:.2f} s: {}, {} records not yet on the server",
              stats.recovery_seconds, format_size(stats.recovery_bytes), stats.recovered_records);
  return ok_status();
}

Result<bool> Disk::journal_is_restored() {
  DIMS_ASSIGN(const RestoredNote note, restored_note());
  return !note.began_on.is_zero() || knows_newer();
}

// Whether the server has other or newer epochs of this journal than the folder.
bool Disk::knows_newer() {
  const LdimState state = state_->current();
  contract::SessionRequest request;
  request.image = state.image;
  request.session = state.session;
  request.machine = identity_.machine;
  request.machine_name = options_.machine_name;
  request.mode = state.mode;
  request.base = state.base;  // it stays pinned
  request.journal = journal_->id();
  request.unsent_bytes = pending_.covered_bytes();
  auto answer = environment_.remote.open_session(request);
  if (!answer.ok() && !is_away(answer.error()) && !request.base.is_zero()) {
    request.base = {};  // let go, or of another history: the journal may be known all the same
    answer = environment_.remote.open_session(request);
  }
  if (!answer.ok()) {
    spdlog::warn("the server was not asked for this journal: {}", answer.error().to_string());
    return false;
  }
  if (!answer->newest_of_journal) return false;
  const format::CommitPoint& theirs = *answer->newest_of_journal;
  if (theirs.epoch > journal_->synced().epoch) return true;
  const auto ours = journal_->commit_id(theirs.epoch);
  return ours && !(ours->digest == theirs.digest);
}

// The journal was damaged, and holds what could be proven of it. The guest knew more: it must not
// go on as if nothing had happened.
Status Disk::branch_what_was_salvaged() {
  if (options_.diskless() || write_back_ == nullptr) return ok_status();
  const std::string note = root_ + "/" + kSalvageNote;
  DIMS_ASSIGN(const bool salvaged, environment_.fs.exists(note));
  if (!salvaged) return ok_status();
  if (!online_at_start_) {
    return make_error(ErrorCode::kUnavailable,
                      "the journal in " + root_ +
                          " was salvaged, and what it holds goes to the server first, as a branch",
                      "start once with the server reachable");
  }
  spdlog::warn("{}: the journal was salvaged", root_);
  DIMS_TRY(replace_restored_journal());
  return environment_.fs.remove(note);
}

// Its epochs have numbers that the server knows with other content. So what is unsent goes to a
// branch, and whatever comes later to a journal with a name of its own. Cut short anywhere it is
// gone on with: the note says on which image it began.
Status Disk::replace_restored_journal() {
  const auto unsent = [&] { return journal_->synced().epoch > state_->current().committed.epoch; };
  DIMS_ASSIGN(const RestoredNote note, restored_note());
  const ImageId began_on = note.began_on.is_zero() ? state_->current().image : note.began_on;
  if (note.began_on.is_zero()) DIMS_TRY(note_restored({began_on, false}));
  if (unsent()) {
    if (state_->current().image == began_on) DIMS_TRY(write_back_->branch_off());
    while (unsent()) {
      DIMS_ASSIGN(const bool sent, write_back_->run_once());
      if (!sent) break;
    }
    spdlog::warn("its unsent writes are kept as {}", state_->current().branch_name);
  }
  lease_->set_unsent({});
  write_back_.reset();
  tidy_.reset();
  pending_.clear();
  journal_.reset();
  // From here on what is left of its files is of no use, and may be a part of it only.
  DIMS_TRY(note_restored({began_on, true}));
  DIMS_TRY(empty_folder(environment_.fs, root_ + "/journal"));
  DIMS_TRY(state_->update([](LdimState& s) {
    s.session_open = false;
    s.committed = {};
  }));
  state_at_start_ = state_->current();
  DIMS_TRY(open_journal());
  make_write_back();
  return environment_.fs.remove(root_ + "/" + kRestoredNote);
}

Result<Disk::RestoredNote> Disk::restored_note() {
  const std::string path = root_ + "/" + kRestoredNote;
  RestoredNote note;
  DIMS_ASSIGN(const bool there, environment_.fs.exists(path));
  if (!there) return note;
  DIMS_ASSIGN(const Bytes bytes, io::read_file(environment_.fs, path, 64));
  if (bytes.size() != note.began_on.bytes.size() + 1) {
    return make_error(ErrorCode::kCorrupt, "the file " + path + " is damaged",
                      "remove it; the writes of a restored journal may then go to two branches");
  }
  std::copy(bytes.begin(), bytes.end() - 1, note.began_on.bytes.begin());
  note.all_sent = bytes.back() != 0;
  return note;
}

Status Disk::note_restored(const RestoredNote& note) {
  Bytes bytes(note.began_on.bytes.begin(), note.began_on.bytes.end());
  bytes.push_back(note.all_sent ? 1 : 0);
  return io::replace_file(environment_.fs, root_ + "/" + kRestoredNote, bytes);
}

}  // namespace dims::ldim
