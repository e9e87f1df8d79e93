#include <algorithm>

#include "common/base/parse.h"
#include "nbdkit-ldim/journal/journal_impl.h"

namespace dims::ldim {

using namespace journal_format;

namespace {

// On a full disk a start must still succeed: a small file takes the start and the seal.
constexpr std::uint64_t kLeastSegmentBytes = kMinSegmentBytes;

std::uint64_t usable_segment_bytes(const JournalOptions& options) {
  // Four files at least, so that trimming the oldest makes room before the newest is full; sixteen
  // if they need not be tiny for it, for one is open and one is kept for merging.
  const std::uint64_t quarter = options.limit_bytes / 4 / kPageBytes * kPageBytes;
  const std::uint64_t sixteenth = options.limit_bytes / 16 / kPageBytes * kPageBytes;
  return std::min({options.segment_bytes / kPageBytes * kPageBytes, quarter,
                   std::max(sixteenth, kMiB), kMaxSegmentBytes});
}

// What recovery read may lie in the kernel's cache only, even as clean pages: a sync that failed
// before this start forgot them. So what nothing proves to be on disk is written again, byte for
// byte.
Status write_again(io::File& file, std::uint64_t from, std::uint64_t end) {
  Bytes buffer(static_cast<std::size_t>(std::min<std::uint64_t>(kMiB, end - from)));
  while (from < end) {
    const MutByteView part = MutByteView(buffer).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), end - from)));
    DIMS_TRY(file.read_at(from, part));
    DIMS_TRY(file.write_at(from, part));
    from += part.size();
  }
  return file.sync_data();
}

Status make_durable(const RecoveredSegment& recovered, std::uint64_t synced_order) {
  // An epoch may be longer than a file: that it holds no seal says nothing.
  if (recovered.next_order <= synced_order + 1) return ok_status();
  std::uint64_t from =
      recovered.first_order <= synced_order ? kRecordsStart + kStartBytes : kRecordsStart;
  for (const SealedEpoch& seal : recovered.seals) {
    if (seal.seal_order <= synced_order) from = seal.file_offset + kSealBytes;
  }
  return write_again(recovered.segment->file(), from, recovered.end);
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::open(io::FileSystem& fs, const JournalOptions& options,
                                               Clock& clock, Random& random) {
  crypto::initialise();
  if (options.folder.empty() || usable_segment_bytes(options) < kMinSegmentBytes) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a journal needs a folder, files of at least " +
                          format_size(kMinSegmentBytes) + " and a limit of at least " +
                          format_size(4 * kMinSegmentBytes),
                      "raise the journal's limit");
  }
  auto journal = std::make_unique<JournalImpl>(fs, options, clock, random);
  DIMS_TRY(journal->start());
  return std::unique_ptr<Journal>(std::move(journal));
}

JournalImpl::JournalImpl(io::FileSystem& fs, const JournalOptions& options, Clock& clock,
                         Random& random)
    : fs_(fs),
      options_(options),
      clock_(clock),
      random_(random),
      identity_{{}, options.machine, options.image, options.session},
      segment_bytes_(usable_segment_bytes(options)),
      max_data_bytes_(std::min(
          kMaxDataBytes, std::max(kPageBytes, segment_bytes_ / 4 / kPageBytes * kPageBytes))) {}

JournalImpl::~JournalImpl() = default;

JournalId JournalImpl::id() { return identity_.journal; }

Status JournalImpl::start() {
  const auto began = clock_.boottime();
  DIMS_ASSIGN(const bool there, fs_.exists(options_.folder));
  if (!there) {
    DIMS_TRY(fs_.make_folder(options_.folder));
    DIMS_TRY(fs_.sync_folder(io::parent_folder(options_.folder)));
  }
  DIMS_ASSIGN(RecoveredJournal found, examine_journal(fs_, options_));
  identity_.journal = found.existed ? found.journal : random_.id<JournalId>();
  for (const RecoveredSegment& segment : found.segments)
    DIMS_TRY(make_durable(segment, found.synced_order));
  // The others were synced before a manifest named them; of the newest nothing tells.
  if (!found.merged.empty())
    DIMS_TRY(
        write_again(found.merged.back().segment->file(), kRecordsStart, found.merged.back().end));
  adopt(found);
  next_number_ = found.newest_number + 1;

  DIMS_ASSIGN(auto segment, make_first_segment(found));
  SegmentState state;
  state.segment = segment;
  state.bytes = segment->header().file_bytes;
  state.first_order = next_order_;
  state.first_epoch = open_epoch_;
  state.start_trim_epoch = trimmed_.epoch;
  if (!segments_.empty()) segments_.back().last_order = next_order_ - 1;
  segments_.push_back(std::move(state));
  bytes_held_ += segments_.back().bytes;
  position_ = kRecordsStart;

  Placed start;
  {
    const Lock lock(mutex_);
    start = reserve(RecordType::kStart, {0, sizeof(StartPayload)}, kStartBytes);
  }
  start.start.trim = trimmed_;
  if (!found.segments.empty()) {
    start.start.previous_number = found.segments.back().segment->number();
    start.start.previous_end = found.segments.back().end;
  }
  DIMS_TRY(write_control(start));
  // What was recovered without a seal becomes one epoch.
  const bool unsealed = open_records_ > 0;
  if (unsealed) {
    Lock lock(mutex_);
    DIMS_TRY(seal_and_sync(lock));
  } else {
    DIMS_TRY(segment->file().sync_data());
    synced_order_ = start.body.order;
  }
  clean_up(found);
  start_stats_.recovered_records = records_.size() + merged_.records.size();
  start_stats_.cut_bytes = found.cut_bytes;
  start_stats_.cut_seals = found.cut_seals;
  start_stats_.recovery_bytes = found.read_bytes;
  start_stats_.recovery_seconds = std::chrono::duration<double>(clock_.boottime() - began).count();
  return ok_status();
}

Result<std::shared_ptr<JournalSegment>> JournalImpl::make_first_segment(
    const RecoveredJournal& found) {
  if (found.reusable_number != 0 && found.reusable_bytes == segment_bytes_) {
    DIMS_ASSIGN(auto file, fs_.open(segment_path(options_.folder, found.reusable_number),
                                    io::OpenMode::kReadWrite));
    if (file->preallocate(segment_bytes_).ok()) {
      DIMS_ASSIGN(auto segment,
                  JournalSegment::recycle(std::move(file), found.reusable_number, segment_bytes_,
                                          synced_order_, identity_, options_.key, random_));
      // Its name may never have been made durable.
      DIMS_TRY(fs_.sync_folder(options_.folder));
      return segment;
    }
  }
  for (std::uint64_t bytes = segment_bytes_;;
       bytes = std::max(kLeastSegmentBytes, bytes / 8 / kPageBytes * kPageBytes)) {
    auto made = JournalSegment::create(fs_, options_.folder, next_number_++, bytes, synced_order_,
                                       identity_, options_.key, random_);
    if (made.ok() || made.error().code != ErrorCode::kNoSpace || bytes <= kLeastSegmentBytes)
      return made;
  }
}

void JournalImpl::adopt_merged(const RecoveredJournal& found) {
  if (found.merged.empty()) return;
  const Manifest& manifest = found.merged.back().manifest;
  merged_.head = manifest.head;
  merged_.ids = manifest.ids;
  std::erase_if(merged_.ids, [&](const ManifestId& id) { return id.epoch <= trimmed_.epoch; });
  std::vector<PackedRecord> records;
  for (const MergedFile& file : found.merged) {
    merged_.files.push_back({file.segment, file.end, file.chain});
    bytes_held_ += file.end;
    for (const PackedRecord& record : file.records) {
      if (record.order > trimmed_.order) records.push_back(record);
    }
  }
  std::stable_sort(records.begin(), records.end(),
                   [](const PackedRecord& a, const PackedRecord& b) { return a.order < b.order; });
  merged_.records.assign(records.begin(), records.end());
  epochs_.push_back(
      {manifest.head.horizon.epoch, manifest.head.horizon.order, manifest.head.horizon.digest, 0});
  synced_.epoch = manifest.head.horizon.epoch;
  synced_.digest = manifest.head.horizon.digest;
}

void JournalImpl::adopt(const RecoveredJournal& found) {
  trimmed_ = found.trimmed;
  synced_ = {identity_.journal, trimmed_.epoch, trimmed_.digest};
  synced_order_ = trimmed_.order;
  resumed_chain_ = first_chain(identity_.journal);
  open_epoch_ = trimmed_.epoch + 1;
  adopt_merged(found);
  for (const RecoveredSegment& segment : found.segments) {
    for (const SealedEpoch& seal : segment.seals) {
      if (seal.epoch <= std::max(trimmed_.epoch, merged_.head.horizon.epoch)) continue;
      epochs_.push_back(seal);
      synced_.epoch = seal.epoch;
      synced_.digest = seal.digest;
    }
    for (const PackedRecord& record : segment.records) {
      if (record.order > trimmed_.order) records_.push_back(record);
    }
    SegmentState state;
    state.segment = segment.segment;
    state.bytes = segment.end;  // clean_up() cuts the rest off
    state.first_order = segment.first_order;
    state.first_epoch = segment.first_epoch;
    state.start_chain = segment.start.chain;
    state.last_order = segment.next_order - 1;
    state.start_trim_epoch = segment.start.trim.epoch;
    segments_.push_back(std::move(state));
    bytes_held_ += segment.end;
  }
  if (found.segments.empty()) return;
  const RecoveredSegment& last = found.segments.back();
  next_order_ = last.next_order;
  retired_order_ = last.next_order - 1;
  synced_order_ = retired_order_;
  open_epoch_ = last.open_epoch;
  recovered_epoch_ = open_epoch_;
  resumed_chain_ = last.chain;
  const std::uint64_t sealed = epochs_.empty() ? trimmed_.order : epochs_.back().seal_order;
  for (auto it = records_.rbegin(); it != records_.rend() && it->order > sealed; ++it) {
    ++open_records_;
    if (it->kind() == WriteKind::kData) open_epoch_bytes_ += it->count;
  }
}

// The new file is durable: what it does not continue is superfluous. Nothing here is needed for
// correctness; what fails is done again by the next open.
void JournalImpl::clean_up(const RecoveredJournal& found) {
  for (const std::uint64_t number : found.garbage) {
    if (number != segments_.back().segment->number())
      (void)fs_.remove(segment_path(options_.folder, number));
  }
  for (const RecoveredSegment& segment : found.segments) {
    const auto bytes = segment.segment->file().size();
    if (bytes.ok() && *bytes > segment.end) (void)segment.segment->file().truncate(segment.end);
  }
}

}  // namespace dims::ldim
