// Drives a journal with random work and knows what must be there after a crash.
//
// The oracle: what is recovered is the appended sequence, in order, from behind the trimmed epoch
// up to some record; that record is not before the last one that a successful flush covered; only
// the operation that was running when the machine stopped may be there in part; commit ids that
// were told stay as they were. Of a merged group, which ends with an epoch that was synced, the
// records may be fewer, but their newest bytes are those of all that was appended up to its end;
// ids inside it may be unknown unless they were offered.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nbdkit-ldim/journal/journal.h"
#include "tests/support/sim_file.h"

namespace dims::test {

class JournalModel {
 public:
  explicit JournalModel(std::uint64_t seed);

  ldim::JournalOptions& options() { return options_; }
  SeededRandom& random() { return random_; }

  Result<std::unique_ptr<ldim::Journal>> open(SimFileSystem& fs);
  // One random operation. False when the journal reported a failure that is none of kNoSpace.
  bool step(ldim::Journal& journal);
  // A given operation; the same meaning.
  bool append(ldim::Journal& journal, ldim::WriteKind kind, ByteRange range);
  bool flush(ldim::Journal& journal);
  bool trim(ldim::Journal& journal, std::uint64_t through_epoch);
  bool merge(ldim::Journal& journal, std::uint64_t enough);
  // The newest synced epoch is offered to a server; its id must stay known.
  void offer(ldim::Journal& journal);

  // Compares a journal that was just opened with what must be there; empty = good. Changes nothing.
  std::string check(ldim::Journal& journal) const;
  // How often merge() freed files, and check() saw a group: a harness that never does proves
  // nothing.
  struct Seen {
    std::uint64_t merges = 0;
    std::uint64_t groups = 0;
  };
  Seen& seen() const { return *seen_; }
  // Goes on from what this journal holds (call after a good check()).
  void adopt(ldim::Journal& journal);

 private:
  struct Known {
    std::uint64_t order = 0;
    std::uint64_t epoch = 0;
    ldim::WriteKind kind = ldim::WriteKind::kData;
    ByteRange range;
    std::uint64_t data_seed = 0;
    std::uint64_t data_skip = 0;  // of the write, before this piece
  };
  struct Write {
    ldim::WriteKind kind = ldim::WriteKind::kData;
    ByteRange range;
    std::uint64_t data_seed = 0;
  };
  // What a list of records leaves on the disk: per byte 0 = untouched, or kind and value.
  using Overlay = std::vector<std::uint16_t>;
  static void lay(Overlay& overlay, ldim::WriteKind kind, ByteRange range, ByteView data);
  std::string check_group(ldim::Journal& journal, std::uint64_t trimmed,
                          std::uint64_t merged) const;
  // The first `count` bytes of a write; kept, for making them anew at every check took most of the
  // time.
  ByteView data_of(std::uint64_t data_seed, std::uint64_t count) const;
  std::string check_record(ldim::Journal& journal, const ldim::JournalRecord& got,
                           const Known& want) const;

  SeededRandom random_;
  SeededRandom journal_random_;
  ManualClock clock_;
  ldim::JournalOptions options_;
  bool trims_rarely_ = false;         // so that merges find something
  std::vector<Known> known_;          // appended, in order; those of trimmed epochs too
  std::size_t flushed_ = 0;           // so many of them must survive
  std::optional<Write> running_;      // an append that did not return
  std::uint64_t trimmed_ = 0;         // told to be durable
  std::uint64_t trim_tried_ = 0;      // may be
  std::uint64_t merge_tried_ = 0;     // no group may end behind this epoch
  std::vector<ldim::CommitId> told_;  // by flush, ascending
  std::vector<std::uint64_t> offered_;
  std::uint64_t next_seed_ = 1;
  std::shared_ptr<std::map<std::uint64_t, Bytes>> data_ =
      std::make_shared<std::map<std::uint64_t, Bytes>>();
  std::shared_ptr<Seen> seen_ = std::make_shared<Seen>();  // of all copies together
};

}  // namespace dims::test
