#include "tests/crash/journal_model.h"

#include <algorithm>

namespace dims::test {

using ldim::WriteKind;

JournalModel::JournalModel(std::uint64_t seed)
    : random_(seed), journal_random_(seed ^ 0x5a5a5a5aULL) {
  options_.folder = "/journal";
  options_.machine.bytes.fill(1);
  options_.image.bytes.fill(2);
  options_.session.bytes.fill(3);
  options_.key.bytes.fill(4);
  options_.segment_bytes = (32 + 16 * random_.below(3)) * kKiB;
  options_.limit_bytes = options_.segment_bytes * (4 + random_.below(6));
}

Result<std::unique_ptr<ldim::Journal>> JournalModel::open(SimFileSystem& fs) {
  return ldim::Journal::open(fs, options_, clock_, journal_random_);
}

Bytes JournalModel::data_of(std::uint64_t data_seed, std::uint64_t count) {
  Bytes data(count);
  SeededRandom(data_seed * 1000003 + 7).fill(data);
  return data;
}

bool JournalModel::append(ldim::Journal& journal, WriteKind kind, ByteRange range) {
  const Write write{kind, range, next_seed_++};
  running_ = write;
  const Bytes data = kind == WriteKind::kData ? data_of(write.data_seed, range.count) : Bytes{};
  const auto records = journal.append(kind, range, data);
  if (!records.ok()) {
    if (records.error().code != ErrorCode::kNoSpace) return false;
    running_.reset();  // refused as a whole
    return true;
  }
  for (const auto& record : *records) {
    known_.push_back({record.order, record.epoch, kind, record.range, write.data_seed,
                      record.range.offset - range.offset});
  }
  running_.reset();
  return true;
}

bool JournalModel::flush(ldim::Journal& journal) {
  const auto commit = journal.flush();
  if (!commit.ok()) return false;
  flushed_ = known_.size();
  if (told_.empty() || !(told_.back() == *commit)) told_.push_back(*commit);
  return true;
}

bool JournalModel::trim(ldim::Journal& journal, std::uint64_t through_epoch) {
  trim_tried_ = std::max(trim_tried_, through_epoch);
  if (!journal.trim(through_epoch).ok()) return false;
  trimmed_ = std::max(trimmed_, through_epoch);
  return true;
}

bool JournalModel::step(ldim::Journal& journal) {
  const std::uint64_t dice = random_.below(100);
  if (dice < 60) {
    const std::uint64_t count = 1 + random_.below(random_.below(8) == 0 ? 20000 : 5000);
    return append(journal, WriteKind::kData, {random_.below(64 * kKiB), count});
  }
  if (dice < 70) {
    const WriteKind kind = random_.below(2) == 0 ? WriteKind::kZero : WriteKind::kTrim;
    return append(journal, kind, {random_.below(64 * kKiB), 1 + random_.below(kMiB)});
  }
  if (dice < 88) return flush(journal);
  const std::uint64_t synced = journal.synced().epoch;
  if (synced <= trimmed_) return true;
  return trim(journal, trimmed_ + 1 + random_.below(synced - trimmed_));
}

std::string JournalModel::check_record(ldim::Journal& journal, const ldim::JournalRecord& got,
                                       const Known& want) const {
  const std::string name = "record " + std::to_string(got.order);
  if (got.order != want.order)
    return name + " stands where " + std::to_string(want.order) + " was written";
  if (got.kind != want.kind || !(got.range == want.range))
    return name + " has another kind or range";
  if (got.kind != WriteKind::kData) return {};
  Bytes text(got.range.count);
  if (!journal.read(got.location, got.range, got.range.offset, text).ok())
    return name + " cannot be read";
  const Bytes data = data_of(want.data_seed, want.data_skip + got.range.count);
  if (!std::equal(text.begin(), text.end(),
                  data.begin() + static_cast<std::ptrdiff_t>(want.data_skip))) {
    return name + " has other data";
  }
  return {};
}

std::string JournalModel::check(ldim::Journal& journal) const {
  const auto stats = journal.stats();
  const std::uint64_t trimmed = stats.trimmed_epoch;
  if (trimmed < trimmed_ || trimmed > std::max(trim_tried_, trimmed_)) {
    return "trimmed epoch " + std::to_string(trimmed) + ", told " + std::to_string(trimmed_) +
           ", tried " + std::to_string(trim_tried_);
  }
  const auto records = journal.records(0, ~std::uint64_t{0});
  std::size_t at = 0;
  while (at < known_.size() && known_[at].epoch <= trimmed) ++at;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (records[i].epoch > journal.synced().epoch)
      return "a recovered record is not sealed and synced";
    if (at < known_.size()) {
      const std::string wrong = check_record(journal, records[i], known_[at++]);
      if (!wrong.empty()) return wrong;
      continue;
    }
    // Behind everything that returned: pieces of the write that was running, from its first byte
    // on.
    if (!running_) return "record " + std::to_string(records[i].order) + " was never written";
    Known piece;
    piece.order = records[i].order;
    piece.kind = running_->kind;
    const std::uint64_t skip = records[i].range.offset - running_->range.offset;
    piece.range = {running_->range.offset + skip, records[i].range.count};
    piece.data_seed = running_->data_seed;
    piece.data_skip = skip;
    if (records[i].range.offset < running_->range.offset ||
        records[i].range.end() > running_->range.end()) {
      return "record " + std::to_string(records[i].order) + " is no piece of the running write";
    }
    const std::string wrong = check_record(journal, records[i], piece);
    if (!wrong.empty()) return wrong;
  }
  if (at < flushed_) {
    return "record " + std::to_string(known_[at].order) + " is lost; flushed were all up to " +
           std::to_string(known_[flushed_ - 1].order);
  }
  for (const auto& commit : told_) {
    if (commit.epoch < trimmed) continue;
    const auto now = journal.commit_id(commit.epoch);
    if (!now || !(*now == commit))
      return "the commit id of epoch " + std::to_string(commit.epoch) + " changed";
  }
  return {};
}

void JournalModel::adopt(ldim::Journal& journal) {
  std::vector<Known> kept;
  const auto records = journal.records(0, ~std::uint64_t{0});
  for (const auto& record : records) {
    const auto found = std::find_if(known_.begin(), known_.end(),
                                    [&](const Known& k) { return k.order == record.order; });
    if (found != known_.end()) {
      kept.push_back(*found);
      kept.back().epoch = record.epoch;
    } else {
      kept.push_back({record.order, record.epoch, record.kind, record.range, running_->data_seed,
                      record.range.offset - running_->range.offset});
    }
  }
  known_ = std::move(kept);
  flushed_ = known_.size();
  running_.reset();
  trimmed_ = trim_tried_ = journal.stats().trimmed_epoch;
  told_.clear();
  for (std::uint64_t epoch = trimmed_; epoch <= journal.synced().epoch; ++epoch) {
    if (const auto commit = journal.commit_id(epoch)) told_.push_back(*commit);
  }
}

}  // namespace dims::test
