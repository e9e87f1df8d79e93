// Maintenance: runs collections (asked for, or every interval), checks and the scrub of one server,
// and remembers what they found.
//
// A collection and a check never run at the same time; the scrub runs beside both. A collection
// that a restart cut short goes on (collector.h): at once when it was stopped in order, else after
// a minute, in which a check can be asked for. One that is asked for is a whole one: if there is
// one to go on with, that is ended first. A check that nobody asks to go on for ten minutes ends.
//
// Threads: thread-safe; two threads of its own between start() and stop(), one for
// collection_step() and one for scrub_step(). Ownership: catalog, stores and clock outlive it.
// Memory: the first findings of the last check and scrub. Durable: when the last collection ran,
// and where the scrub is (lossy by a minute).
#pragma once

#include <condition_variable>
#include <thread>

#include "rdim-server/catalog/check.h"
#include "rdim-server/catalog/collector.h"

namespace dims::catalog {

struct MaintenanceOptions {
  std::chrono::seconds upload_grace = std::chrono::hours(24 * 7);
  std::chrono::seconds gc_interval = std::chrono::hours(24);  // 0: only when asked
  std::uint64_t gc_bytes_per_s = 64 * kMiB;                   // 0: as fast as it goes
  std::uint64_t scrub_bytes_per_s = 4 * kMiB;                 // 0: no scrub
  RunSpace space;
};

class Maintenance {
 public:
  Maintenance(Catalog& catalog, contract::ObjectStore& store, contract::RefStore& refs,
              Clock& clock, const MaintenanceOptions& options);
  ~Maintenance();

  // load(), and the threads.
  void start();
  // When the last collection was, and whether it has to go on.
  void load();
  // What runs is cut short, and how far it is saved.
  void stop();

  // The next piece of what the threads do, and how long to wait before the one after it. For tests:
  // without start().
  std::chrono::nanoseconds collection_step();
  std::chrono::nanoseconds scrub_step();

  // kUnavailable while a collection or a check runs. Without start() nothing begins it.
  Result<std::uint64_t> start_collection(bool dry_run);
  contract::CollectionStatus collection_status();

  // A check that its caller steps: what it finds is remembered, too.
  class CheckRun {
   public:
    ~CheckRun();
    // kCancelled once it has ended for want of somebody who asks.
    Result<bool> step();
    const contract::CheckProgress& progress() const { return progress_; }
    std::vector<contract::CheckFinding> take_findings() { return std::exchange(findings_, {}); }

   private:
    friend class Maintenance;
    CheckRun(Maintenance& maintenance, const CheckOptions& options);
    Maintenance& maintenance_;
    std::optional<Check> check_;         // until it has ended
    bool stepping_ = false;              // this and the next under maintenance_.mutex_
    std::chrono::nanoseconds asked_{0};  // boottime
    contract::CheckProgress progress_;
    std::vector<contract::CheckFinding> findings_;
  };
  Result<std::unique_ptr<CheckRun>> begin_check(bool repair);
  contract::CheckReport last_check();
  // While a pass runs, with what the last one found.
  contract::CheckReport last_scrub();

 private:
  struct Run {
    bool dry_run = false, asked = false;
    std::uint64_t started_s = 0, paid = 0;
    contract::CollectionStatus status;
    std::unique_ptr<Collector> collector;
  };
  void end_idle_check();  // needs mutex_
  void loop(std::chrono::nanoseconds (Maintenance::*step)(), bool woken_by_a_request);
  bool stopping();
  std::uint64_t disk_bytes();
  void begin_run(bool dry_run, bool asked, std::uint64_t number);
  void end_run(const Result<bool>& last);
  enum class RunState : std::uint8_t { kEnded = 0, kRuns = 1, kStopped = 2 };
  void note_collection(RunState run_state, std::uint64_t began_s, bool dry_run);
  bool due(std::chrono::nanoseconds now);
  void begin_scrub();
  void save_scrub();
  // Reads on. False: the pass has ended.
  Result<bool> scrub_page();
  std::uint64_t unix_s();

  Catalog& catalog_;
  contract::ObjectStore& store_;
  contract::RefStore& refs_;
  Clock& clock_;
  const MaintenanceOptions options_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool busy_ = false;              // a collection or a check
  CheckRun* check_run_ = nullptr;  // that makes it busy
  std::optional<bool> wanted_;     // a collection; dry?
  contract::CollectionStatus status_;
  std::chrono::nanoseconds next_{0};  // boottime
  contract::CheckReport check_, scrub_;
  std::vector<contract::CheckFinding> scrub_before_;  // of the last pass
  // Of the one thread that steps.
  std::optional<Run> run_;
  bool scrub_known_ = false, scrubbing_ = false;
  std::optional<ObjectKey> scrub_after_;
  std::chrono::nanoseconds scrub_saved_{0}, scrub_wait_{0};
  std::vector<std::thread> threads_;
};

}  // namespace dims::catalog
