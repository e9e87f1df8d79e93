// Disk: the guest's requests.
#include <spdlog/spdlog.h>

#include <cstring>
#include <thread>

#include "common/base/wire.h"
#include "nbdkit-ldim/disk/disk.h"

namespace dims::ldim {
namespace {

// How long a write waits for the write-back to make room, while nothing arrives at the server,
// before the guest gets ENOSPC.
constexpr std::chrono::seconds kRoomWait{60};
// And how many rounds of 50 ms it waits when the server has been away for longer than away_wait.
constexpr unsigned kRoundsWhileAway = 4;
// Below this much free space the file system counts as full.
constexpr std::uint64_t kLowSpaceBytes = 128 * kMiB;
// Above this share of the journal's limit writes are slowed, so that the guest feels it before it
// fails.
constexpr std::uint64_t kThrottlePercent = 80;
constexpr std::uint64_t kMaxExtentBytes = kGiB;  // far below the 4 GiB that nbdkit 1.32.5 dies of

}  // namespace

class Disk::Request {
 public:
  explicit Request(Disk& disk, WriteArrival* arrival = nullptr, ByteRange range = {})
      : disk_(disk) {
    disk_.enter(arrival, range);
  }
  ~Request() { disk_.leave(); }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

 private:
  Disk& disk_;
};

void Disk::enter(WriteArrival* arrival, ByteRange range) {
  for (;;) {
    in_flight_.fetch_add(1);
    if (!quiesced_.load()) return;
    if (arrival != nullptr && journal_ != nullptr) journal_->arrive(*arrival, range);
    in_flight_.fetch_sub(1);
    std::unique_lock lock(gate_mutex_);
    gate_changed_.notify_all();
    const auto left = hold_until_ - environment_.clock.boottime();
    if (left.count() <= 0) {
      quiesced_.store(false);  // whoever asked to quiesce did not come back
      gate_changed_.notify_all();
      continue;
    }
    gate_changed_.wait_for(lock, left, [&] { return !quiesced_.load(); });
  }
}

void Disk::leave() {
  if (in_flight_.fetch_sub(1) == 1 && (quiesced_.load() || halted_.load())) {
    const std::lock_guard lock(gate_mutex_);
    gate_changed_.notify_all();
  }
}

Status Disk::allowed() {
  if (!halted_.load()) return ok_status();
  const std::lock_guard lock(gate_mutex_);
  return halted_why_;
}

Status Disk::check_range(ByteRange range) const {
  if (range.offset <= size() && range.count <= size() - range.offset) return ok_status();
  return make_error(ErrorCode::kInvalidArgument, "request at " + std::to_string(range.offset) +
                                                     "+" + std::to_string(range.count) +
                                                     " goes beyond the disk");
}

Status Disk::read(ByteRange range, std::uint8_t* out) {
  const Request request(*this);
  DIMS_TRY(allowed());
  DIMS_TRY(check_range(range));
  reads_.fetch_add(1, std::memory_order_relaxed);
  bytes_read_.fetch_add(range.count, std::memory_order_relaxed);
  bool missed = false;
  // The pending map is asked before the tree: what leaves it has reached the tree before
  // (write_back.cc).
  const auto pieces =
      pending_.overlaps(range) ? pending_.lookup(range) : std::vector<PendingPiece>{};
  std::uint64_t at = range.offset;
  const auto from_base = [&](std::uint64_t to) -> Status {
    if (at >= to) return ok_status();
    bool one_missed = false;
    DIMS_TRY(
        reader_->read({at, to - at}, out + (at - range.offset), FetchWait::kWait, &one_missed));
    missed = missed || one_missed;
    return ok_status();
  };
  for (const PendingPiece& piece : pieces) {
    DIMS_TRY(from_base(piece.range.offset));
    std::uint8_t* const to = out + (piece.range.offset - range.offset);
    const auto count = static_cast<std::size_t>(piece.range.count);
    if (piece.kind == WriteKind::kData) {
      DIMS_TRY(journal_->read(piece.location, piece.record_range, piece.range.offset, {to, count}));
    } else {
      std::memset(to, 0, count);
    }
    at = piece.range.end();
  }
  DIMS_TRY(from_base(range.end()));
  if (read_ahead_ != nullptr) read_ahead_->on_read(pages_touched(range), missed);
  return ok_status();
}

// By the clock that stands still while the host sleeps: it has no network then, either.
bool Disk::away_for_long(bool connected) {
  using std::chrono::steady_clock;
  const std::lock_guard lock(gate_mutex_);
  if (connected)
    away_since_.reset();
  else if (!away_since_)
    away_since_ = steady_clock::now();
  return away_since_ && steady_clock::now() - *away_since_ >= options_.away_wait;
}

// One round of waiting for the write-back to free the journal; an error when it is time to tell the
// guest.
Status Disk::make_room(const Error& full, RoomWait& wait, unsigned round) {
  throttled_.fetch_add(1);
  const bool sends = write_back_ != nullptr && options_.write_back != WriteBackPolicy::kManual;
  bool merge_may_wait = write_back_ != nullptr && write_back_->at_work();
  // What was overwritten leaves first: that needs no server.
  const auto merged = tidy_->run_once(true);
  if (merged.ok() && *merged) return ok_status();
  // A commit that hangs in a dead network keeps its epochs from being merged with newer ones: no
  // reason to fail the guest before it has ended.
  merge_may_wait = merge_may_wait || (write_back_ != nullptr && write_back_->at_work());
  if (!sends && !merge_may_wait) return full;
  // If it is the file system that is full, the cache gives some back; a journal at its own limit
  // gains nothing by that.
  const auto free_bytes = environment_.fs.free_bytes(root_);
  if (free_bytes.ok() && *free_bytes < kLowSpaceBytes)
    (void)cache_->yield_space(kLowSpaceBytes).ok();
  // Only sealed epochs can leave. Where nothing is sent it is a merge that is waited for.
  if (sends) (void)journal_->flush().ok();
  // Without the server nothing leaves the journal, and one more attempt would keep the next merge
  // waiting; the next rounds are for what the cache has given back.
  const bool connected = environment_.remote.counters().connected;
  if (sends && connected) write_back_->request_in_time();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const bool away = away_for_long(connected);
  const bool hopeless = away && !merge_may_wait && round >= kRoundsWhileAway;
  const bool over =
      wait.over(environment_.clock.boottime(), environment_.remote.counters().bytes_sent);
  if (hopeless || over) return full;
  return ok_status();
}

Status Disk::append(WriteKind kind, ByteRange range, ByteView data, bool fua) {
  WriteArrival arrival;
  const Request request(*this, &arrival, range);
  DIMS_TRY(allowed());
  DIMS_TRY(check_range(range));
  if (!writable()) return make_error(ErrorCode::kPermissionDenied, "the disk is read-only");
  if (range.empty()) return ok_status();
  RoomWait wait(kRoomWait);
  for (unsigned round = 0;; ++round) {
    const auto records = journal_->append(kind, range, data, arrival);
    if (records.ok()) {
      for (const JournalRecord& record : *records) pending_.insert(record);
      for (const JournalRecord& record : arrival.covers()) pending_.insert(record);
      break;
    }
    if (records.error().code != ErrorCode::kNoSpace) return records.error();
    DIMS_TRY(make_room(records.error(), wait, round));
    // Whoever asked for it may be gone: it must not be written behind his back.
    if (quitting()) return records.error();
  }
  // Asking the journal how full it is takes its lock: often enough is enough.
  constexpr std::uint64_t kThrottleEvery = 32;
  if (write_back_ != nullptr &&
      appends_.fetch_add(1, std::memory_order_relaxed) % kThrottleEvery == 0) {
    const JournalStats stats = journal_->stats();
    if (stats.bytes > stats.limit_bytes / 100 * kThrottlePercent &&
        options_.write_back != WriteBackPolicy::kManual &&
        environment_.remote.counters().connected) {
      throttled_.fetch_add(1);
      write_back_->request_in_time();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  return fua ? flush() : ok_status();
}

Status Disk::write(ByteRange range, const std::uint8_t* data, bool fua) {
  writes_.fetch_add(1, std::memory_order_relaxed);
  bytes_written_.fetch_add(range.count, std::memory_order_relaxed);
  return append(WriteKind::kData, range, {data, static_cast<std::size_t>(range.count)}, fua);
}

Status Disk::zero(ByteRange range, bool trim, bool fua) {
  zeroes_.fetch_add(1, std::memory_order_relaxed);
  return append(trim ? WriteKind::kTrim : WriteKind::kZero, range, {}, fua);
}

Status Disk::flush() {
  DIMS_TRY(allowed());
  flushes_.fetch_add(1, std::memory_order_relaxed);
  if (!writable()) return ok_status();
  const auto sealed = journal_->flush();
  if (!sealed.ok()) return sealed.error();
  if (write_back_ == nullptr) return ok_status();
  if (options_.acknowledge == Acknowledge::kJournal) return ok_status();
  const AckPoint point = options_.acknowledge == Acknowledge::kSent       ? AckPoint::kSent
                         : options_.acknowledge == Acknowledge::kReceived ? AckPoint::kReceived
                                                                          : AckPoint::kCommitted;
  for (;;) {
    const Status status = write_back_->reach(point, sealed->epoch, std::chrono::seconds(1));
    if (status.ok() || status.error().code != ErrorCode::kDeadlineExceeded) return status;
    if (quitting()) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
  }
}

Status Disk::cache(ByteRange range) {
  const Request request(*this);
  DIMS_TRY(allowed());
  DIMS_TRY(check_range(range));
  return reader_->ensure(pages_touched(range), contract::Priority::kBoot, FetchWait::kWait);
}

Result<std::vector<DiskExtent>> Disk::extents(ByteRange range, bool one) {
  const Request request(*this);
  DIMS_TRY(allowed());
  DIMS_TRY(check_range(range));
  range.count = std::min(range.count, kMaxExtentBytes);
  std::vector<DiskExtent> out;
  const auto add = [&](std::uint64_t to, bool zero) {
    if (!out.empty() && out.back().zero == zero)
      out.back().range.count = to - out.back().range.offset;
    else
      out.push_back({{out.empty() ? range.offset : out.back().range.end(), 0}, zero, zero}),
          out.back().range.count = to - out.back().range.offset;
  };
  const auto enough = [&] { return one && out.size() > 1; };
  // Zeros of the base are read off its tree; a leaf that is not here and cannot be asked for is
  // data.
  const auto from_base = [&](std::uint64_t at, std::uint64_t to) {
    while (at < to && !enough()) {
      const auto stretch = tree_->stretch(page_of(at), FetchWait::kDoNotWait);
      if (!stretch.ok()) {
        add(to, false);
        return;
      }
      const std::uint64_t leaf_at = stretch->first_page * kPageBytes;
      const std::uint64_t stop = std::min(to, leaf_at + stretch->page_count * kPageBytes);
      if (stretch->leaf == nullptr) {
        add(stop, true);
        at = stop;
        continue;
      }
      const LeafView& leaf = *stretch->leaf;
      for (std::size_t i = leaf.find(static_cast<std::uint32_t>(page_of(at) - stretch->first_page));
           at < stop; ++i) {
        const std::uint64_t item_at =
            i == leaf.count() ? stop
                              : std::min(stop, leaf_at + leaf.item(i).first_page * kPageBytes);
        if (item_at > at) add(item_at, true), at = item_at;
        if (at >= stop) break;
        const std::uint64_t item_end = std::min(
            stop, leaf_at + (std::uint64_t{leaf.item(i).first_page} + leaf.item(i).page_count) *
                                kPageBytes);
        add(item_end, false);
        at = item_end;
      }
    }
  };
  std::uint64_t at = range.offset;
  for (const PendingPiece& piece : pending_.lookup(range)) {
    if (enough()) break;
    from_base(at, piece.range.offset);
    if (enough()) break;
    add(piece.range.end(), piece.kind != WriteKind::kData);
    at = piece.range.end();
  }
  if (!enough()) from_base(at, range.end());
  return out;
}

Status Disk::client_connected() {
  // Held to the end: a second connection of the same guest must not be served before the base has
  // moved.
  const std::lock_guard lock(session_mutex_);
  DIMS_TRY(allowed());
  if (closed_) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
  const auto idle = environment_.clock.boottime() - last_client_left_;
  const bool grace_over = last_client_left_.count() != 0 && idle >= options_.session_grace;
  if (clients_ == 0 && (session_ended_ || grace_over)) {
    DIMS_TRY(begin_or_resume(environment_.remote.hello().ok(), true));
    session_ended_ = false;
  }
  ++clients_;
  note_client_alive();
  return ok_status();
}

// When a client was here last, for the next start (resumable()). Not synced: after a power cut the
// host's boot id differs.
void Disk::note_client_alive() {
  if (options_.diskless()) return;
  auto file = environment_.fs.open(root_ + "/alive", io::OpenMode::kCreate);
  if (!file.ok()) return;
  Bytes note;
  Writer(note).u64(static_cast<std::uint64_t>(environment_.clock.boottime().count()));
  (void)(*file)->write_at(0, note).ok();
}

void Disk::client_left(bool left_by_itself) {
  const std::lock_guard lock(session_mutex_);
  if (clients_ > 0) --clients_;
  last_client_left_ = environment_.clock.boottime();
  client_left_by_itself_ = left_by_itself;
  note_client_alive();
}

}  // namespace dims::ldim
