#include "nbdkit-ldim/journal/scanner.h"

#include <algorithm>
#include <cstring>

namespace dims::ldim {

using namespace journal_format;

namespace {
// The largest record fits with room to spare.
constexpr std::size_t kWindowBytes = 2 * kMiB;
static_assert(kMaxDataBytes + 300 * crypto::kTagBytes + sizeof(RecordHeader) < kWindowBytes);

// Up to the last one that is not zero.
std::size_t used_bytes(ByteView bytes) {
  if (is_all_zero(bytes)) return 0;
  while (bytes.back() == 0) bytes = bytes.first(bytes.size() - 1);
  return bytes.size();
}

}  // namespace

SegmentScanner::SegmentScanner(std::shared_ptr<JournalSegment> segment)
    : segment_(std::move(segment)) {}

Result<std::size_t> SegmentScanner::read_around(std::uint64_t at, MutByteView out) {
  DIMS_ASSIGN(const std::uint64_t end, segment_->file().size());
  std::size_t done = 0;
  while (done < out.size() && at + done < end) {
    const std::uint64_t place = at + done;
    const std::size_t most = static_cast<std::size_t>(
        std::min<std::uint64_t>({kPageBytes - place % kPageBytes, out.size() - done, end - place}));
    const MutByteView piece = out.subspan(done, most);
    const auto count = segment_->file().read_some(place, piece);
    if (!count.ok()) {
      if (count.error().code != ErrorCode::kIo) return count.error();
      std::memset(piece.data(), 0xff, piece.size());  // no magic, no tag, and not nothing
      unreadable_ = std::max(unreadable_.value_or(0), place);
    } else if (*count < most) {
      return done + *count;
    }
    done += most;
  }
  return done;
}

Result<ByteView> SegmentScanner::window(std::uint64_t at, std::size_t count) {
  if (at < buffer_at_ || at + count > buffer_at_ + buffer_count_) {
    // The window grows with use, for a journal with little in it shall open fast.
    const std::size_t want = std::max(
        count, std::min(kWindowBytes, std::max<std::size_t>(64 * kKiB, buffer_.size() * 2)));
    if (buffer_.size() < want) buffer_.resize(want);
    // A record that begins in one window and ends in the next is not read twice.
    std::size_t kept = 0;
    if (at >= buffer_at_ && at < buffer_at_ + buffer_count_) {
      kept = static_cast<std::size_t>(buffer_at_ + buffer_count_ - at);
      std::memmove(buffer_.data(), buffer_.data() + (at - buffer_at_), kept);
    }
    buffer_at_ = at;
    buffer_count_ = kept;
    const MutByteView to = MutByteView(buffer_).subspan(kept, want - kept);
    auto got = segment_->file().read_some(at + kept, to);
    if (!got.ok() && got.error().code == ErrorCode::kIo) got = read_around(at + kept, to);
    DIMS_ASSIGN(const std::size_t more, got);
    buffer_count_ += more;
    bytes_read_ += more;
  }
  const std::size_t skip = static_cast<std::size_t>(at - buffer_at_);
  if (skip >= buffer_count_) return ByteView{};
  return ByteView(buffer_).subspan(skip, buffer_count_ - skip);
}

Result<std::optional<ScannedRecord>> SegmentScanner::next() {
  std::optional<ScannedRecord> none;
  DIMS_ASSIGN(ByteView bytes, window(position_, sizeof(RecordHeader)));
  if (bytes.size() < sizeof(RecordHeader)) return none;
  RecordHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto body = segment_->open_header(header, position_);
  if (!body) return none;
  DIMS_ASSIGN(bytes, window(position_, body->total_bytes));
  if (bytes.size() < body->total_bytes) return none;
  ScannedRecord record;
  record.body = *body;
  record.file_offset = position_;
  record.tag = header.tag;
  if (body->type >= RecordType::kSeal)  // control records have a payload of their own
    record.payload.resize(body->count);
  if (!segment_->open_body(*body, position_, bytes, record.payload)) return none;
  position_ += body->total_bytes;
  return std::optional<ScannedRecord>(std::move(record));
}

Result<std::optional<ScannedRecord>> SegmentScanner::find_header(std::uint64_t from) {
  from = std::max(round_up(from, kAlign), kRecordsStart);
  for (;;) {
    DIMS_ASSIGN(const ByteView bytes, window(from, sizeof(RecordHeader)));
    const std::size_t used = used_bytes(bytes);
    if (used > 0) passed_end_ = std::max(passed_end_, from + used);
    if (bytes.size() < sizeof(RecordHeader)) return std::optional<ScannedRecord>();
    std::size_t at = 0;
    for (; at + sizeof(RecordHeader) <= bytes.size(); at += kAlign) {
      if (std::memcmp(bytes.data() + at, kRecordMagic.data(), kRecordMagic.size()) != 0) continue;
      RecordHeader header;
      std::memcpy(&header, bytes.data() + at, sizeof header);
      const auto body = segment_->open_header(header, from + at);
      if (!body) continue;
      ScannedRecord record;
      record.body = *body;
      record.file_offset = from + at;
      record.tag = header.tag;
      return std::optional<ScannedRecord>(std::move(record));
    }
    from += at;
  }
}

Result<std::uint64_t> SegmentScanner::used_end(std::uint64_t from, std::uint64_t to) {
  std::uint64_t end = from;
  for (;;) {
    if (from >= to) return end;
    DIMS_ASSIGN(ByteView bytes, window(from, 1));
    if (bytes.empty()) return end;
    if (bytes.size() > to - from) bytes = bytes.first(static_cast<std::size_t>(to - from));
    const std::size_t used = used_bytes(bytes);
    if (used > 0) end = from + used;
    from += bytes.size();
  }
}

}  // namespace dims::ldim
