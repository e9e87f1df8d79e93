// Checks a closed journal: reads and opens everything, changes nothing. Its verdict is that of
// Journal::open (recovery.h); beside it every file is looked at on its own.
//
// Threads: free function; nobody may write to the folder meanwhile. Units: bytes. Errors: only what
// keeps it from looking at all (the folder cannot be listed); everything else is a finding.
// Durable: nothing is written.
#pragma once

#include <string_view>
#include <vector>

#include "common/base/finding.h"
#include "nbdkit-ldim/journal/journal.h"

namespace dims::ldim {

enum class JournalDamage {
  kUnreadable,       // a read failed
  kHeaderDamaged,    // a file whose header does not open although it holds something
  kWrongKey,         // the key does not open the journal
  kMisplacedFile,    // of another journal, image, machine or number
  kUnknownVersion,   // written by another release
  kRecordDamaged,    // a record that fails its check, good ones behind it
  kMergedDamaged,    // a merged file that is needed and not whole
  kRecordsMissing,   // records that were synced once are not there: a file is gone, cut, or older
  kTornTail,         // bytes behind the end that no flush had promised
  kUnfinishedMerge,  // a merged file that never counted
  kSuperfluousFile,  // a file that the journal needs no more
  kSlotDamaged,      // a trim slot or note that does not open; there is a second one, or no need
  kForeignFile,      // not a journal's file
};
std::string_view journal_damage_name(JournalDamage code);

using JournalFinding = Finding<JournalDamage>;

struct JournalCheck {
  std::vector<JournalFinding> findings;
  JournalId journal;  // zero: no file tells
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;    // of all files
  std::uint64_t records = 0;  // that the next start would find
  std::uint64_t trimmed_epoch = 0;
  std::uint64_t merged_epoch = 0;
  std::uint64_t last_epoch = 0;  // sealed
  bool opens = false;            // the next start would accept it
};

// A folder that is not there is a journal that was never written: no finding.
Result<JournalCheck> check_journal(io::FileSystem& fs, const JournalOptions& options);

}  // namespace dims::ldim
