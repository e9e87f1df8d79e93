// What can be proven of a journal that is refused because of damage: the unbroken run of sealed
// epochs in front of the damage. It becomes a journal of its own, under a new id; the damaged one
// is only read. What lies behind the damage stands on writes that are lost: it is counted, never
// used.
//
// Threads: free function; nobody may write to the folders meanwhile. Units: order numbers, epochs,
// bytes of the guest's disk. Errors: kInvalidArgument for a journal that is not damaged; kCorrupt
// when nothing can be proven; else what reading and writing gave. Durable on return: the new
// journal.
#pragma once

#include "nbdkit-ldim/journal/journal.h"

namespace dims::ldim {

struct SalvageReport {
  std::string damage;            // why the journal is refused
  std::uint64_t last_epoch = 0;  // the newest that can be proven
  std::uint64_t epochs = 0;      // of those, not yet on the server
  std::uint64_t writes = 0;      // in them
  std::uint64_t bytes = 0;
  std::uint64_t lost_writes = 0;  // records at least that were synced and cannot be used
};

// committed_epoch: what the server is known to have. target.folder must not exist or be empty;
// target.limit_bytes gives way to what the damaged journal holds.
Result<SalvageReport> salvage_journal(io::FileSystem& fs, const JournalOptions& damaged,
                                      const JournalOptions& target, std::uint64_t committed_epoch,
                                      Clock& clock, Random& random);

}  // namespace dims::ldim
