#include "tests/crash/journal_model.h"
#include "tests/support/keys.h"

#include <algorithm>

namespace dims::test {

using ldim::WriteKind;

JournalModel::JournalModel(std::uint64_t seed)
    : random_(seed), journal_random_(seed ^ 0x5a5a5a5aULL) {
  options_.folder = "/journal";
  options_.machine.bytes.fill(1);
  options_.image.bytes.fill(2);
  options_.session.bytes.fill(3);
  options_.key = dims::test::filled_key(4);
  options_.segment_bytes = (32 + 16 * random_.below(3)) * kKiB;
  options_.limit_bytes = options_.segment_bytes * (5 + random_.below(6));
  trims_rarely_ = random_.below(3) != 0;
}

Result<std::unique_ptr<ldim::Journal>> JournalModel::open(SimFileSystem& fs) {
  return ldim::Journal::open(fs, options_, clock_, journal_random_);
}

ByteView JournalModel::data_of(std::uint64_t data_seed, std::uint64_t count) const {
  Bytes& data = (*data_)[data_seed];
  if (data.size() < count) {
    data.resize(count);
    SeededRandom(data_seed * 1000003 + 7).fill(data);
  }
  return ByteView(data).first(count);
}

bool JournalModel::append(ldim::Journal& journal, WriteKind kind, ByteRange range) {
  const Write write{kind, range, next_seed_++};
  running_ = write;
  const ByteView data =
      kind == WriteKind::kData ? data_of(write.data_seed, range.count) : ByteView{};
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
  // Inside a merged group nothing is trimmed.
  if (journal.group_end(through_epoch) == through_epoch)
    trimmed_ = std::max(trimmed_, through_epoch);
  return true;
}

bool JournalModel::merge(ldim::Journal& journal, std::uint64_t enough) {
  merge_tried_ = std::max(merge_tried_, journal.synced().epoch);
  const auto report = journal.merge({enough * 10000, random_.below(2) == 0, nullptr});
  if (report.ok() && report->files > 0) ++seen_->merges;
  return report.ok() || report.error().code == ErrorCode::kNoSpace;
}

void JournalModel::offer(ldim::Journal& journal) {
  const std::uint64_t epoch = journal.synced().epoch;
  journal.offer(epoch);
  offered_.push_back(epoch);
}

bool JournalModel::step(ldim::Journal& journal) {
  const std::uint64_t dice = random_.below(100);
  if (dice < 60) {
    const std::uint64_t count = 1 + random_.below(random_.below(8) == 0 ? 20000 : 5000);
    return append(journal, WriteKind::kData, {random_.below(64 * kKiB), count});
  }
  if (dice < 70) {
    const WriteKind kind = random_.below(2) == 0 ? WriteKind::kZero : WriteKind::kTrim;
    const std::uint64_t count = 1 + random_.below(random_.below(8) == 0 ? 128 * kKiB : 16 * kKiB);
    return append(journal, kind, {random_.below(64 * kKiB), count});
  }
  if (dice < 84) return flush(journal);
  if (dice < 86) return offer(journal), true;
  if (dice < 94) return merge(journal, random_.below(3));
  if (trims_rarely_ && random_.below(6) != 0) return merge(journal, random_.below(3));
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
  const ByteView data = data_of(want.data_seed, want.data_skip + got.range.count);
  if (!std::equal(text.begin(), text.end(),
                  data.begin() + static_cast<std::ptrdiff_t>(want.data_skip))) {
    return name + " has other data";
  }
  return {};
}

void JournalModel::lay(Overlay& overlay, WriteKind kind, ByteRange range, ByteView data) {
  if (overlay.size() < range.end()) overlay.resize(range.end());
  const auto mark = static_cast<std::uint16_t>(static_cast<unsigned>(kind) << 8);
  for (std::uint64_t i = 0; i < range.count; ++i)
    overlay[range.offset + i] =
        static_cast<std::uint16_t>(mark | (data.empty() ? 0u : unsigned{data[i]}));
}

std::string JournalModel::check_group(ldim::Journal& journal, std::uint64_t trimmed,
                                      std::uint64_t merged) const {
  if (merged > std::max(merge_tried_, trimmed_))
    return "a group ends with epoch " + std::to_string(merged) + "; tried were " +
           std::to_string(merge_tried_);
  Overlay want;
  Overlay got;
  for (const Known& known : known_) {
    if (known.epoch <= trimmed || known.epoch > merged) continue;
    const ByteView data = known.kind == WriteKind::kData
                              ? data_of(known.data_seed, known.data_skip + known.range.count)
                              : ByteView{};
    lay(want, known.kind, known.range, data.empty() ? data : data.subspan(known.data_skip));
  }
  std::uint64_t order = 0;
  for (const auto& record : journal.records(trimmed, merged)) {
    const std::string name = "record " + std::to_string(record.order);
    if (record.epoch != merged) return name + " of the group has another epoch";
    if (record.order < order) return name + " stands behind a newer one";
    order = record.order;
    Bytes text(record.kind == WriteKind::kData ? record.range.count : 0);
    if (!text.empty() &&
        !journal.read(record.location, record.range, record.range.offset, text).ok())
      return name + " of the group cannot be read";
    lay(got, record.kind, record.range, text);
  }
  want.resize(std::max(want.size(), got.size()));
  got.resize(want.size());
  const auto differ = std::mismatch(want.begin(), want.end(), got.begin());
  if (differ.first == want.end()) return {};
  return "guest byte " + std::to_string(differ.first - want.begin()) +
         " differs in the group up to " + std::to_string(merged);
}

std::string JournalModel::check(ldim::Journal& journal) const {
  const auto stats = journal.stats();
  const std::uint64_t trimmed = stats.trimmed_epoch;
  if (trimmed < trimmed_ || trimmed > std::max(trim_tried_, trimmed_)) {
    return "trimmed epoch " + std::to_string(trimmed) + ", told " + std::to_string(trimmed_) +
           ", tried " + std::to_string(trim_tried_);
  }
  // Of a group only the sum counts; what follows it stands one by one.
  const std::uint64_t merged = std::max(stats.merged_epoch, trimmed);
  if (merged > trimmed) {
    ++seen_->groups;
    const std::string wrong = check_group(journal, trimmed, merged);
    if (!wrong.empty()) return wrong;
  }
  const auto records = journal.records(merged, ~std::uint64_t{0});
  std::size_t at = 0;
  while (at < known_.size() && known_[at].epoch <= merged) ++at;
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
    const bool may_be_gone =
        commit.epoch > trimmed && commit.epoch < merged &&
        std::find(offered_.begin(), offered_.end(), commit.epoch) == offered_.end();
    if (!now && may_be_gone) continue;
    if (!now || !(*now == commit))
      return "the commit id of epoch " + std::to_string(commit.epoch) + " changed";
  }
  return {};
}

void JournalModel::adopt(ldim::Journal& journal) {
  std::vector<Known> kept;
  const auto records = journal.records(0, ~std::uint64_t{0});
  for (const auto& record : records) {
    const auto found = std::find_if(known_.begin(), known_.end(), [&](const Known& k) {
      return k.order == record.order && k.range.offset <= record.range.offset &&
             k.range.end() >= record.range.end();
    });
    if (found != known_.end()) {
      kept.push_back(*found);
      kept.back().epoch = record.epoch;
      kept.back().data_skip += record.range.offset - found->range.offset;
      kept.back().range = record.range;
    } else {
      kept.push_back({record.order, record.epoch, record.kind, record.range, running_->data_seed,
                      record.range.offset - running_->range.offset});
    }
  }
  known_ = std::move(kept);
  flushed_ = known_.size();
  running_.reset();
  trimmed_ = trim_tried_ = journal.stats().trimmed_epoch;
  merge_tried_ = journal.stats().merged_epoch;
  told_.clear();
  for (std::uint64_t epoch = trimmed_; epoch <= journal.synced().epoch; ++epoch) {
    if (const auto commit = journal.commit_id(epoch)) told_.push_back(*commit);
  }
}

}  // namespace dims::test
