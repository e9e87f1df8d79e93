// Tidy: decides when the journal merges its epochs, and has the pending map follow. The policy of
// merging stands here and nowhere else.
//
// Threads: one of its own between start() and stop(); run_once() may be called from any thread.
// Ownership: journal and map outlive it. Errors: kept in trouble(); a merge that failed is tried
// again later, for nothing depends on it but space. Durable: as Journal::merge.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "nbdkit-ldim/pagemap/pending_map.h"

namespace dims::ldim {

// True if merging is worth its writes now:
//  - above a quarter of the limit, once half of what the journal holds was overwritten: so it needs
//    at most twice what is pending, and merging writes no more than what it frees;
//  - above 70 % of it (before writes are slowed), once two files' worth was overwritten;
//  - if it is urgent (a write waits for room), once there is a part of a file's worth.
bool merging_is_due(const JournalStats& journal, std::uint64_t pending_journal_bytes, bool urgent);

class JournalTidy {
 public:
  JournalTidy(Journal& journal, PendingMap& pending) : journal_(journal), pending_(pending) {}
  ~JournalTidy() { stop(); }
  JournalTidy(const JournalTidy&) = delete;
  JournalTidy& operator=(const JournalTidy&) = delete;

  void start();
  void stop();
  // Merges if it is due. urgent: also seals and syncs first, and stops when a few files are free.
  // True if files were freed; an urgent call also gives true when another's merge is still under
  // way after a moment: each of its steps frees files, so look whether there is room.
  Result<bool> run_once(bool urgent);
  std::string trouble() const;

 private:
  class Turn;
  void run();

  Journal& journal_;
  PendingMap& pending_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::string trouble_;
  bool merging_ = false;            // one merge at a time
  std::uint64_t futile_bytes_ = 0;  // the journal's size when there was nothing to be gained
  std::thread thread_;
};

}  // namespace dims::ldim
