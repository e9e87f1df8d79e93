#include <algorithm>
#include <cstring>

#include "nbdkit-ldim/journal/journal_impl.h"

namespace dims::ldim {

using namespace journal_format;

namespace {

// Sealed bytes on their way to the file. Small ones reuse one buffer a thread; it is not kept
// large.
constexpr std::size_t kKeptScratchBytes = 288 * kKiB;

class Scratch {
 public:
  explicit Scratch(std::size_t bytes) {
    static thread_local std::unique_ptr<std::uint8_t[]> kept;
    static thread_local std::size_t kept_bytes = 0;
    if (bytes > kKeptScratchBytes) {
      own_ = std::make_unique_for_overwrite<std::uint8_t[]>(bytes);
      data_ = own_.get();
      return;
    }
    if (kept_bytes < bytes) {
      kept_bytes = std::min(kKeptScratchBytes, std::max<std::size_t>(bytes * 2, 8 * kKiB));
      kept = std::make_unique_for_overwrite<std::uint8_t[]>(kept_bytes);
    }
    data_ = kept.get();
  }
  std::uint8_t* data() { return data_; }

 private:
  std::unique_ptr<std::uint8_t[]> own_;
  std::uint8_t* data_ = nullptr;
};

}  // namespace

// What was reserved and is never written would hold back all that comes later, for good: say that
// the journal has failed, and nobody waits.
JournalImpl::FailOnThrow::~FailOnThrow() {
  if (!armed_ || std::uncaught_exceptions() == exceptions_) return;
  const Lock lock(journal_.mutex_);
  try {
    (void)journal_.fail(make_error(ErrorCode::kIo, "a record could not be written: out of memory"));
  } catch (...) {  // not even the words for it
    if (!journal_.failed_) journal_.failed_.emplace();
    journal_.wake_all();
  }
}

void JournalImpl::wake_all() {
  retired_cv_.notify_all();
  sync_cv_.notify_all();
  spare_cv_.notify_all();
}

std::vector<JournalImpl::Piece> JournalImpl::cut(WriteKind kind, ByteRange range) const {
  const std::uint64_t most = kind == WriteKind::kData ? max_data_bytes_ : kMaxZeroBytes;
  std::vector<Piece> pieces;
  std::uint64_t done = 0;
  while (done < range.count) {
    const std::uint64_t at = range.offset + done;
    const std::uint64_t n =
        std::min(most - at % kPageBytes, range.count - done);  // inner cuts lie on page edges
    pieces.push_back({{at, n}, done});
    done += n;
  }
  return pieces;
}

bool JournalImpl::fits(RecordType type, const std::vector<Piece>& pieces) const {
  std::uint64_t position = position_;
  std::uint64_t end = segments_.back().bytes;
  std::size_t spare = 0;
  for (const Piece& piece : pieces) {
    const std::uint64_t need =
        record_bytes(type, piece.range.offset, piece.range.count) + kSealBytes;
    if (position + need > end) {
      if (spare == spares_.size()) return false;
      position = kRecordsStart + kStartBytes;
      end = spares_[spare++]->header().file_bytes;
    }
    position += need - kSealBytes;
  }
  return true;
}

JournalImpl::Placed JournalImpl::reserve(RecordType type, ByteRange range,
                                         std::uint64_t total_bytes) {
  Placed placed;
  placed.segment = segments_.back().segment;
  placed.file_offset = position_;
  placed.body.type = type;
  placed.body.total_bytes = static_cast<std::uint32_t>(total_bytes);
  placed.body.order = next_order_++;
  placed.body.epoch = open_epoch_;
  placed.body.synced_order = synced_order_;
  placed.body.offset = range.offset;
  placed.body.count = range.count;
  position_ += total_bytes;
  segments_.back().dirty = true;
  InFlight flight;
  flight.type = type;
  flight.record = pack(placed.body, placed.file_offset, placed.segment->number());
  in_flight_.push_back(flight);
  return placed;
}

JournalImpl::Placed JournalImpl::switch_segment() {
  SegmentState& old = segments_.back();
  old.last_order = next_order_ - 1;
  SegmentState fresh;
  fresh.segment = std::move(spares_.front());
  spares_.pop_front();
  fresh.bytes = fresh.segment->header().file_bytes;
  fresh.first_order = next_order_;
  fresh.first_epoch = open_epoch_;
  fresh.start_trim_epoch = trimmed_.epoch;
  StartPayload start;
  start.previous_number = old.segment->number();
  start.previous_end = position_;
  start.trim = trimmed_;
  segments_.push_back(std::move(fresh));
  position_ = kRecordsStart;
  spare_tried_ = false;
  Placed placed = reserve(RecordType::kStart, {0, sizeof(StartPayload)}, kStartBytes);
  placed.start = start;
  return placed;
}

bool JournalImpl::place_all(RecordType type, const std::vector<Piece>& pieces,
                            std::vector<Placed>* out) {
  if (!fits(type, pieces)) return false;
  for (const Piece& piece : pieces) {
    const std::uint64_t bytes = record_bytes(type, piece.range.offset, piece.range.count);
    // A seal always fits behind a record: what was accepted can be flushed.
    if (position_ + bytes + kSealBytes > segments_.back().bytes) out->push_back(switch_segment());
    out->push_back(reserve(type, piece.range, bytes));
    out->back().data_offset = piece.data_offset;
    ++open_records_;
  }
  return true;
}

Status JournalImpl::write_placed(Placed& placed, ByteView data) {
  Scratch scratch(placed.body.total_bytes);
  const crypto::Tag tag =
      placed.segment->seal_record(placed.body, placed.file_offset, data, scratch.data());
  const Status written = placed.segment->file().write_at(placed.file_offset,
                                                         {scratch.data(), placed.body.total_bytes});
  if (!written.ok()) {
    const Lock lock(mutex_);
    return fail(written.error());
  }
  return complete(placed.body.order, tag);
}

Status JournalImpl::write_control(Placed& placed) {
  Digest chain;
  {
    Lock lock(mutex_);
    DIMS_TRY(wait_retired(lock, placed.body.order - 1));
    chain = resumed_chain_ ? *resumed_chain_ : chain_.peek();
    resumed_chain_.reset();
    chain_ = crypto::Sha256();
    chain_.update(chain.view());
    if (placed.body.type == RecordType::kSeal) {
      sealing_ = {placed.body.epoch, placed.body.order, chain, 0};
    } else {
      for (SegmentState& state : segments_) {
        if (state.first_order == placed.body.order) state.start_chain = chain;
      }
    }
  }
  if (placed.body.type == RecordType::kSeal) {
    const SealPayload payload{chain};
    return write_placed(placed, view_of(payload));
  }
  placed.start.chain = chain;
  return write_placed(placed, view_of(placed.start));
}

Error JournalImpl::latched() const {
  Error error = *failed_;
  error.code = ErrorCode::kIo;
  return error;
}

Error JournalImpl::fail(const Error& error) {
  if (!failed_) {
    failed_ = error.with_context("the journal stopped");
    failed_->hint =
        "nothing more is accepted; check the disk under " + options_.folder + ", then start again";
  }
  wake_all();
  return latched();
}

void JournalImpl::retire_done() {
  while (!in_flight_.empty() && in_flight_.front().done) {
    const InFlight& flight = in_flight_.front();
    chain_.update(flight.tag);
    switch (flight.type) {
      case RecordType::kData:
        open_epoch_bytes_ += flight.record.count;
        [[fallthrough]];
      case RecordType::kZero:
      case RecordType::kTrim:
        records_.push_back(flight.record);
        break;
      case RecordType::kSeal:
        epochs_.push_back(sealing_);
        open_epoch_bytes_ = 0;
        break;
      case RecordType::kStart:
      case RecordType::kMerged:
      case RecordType::kManifest:
        break;
    }
    in_flight_.pop_front();
    ++retired_order_;
  }
}

Status JournalImpl::complete(std::uint64_t order, const crypto::Tag& tag) {
  const Lock lock(mutex_);
  // What is written behind a failed record can never retire.
  InFlight& flight = in_flight_[static_cast<std::size_t>(order - retired_order_ - 1)];
  flight.done = true;
  flight.tag = tag;
  if (order == retired_order_ + 1) {
    retire_done();
    if (waiters_ > 0) retired_cv_.notify_all();
  }
  return ok_status();
}

Status JournalImpl::wait_retired(Lock& lock, std::uint64_t order) {
  ++waiters_;
  retired_cv_.wait(lock, [&] { return retired_order_ >= order || failed_.has_value(); });
  --waiters_;
  if (retired_order_ >= order) return ok_status();
  return latched();
}

JournalRecord JournalImpl::unpack(const PackedRecord& record, std::uint64_t epoch) const {
  JournalRecord out;
  out.order = record.order;
  out.epoch = epoch;
  out.kind = record.kind();
  out.range = {record.offset(), record.count};
  const auto found = std::lower_bound(
      segments_.begin(), segments_.end(), record.segment,
      [](const SegmentState& s, std::uint64_t n) { return s.segment->number() < n; });
  if (found != segments_.end() && found->segment->number() == record.segment) {
    out.location = {found->segment, record.file_offset};
    return out;
  }
  for (const Merged::File& file : merged_.files) {
    if (file.segment->number() == record.segment) out.location = {file.segment, record.file_offset};
  }
  return out;
}

Result<std::vector<JournalRecord>> JournalImpl::append(WriteKind kind, ByteRange range,
                                                       ByteView data, WriteArrival& arrival) {
  if (range.empty() || range.offset >= kMaxImageBytes ||
      range.count > kMaxImageBytes - range.offset ||
      data.size() != (kind == WriteKind::kData ? range.count : 0)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a journal record needs a range on the disk and just its data");
  }
  const auto type = static_cast<RecordType>(kind);
  std::vector<Piece> pieces = cut(kind, range);
  std::vector<Placed> placed;
  std::uint64_t newest_order = 0;  // of what holds the write's bytes
  bool want_spare = false;
  FailOnThrow guard(*this);
  {
    Lock lock(mutex_);
    for (;;) {
      if (failed_) return latched();
      if (arrival.journal_ != nullptr) pieces = cut_left(kind, arrival);
      placed.reserve(pieces.size() + 1);
      guard.arm(true);
      if (place_all(type, pieces, &placed)) break;
      guard.arm(false);
      enter_arrival(arrival, range);
      DIMS_TRY(obtain_spare(lock));
    }
    if (!waiting_writes_.empty()) {
      supersede(kind, placed, arrival);
      std::erase(waiting_writes_, &arrival);
    }
    arrival.journal_ = nullptr;
    if (!placed.empty()) newest_order = placed.back().body.order;
    for (const WriteArrival::Cover& cover : arrival.covers_)
      newest_order = std::max(newest_order, cover.order);
    want_spare =
        spares_.empty() && !creating_ && !spare_tried_ && position_ > segments_.back().bytes / 2;
    if (want_spare) spare_tried_ = true;
  }
  for (Placed& one : placed) {
    if (one.body.type == RecordType::kStart) {
      DIMS_TRY(write_control(one));
    } else {
      DIMS_TRY(write_placed(one, kind == WriteKind::kData
                                     ? data.subspan(one.data_offset, one.body.count)
                                     : ByteView{}));
    }
  }
  guard.arm(false);
  {
    Lock lock(mutex_);
    if (retired_order_ < newest_order) DIMS_TRY(wait_retired(lock, newest_order));
  }
  if (want_spare) prepare_spare();
  std::vector<JournalRecord> out;
  out.reserve(placed.size());
  for (Placed& one : placed) {
    if (one.body.type == RecordType::kStart) continue;
    JournalRecord record;
    record.order = one.body.order;
    record.epoch = one.body.epoch;
    record.kind = kind;
    record.range = {one.body.offset, one.body.count};
    record.location = {std::move(one.segment), one.file_offset};
    out.push_back(std::move(record));
  }
  return out;
}

Status JournalImpl::read(const JournalLocation& location, ByteRange record_range, std::uint64_t at,
                         MutByteView out) {
  if (location.segment == nullptr) {
    return make_error(ErrorCode::kInvalidArgument, "journal read of a record without a file");
  }
  return location.segment->read(record_range, location.file_offset, at, out);
}

std::vector<JournalRecord> JournalImpl::records(std::uint64_t after_epoch,
                                                std::uint64_t through_epoch) {
  const Lock lock(mutex_);
  std::vector<JournalRecord> out;
  const std::uint64_t first = std::max(after_epoch, trimmed_.epoch) + 1;
  if (const std::uint64_t group = merged_.head.horizon.epoch;
      !merged_.files.empty() && group >= first && group <= through_epoch) {
    for (const PackedRecord& record : merged_.records) out.push_back(unpack(record, group));
  }
  std::uint64_t after_order = trimmed_.order;
  auto epoch = epochs_.begin();
  for (; epoch != epochs_.end() && epoch->epoch < first; ++epoch) after_order = epoch->seal_order;
  auto record =
      std::lower_bound(records_.begin(), records_.end(), after_order,
                       [](const PackedRecord& r, std::uint64_t order) { return r.order <= order; });
  for (; record != records_.end(); ++record) {
    while (epoch != epochs_.end() && record->order > epoch->seal_order) ++epoch;
    const std::uint64_t number = epoch != epochs_.end() ? epoch->epoch
                                 : epochs_.empty()      ? trimmed_.epoch + 1
                                                        : epochs_.back().epoch + 1;
    if (number > through_epoch) break;
    if (number < first) continue;
    out.push_back(unpack(*record, number));
  }
  return out;
}

}  // namespace dims::ldim
