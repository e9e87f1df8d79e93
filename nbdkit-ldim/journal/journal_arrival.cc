#include <algorithm>

#include "nbdkit-ldim/journal/journal_impl.h"

namespace dims::ldim {

using namespace journal_format;

WriteArrival::~WriteArrival() {
  if (journal_ != nullptr) journal_->depart(*this);
}

std::vector<JournalRecord> WriteArrival::covers() const {
  std::vector<JournalRecord> out;
  for (const Cover& cover : covers_) {
    // Gone: it was in the page map, and has left it for the base or for a merged file.
    if (auto segment = cover.segment.lock())
      out.push_back({cover.order,
                     cover.epoch,
                     cover.kind,
                     cover.range,
                     {std::move(segment), cover.file_offset}});
  }
  return out;
}

void WriteArrival::cover_with(const Cover& later) {
  std::vector<ByteRange> left;
  bool covered = false;
  for (const ByteRange& piece : left_) {
    const ByteRange both = intersect(piece, later.range);
    if (both.empty()) {
      left.push_back(piece);
      continue;
    }
    covered = true;
    if (both.offset > piece.offset) left.push_back({piece.offset, both.offset - piece.offset});
    if (both.end() < piece.end()) left.push_back({both.end(), piece.end() - both.end()});
  }
  if (!covered) return;
  covers_.push_back(later);
  left_ = std::move(left);
}

void JournalImpl::arrive(WriteArrival& arrival, ByteRange range) {
  const Lock lock(mutex_);
  enter_arrival(arrival, range);
}

void JournalImpl::enter_arrival(WriteArrival& arrival, ByteRange range) {
  if (arrival.journal_ != nullptr) return;
  waiting_writes_.reserve(waiting_writes_.size() + 1);
  arrival.at_ = range.offset;
  arrival.left_ = {range};
  arrival.number_ = ++arrivals_;
  waiting_writes_.push_back(&arrival);
  arrival.journal_ = this;
}

void JournalImpl::depart(WriteArrival& arrival) {
  const Lock lock(mutex_);
  std::erase(waiting_writes_, &arrival);
  arrival.journal_ = nullptr;
}

std::vector<JournalImpl::Piece> JournalImpl::cut_left(WriteKind kind,
                                                      const WriteArrival& arrival) const {
  std::vector<Piece> pieces;
  for (const ByteRange& left : arrival.left_) {
    for (Piece& piece : cut(kind, left))
      pieces.push_back({piece.range, piece.range.offset - arrival.at_});
  }
  return pieces;
}

// What is placed now stays on top of every write that came before it and still waits. One that has
// not waited itself came last.
void JournalImpl::supersede(WriteKind kind, const std::vector<Placed>& placed,
                            const WriteArrival& by) {
  for (WriteArrival* const waits : waiting_writes_) {
    if (waits == &by || (by.journal_ != nullptr && waits->number_ > by.number_)) continue;
    for (const Placed& one : placed) {
      if (one.body.type == RecordType::kStart) continue;
      waits->cover_with({one.body.order,
                         one.body.epoch,
                         kind,
                         {one.body.offset, one.body.count},
                         one.segment,
                         one.file_offset});
    }
  }
}

}  // namespace dims::ldim
