// Disk: what ldim asks, what the server announces, and the end.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>
#include <nlohmann/json.hpp>

#include "nbdkit-ldim/disk/disk.h"

namespace dims::ldim {

using nlohmann::json;

namespace {

constexpr std::chrono::seconds kAliveNoteEvery{15};

constexpr std::chrono::seconds kHaltWait{30};  // for requests under way; they wait for nothing

double rate(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

// Also one that is just being made.
bool is_own_branch(const LdimState& state, const std::string& name) {
  return name == state.branch_name || name == state.planned_name;
}

}  // namespace

json Disk::status(bool verify) {
  const LdimState state = state_->current();
  const JournalStats journal = journal_ != nullptr ? journal_->stats() : JournalStats{};
  const PageCacheStats cache = cache_->stats();
  const contract::RemoteCounters remote = environment_.remote.counters();
  const WriteBackStats write_back =
      write_back_ != nullptr ? write_back_->stats() : WriteBackStats{};
  const ReadCounters& reads = reader_->counters();
  const FetchCounters& fetch = fetcher_->counters();
  std::uint64_t sequence = 0;
  if (!state.base_record.empty()) {
    const auto record = format::decode_version(state.base_record, false);
    if (record.ok()) sequence = record->sequence;
  }
  const bool personal = options_.mode == SessionMode::kPersonal;
  const std::uint64_t unsent_epochs = personal && journal.synced_epoch > write_back.committed_epoch
                                          ? journal.synced_epoch - write_back.committed_epoch
                                          : 0;
  json out;
  out["image"] = options_.image;
  out["image_id"] = state.image.hex();
  out["size_bytes"] = size();
  out["branch"] = state.branch_name;
  out["server"] = {{"address", options_.server},
                   {"connected", remote.connected},
                   {"losses", remote.losses},
                   {"rebuilt", remote.rebuilt},
                   {"rebuilt_because", remote.rebuilt_because},
                   {"network_changes", remote.network_changes}};
  {
    const std::lock_guard lock(gate_mutex_);
    out["halted"] = halted_.load() ? halted_why_.to_string() : std::string();
  }
  out["session"] = {
      {"id", state.session.hex()},
      {"mode", state.mode},
      {"machine", options_.machine_name},
      {"trouble", environment_.session_trouble ? environment_.session_trouble() : std::string()}};
  out["version"] = {{"sequence", sequence}, {"id", state.base.hex()}};
  {
    const std::lock_guard lock(watch_mutex_);
    out["head"] = {{"sequence", known_head_sequence_}, {"id", known_head_.hex()}};
    out["newer_version_available"] =
        !known_head_.is_zero() && !(known_head_ == state.base) && known_head_sequence_ > sequence;
    out["lease_wanted_by_other"] = !lease_wanted_by_.empty();
    out["lease_wanted_by"] = lease_wanted_by_;
    out["conflict_branches"] = json::array();
    for (const std::string& branch : branches_) {
      if (!is_own_branch(state, branch)) out["conflict_branches"].push_back(branch);
    }
  }
  const auto lease = lease_->held();
  out["lease"] = {{"held", lease.has_value()},
                  {"token", lease ? lease->token : 0},
                  {"trouble", lease_->trouble()}};
  out["journal"] = {{"bytes", journal.bytes},
                    {"limit_bytes", journal.limit_bytes},
                    {"records", journal.records},
                    {"pending_bytes", pending_.covered_bytes()},
                    {"open_epoch_bytes", journal.open_epoch_bytes},
                    {"open_epoch_records", journal.open_epoch_records},
                    {"sealed_epoch", journal.sealed_epoch},
                    {"synced_epoch", journal.synced_epoch},
                    {"sent_epoch", write_back.sent_epoch},
                    {"received_epoch", write_back.received_epoch},
                    {"committed_epoch", write_back.committed_epoch},
                    {"unsent_epochs", unsent_epochs},
                    {"merged_epoch", journal.merged_epoch},
                    {"merged_bytes", journal.merged_bytes},
                    {"merge_trouble", tidy_ != nullptr ? tidy_->trouble() : std::string()},
                    {"recovered_records", journal.recovered_records},
                    {"recovery_seconds", journal.recovery_seconds},
                    {"recovery_bytes", journal.recovery_bytes},
                    {"failed", journal.failed}};
  const std::uint64_t hit = reads.pages_hit.load();
  const std::uint64_t missed = reads.pages_missed.load();
  out["cache"] = {{"bytes", cache.bytes},
                  {"limit_bytes", cache.limit_bytes},
                  {"pages", cache.pages},
                  {"objects", cache.objects},
                  {"pages_hit", hit},
                  {"pages_missed", missed},
                  {"pages_zero", reads.pages_zero.load()},
                  {"hit_rate", rate(hit, hit + missed)},
                  {"damaged_pages", cache.damaged_pages},
                  {"evicted_pages", cache.evicted_pages},
                  {"index_memory_bytes", cache.memory_bytes}};
  out["fetched"] = {{"chunks", fetch.chunks.load()},   {"nodes", fetch.nodes.load()},
                    {"bytes", fetch.bytes.load()},     {"joined", fetch.joined.load()},
                    {"waiting", fetch.waiting.load()}, {"retries", fetch.retries.load()}};
  out["write_back"] = {
      {"commits", write_back.commits},       {"conflicts", write_back.conflicts},
      {"adopted", write_back.adopted},       {"pages", write_back.pages},
      {"chunks", write_back.chunks},         {"chunks_sent", write_back.chunks_sent},
      {"bytes_sent", write_back.bytes_sent}, {"trouble", write_back.trouble}};
  out["requests"] = {{"reads", reads_.load()},           {"writes", writes_.load()},
                     {"zeroes", zeroes_.load()},         {"flushes", flushes_.load()},
                     {"bytes_read", bytes_read_.load()}, {"bytes_written", bytes_written_.load()},
                     {"throttled", throttled_.load()}};
  if (fill_ != nullptr) {
    const FillProgress fill = fill_->progress();
    out["fill"] = {{"pages_done", fill.pages_done},
                   {"done", fill.done},
                   {"no_room", fill.no_room},
                   {"pages_failed", fill.pages_failed},
                   {"trouble", fill.trouble}};
  }
  if (version_fetch_ != nullptr) {
    const VersionFetchProgress next = version_fetch_->progress();
    out["next_version"] = {{"sequence", next.sequence},
                           {"in_cache", next.done},
                           {"chunks_fetched", next.chunks},
                           {"trouble", next.trouble}};
  }
  out["tree_memory_bytes"] = tree_->memory_bytes();
  const auto presence = reader_->presence(verify);
  json ready = {{"ready", false}, {"verified", verify}};
  if (presence.ok()) {
    ready["ready"] = presence->tree_complete && presence->pages_present == presence->pages_mapped;
    ready["tree_complete"] = presence->tree_complete;
    ready["pages_mapped"] = presence->pages_mapped;
    ready["pages_present"] = presence->pages_present;
    ready["pages_damaged"] = presence->pages_damaged;
  } else {
    ready["trouble"] = presence.error().to_string();
  }
  out["offline_ready"] = ready;
  // An epoch that is being sealed is no open one any more, and not synced yet.
  out["safe_to_switch_off"] = !personal || (journal.ending_epoch <= write_back.committed_epoch &&
                                            journal.open_epoch_records == 0);
  return out;
}

Result<SyncReport> Disk::sync(bool wait, std::chrono::milliseconds longest) {
  if (write_back_ == nullptr) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a " + std::string(mode_name(options_.mode)) + " session sends nothing");
  }
  DIMS_ASSIGN(const CommitId sealed, journal_->flush());
  SyncReport report{sealed.epoch, false};
  if (!wait) {
    write_back_->request();
    report.committed = write_back_->stats().committed_epoch >= sealed.epoch;
    return report;
  }
  DIMS_TRY(wait_committed(sealed.epoch, longest));
  report.committed = true;
  return report;
}

Status Disk::wait_committed(std::uint64_t epoch, std::chrono::milliseconds longest) {
  return write_back_->commit_through(epoch, longest);
}

Status Disk::quiesce(std::chrono::milliseconds hold) {
  {
    std::unique_lock lock(gate_mutex_);
    hold_until_ = environment_.clock.boottime() + hold;
    quiesced_.store(true);
    // Reads that wait for the server do not count for ever: they hold nothing that could be lost.
    gate_changed_.wait_for(lock, std::chrono::seconds(5), [&] { return in_flight_.load() == 0; });
  }
  if (journal_ != nullptr) {
    const auto sealed = journal_->flush();
    if (!sealed.ok()) return sealed.error();
  }
  return cache_->sync();
}

Status Disk::resume() {
  {
    const std::lock_guard lock(gate_mutex_);
    quiesced_.store(false);
  }
  gate_changed_.notify_all();
  return ok_status();
}

Status Disk::renew(std::shared_ptr<const format::KeyFile> keys) {
  DIMS_TRY(allowed());
  // What wraps the folder's keys must stay, or the next start could not open the journal.
  if (!(keys->org == key_->org) || !(keys->domain == key_->domain) ||
      !(keys->local_key() == key_->local_key())) {
    return make_error(ErrorCode::kWrongKey, "this login is another user's, or for another image",
                      "log in as the user whose disk this is");
  }
  key_.set(std::move(keys));
  fetcher_->poke();
  if (write_back_ != nullptr) write_back_->request();
  return ok_status();
}

Status Disk::end_session() {
  const std::lock_guard lock(session_mutex_);
  if (clients_ > 0) {
    return make_error(ErrorCode::kConflict, "a client is connected to the disk",
                      "shut the guest down first");
  }
  if (write_back_ != nullptr) {
    const auto sealed = journal_->flush();
    if (!sealed.ok()) return sealed.error();
    if (environment_.remote.counters().connected &&
        options_.write_back != WriteBackPolicy::kManual) {
      (void)write_back_->commit_through(sealed->epoch, std::chrono::seconds(30)).ok();
    }
  }
  DIMS_TRY(state_->update([](LdimState& s) { s.session_open = false; }));
  session_ended_ = true;
  close_session_if_sent();
  // With unsent writes the lease runs out instead: the server then says that this machine may hold
  // some.
  if (write_back_ != nullptr && all_sent()) lease_->release();
  return ok_status();
}

bool Disk::all_sent() const {
  if (write_back_ == nullptr) return true;
  const JournalStats journal = journal_->stats();
  return journal.open_epoch_records == 0 &&
         journal.ending_epoch <= write_back_->stats().committed_epoch;
}

// What the server knows of a session keeps its base. Unsent writes need that: the session of their
// next start takes it over.
void Disk::close_session_if_sent() {
  if (!all_sent()) return;
  const LdimState state = state_->current();
  (void)environment_.remote.close_session(state.image, state.session).ok();
}

Status Disk::prefetch(const std::vector<ByteRange>& ranges,
                      const std::function<bool(PrefetchProgress)>& progress) {
  PrefetchProgress done;
  std::vector<PageRange> pages;
  if (ranges.empty()) pages.push_back({0, pages_for(size())});
  for (const ByteRange& range : ranges) {
    DIMS_TRY(check_range(range));
    pages.push_back(pages_touched(range));
  }
  for (const PageRange& range : pages) done.pages_total += range.count;
  constexpr std::uint64_t kStep = 1024;
  for (const PageRange& range : pages) {
    for (std::uint64_t at = range.first; at < range.end();) {
      // Large runs of zeros are one step.
      DIMS_ASSIGN(const Stretch stretch, tree_->stretch(at, FetchWait::kDoNotWait));
      const std::uint64_t stretch_end = stretch.first_page + stretch.page_count;
      const std::uint64_t to =
          std::min(range.end(), stretch.leaf == nullptr ? stretch_end : at + kStep);
      DIMS_TRY(
          reader_->ensure({at, to - at}, contract::Priority::kPrefetch, FetchWait::kDoNotWait));
      done.pages_done += to - at;
      at = to;
      if (!progress(done)) return make_error(ErrorCode::kCancelled, "prefetch was interrupted");
    }
  }
  return cache_->sync();
}

json Disk::check() {
  const auto dropped = cache_->verify_all();
  json out;
  out["cache"] = {{"damaged_objects", dropped.ok() ? *dropped : 0}};
  if (!dropped.ok()) out["cache"]["trouble"] = dropped.error().to_string();
  out["ok"] = dropped.ok();
  return out;
}

// While a client is connected the note of it stays young.
void Disk::keep_alive_note() {
  const std::unique_lock lock(session_mutex_, std::try_to_lock);
  if (!lock.owns_lock() || clients_ == 0) return;
  const auto now = environment_.clock.boottime();
  if (now - noted_alive_ < kAliveNoteEvery) return;
  noted_alive_ = now;
  note_client_alive();
}

// A session that began while the server was away, or could not be told: its base is not held there
// before the server knows of it.
void Disk::tell_late() {
  const std::unique_lock lock(session_mutex_, std::try_to_lock);
  if (!lock.owns_lock() || told_ || closed_ || !state_->current().session_open) return;
  const Status told = tell_server_of_session();
  if (!told.ok())
    spdlog::warn("the server did not take note of the session: {}", told.error().to_string());
}

// Another machine's writes have found their place. Its user hears of it there, this one here, once.
void Disk::note_branches(std::vector<std::string> names) {
  const LdimState state = state_->current();
  for (const std::string& name : names) {
    if (is_own_branch(state, name)) continue;
    if (std::find(branches_.begin(), branches_.end(), name) != branches_.end()) continue;
    spdlog::warn(
        "{} has a conflict branch, {}: what a machine wrote that did not get its lease back; when "
        "nobody uses the two, keep one with 'rdim image resolve {} --keep {}' or '--keep {}'",
        options_.image, name, options_.image, options_.image, name);
  }
  branches_ = std::move(names);
}

void Disk::on_event(const contract::ServerEvent& event) {
  using Kind = contract::ServerEvent::Kind;
  if (event.kind == Kind::kReady) {
    // The server is back: waiting reads and the write-back need not sit out their pauses.
    fetcher_->poke();
    (void)away_for_long(true);
    tell_late();
    if (write_back_ != nullptr && options_.write_back == WriteBackPolicy::kEager)
      write_back_->request();
  } else if (event.kind == Kind::kNewVersion) {
    const std::lock_guard lock(watch_mutex_);
    known_head_ = event.version;
    known_head_sequence_ = event.sequence;
    // Our own commits are announced, too, perhaps before we have recorded them.
    const bool foreign = !event.who || !(event.who->machine == identity_.machine) ||
                         !same_folder(event.who->session, state_->current().session);
    if (!foreign || event.version == state_->current().base) return;
    spdlog::info("version {} is on the server", event.sequence);
    if (version_fetch_ != nullptr) version_fetch_->announce(event.image, event.version);
  } else if (event.kind == Kind::kLeaseRequested) {
    const std::string who = event.who ? event.who->machine_name : "another machine";
    {
      // Whoever waits asks again and again: say it once.
      const std::lock_guard lock(watch_mutex_);
      if (lease_wanted_by_ != who) spdlog::warn("{} asks for this image", who);
      lease_wanted_by_ = who;
    }
    if (event.hand_off && write_back_ != nullptr) write_back_->hand_over(who);
  } else if (event.kind == Kind::kBranches) {
    const std::lock_guard lock(watch_mutex_);
    note_branches(event.branches);
  } else if (event.kind == Kind::kLeaseLost && write_back_ != nullptr) {
    spdlog::warn(
        "{} has taken this image over; what is not sent yet becomes a branch as soon as "
        "that machine commits",
        event.who ? event.who->machine_name : "another machine");
    lease_->drop();
    if (options_.write_back != WriteBackPolicy::kManual) write_back_->request();
  } else if (event.kind == Kind::kRemoved && write_back_ != nullptr) {
    write_back_->branch_is_gone();
  }
}

// Without a guest the session ends with its lease: the next one begins on what the other machine
// has made of the image. With one it goes on: on the image if nobody else commits, else on a
// branch.
void Disk::on_handed_over() {
  {
    const std::lock_guard lock(watch_mutex_);
    lease_wanted_by_.clear();
  }
  // Never waited for: whoever holds it begins or ends a session, and may wait for this thread.
  const std::unique_lock lock(session_mutex_, std::try_to_lock);
  if (!lock.owns_lock() || clients_ > 0 || closed_) return;
  const Status stored = state_->update([](LdimState& s) { s.session_open = false; });
  if (!stored.ok()) return;
  session_ended_ = true;
  close_session_if_sent();
}

// This host has moved: there are new connections, and nobody need wait for his next try.
void Disk::on_rebuilt() {
  {
    const std::lock_guard lock(watch_mutex_);
    watch_now_ = true;
  }
  watch_changed_.notify_all();
  fetcher_->poke();
  if (write_back_ != nullptr) write_back_->retry_now();
}

void Disk::watch() {
  std::unique_lock lock(watch_mutex_);
  std::chrono::milliseconds pause{500};
  while (!watch_stop_) {
    lock.unlock();
    const LdimState state = state_->current();
    auto events = environment_.remote.watch({state.image}, state.session);
    lock.lock();
    if (watch_stop_) return;
    events_ = events.ok() ? events->get() : nullptr;
    lock.unlock();
    bool ready = false;
    bool gone = !events.ok() && is_absent(events.error());
    while (events.ok()) {
      const auto event = (*events)->next(std::chrono::milliseconds(500));
      {
        const std::lock_guard check(watch_mutex_);
        if (watch_stop_) break;
      }
      keep_alive_note();
      const LdimState now = state_->current();
      // Retargeted to a branch; or another session, whose lease this stream would not hear of.
      if (!(now.image == state.image) || !(now.session == state.session)) break;
      if (!event.ok()) {
        if (event.error().code == ErrorCode::kDeadlineExceeded) continue;
        gone = is_absent(event.error());
        break;
      }
      ready = true;
      on_event(*event);
    }
    lock.lock();
    events_ = nullptr;
    if (watch_stop_) return;
    lock.unlock();
    events = make_error(ErrorCode::kCancelled, "");
    // Nothing may be unsent: the pages of a branch that was removed are asked of the image again.
    if (gone && write_back_ != nullptr) write_back_->branch_is_gone();
    keep_alive_note();
    lock.lock();
    pause = ready ? std::chrono::milliseconds(500)
                  : std::min(pause * 2, std::chrono::milliseconds(5000));
    if (watch_changed_.wait_for(lock, pause, [&] { return watch_stop_ || watch_now_; }))
      pause = std::chrono::milliseconds(500);
    watch_now_ = false;
  }
}

void Disk::stop_watch() {
  environment_.remote.on_rebuilt({});
  {
    const std::lock_guard lock(watch_mutex_);
    watch_stop_ = true;
    if (events_ != nullptr) events_->cancel();
  }
  watch_changed_.notify_all();
  if (watch_thread_.joinable()) watch_thread_.join();
}

Status Disk::close(std::chrono::milliseconds longest) {
  {
    const std::lock_guard lock(session_mutex_);
    if (closed_) return ok_status();
    closed_ = true;
  }
  (void)resume().ok();
  if (read_ahead_ != nullptr) read_ahead_->stop();
  if (fill_ != nullptr) fill_->stop();
  if (version_fetch_ != nullptr) version_fetch_->stop();
  Status status;
  if (journal_ != nullptr && options_.mode == SessionMode::kPersonal) {
    const auto sealed = journal_->flush();
    if (!sealed.ok()) status = sealed.error();
    if (write_back_ != nullptr) {
      const bool send = options_.write_back != WriteBackPolicy::kManual &&
                        environment_.remote.counters().connected;
      // Of a journal that fails, what it had flushed before.
      const std::uint64_t epoch = journal_->synced().epoch;
      if (send) (void)write_back_->commit_through(epoch, longest).ok();
      if (epoch > write_back_->stats().committed_epoch)
        spdlog::warn("epochs up to {} are not on the server yet; they are safe in {}", epoch,
                     root_);
    }
  }
  stop_watch();
  if (write_back_ != nullptr) write_back_->stop();
  if (tidy_ != nullptr) tidy_->stop();
  const LdimState now = state_->current();
  const bool ends = client_left_by_itself_ && clients_ == 0 && now.session_open;
  if (ends) {
    const Status stored = state_->update([](LdimState& s) { s.session_open = false; });
    if (!stored.ok()) status = stored;
  }
  if (environment_.remote.counters().connected) {
    if (ends) close_session_if_sent();
    // Kept it runs out instead, and the server says that this machine may hold unsent writes.
    if (all_sent()) lease_->release();
  }
  lease_->stop();
  fetcher_->stop();
  const Status synced = cache_->sync();
  if (!synced.ok()) spdlog::warn("the cache was not synced: {}", synced.error().to_string());
  return status;
}

void Disk::halt(const Error& why) {
  {
    const std::lock_guard lock(gate_mutex_);
    halted_why_ = why;
    halted_.store(true);
    quiesced_.store(false);
  }
  gate_changed_.notify_all();
  // Whoever waits for the server waits no more, and whoever holds the session lets go of it.
  environment_.remote.shutdown();
  fetcher_->stop();
  {
    const std::lock_guard lock(session_mutex_);
    if (closed_) return;
    closed_ = true;
  }
  if (read_ahead_ != nullptr) read_ahead_->stop();
  if (fill_ != nullptr) fill_->stop();
  if (version_fetch_ != nullptr) version_fetch_->stop();
  stop_watch();
  if (write_back_ != nullptr) write_back_->stop();
  if (tidy_ != nullptr) tidy_->stop();
  lease_->stop();
  {
    std::unique_lock lock(gate_mutex_);
    gate_changed_.wait_for(lock, kHaltWait, [&] { return in_flight_.load() == 0; });
  }
  if (journal_ != nullptr) {
    const auto sealed = journal_->flush();
    if (!sealed.ok()) spdlog::error("{}", sealed.error().to_string());
  }
}

Disk::~Disk() {
  // Not closed in order: stop the threads, touch nothing.
  if (cache_ != nullptr && !closed_) stop_watch();
  if (fetcher_ != nullptr) fetcher_->stop();
  if (read_ahead_ != nullptr) read_ahead_->stop();
  if (fill_ != nullptr) fill_->stop();
  if (version_fetch_ != nullptr) version_fetch_->stop();
  if (write_back_ != nullptr) write_back_->stop();
  if (tidy_ != nullptr) tidy_->stop();
  if (lease_ != nullptr) lease_->stop();
}

}  // namespace dims::ldim
