// Maintenance: runs collections (asked for, or every interval), checks and the scrub of one server,
// and remembers what they found.
//
// A collection and a check never run at the same time; the scrub runs beside both. A collection
// that a restart cut short begins anew after a minute: in it a check can be asked for. A check that
// nobody asks to go on for ten minutes ends.
//
// Threads: thread-safe; two threads of its own between start() and stop(). Ownership: catalog,
// stores and clock outlive it. Memory: the first findings of the last check and scrub. Durable:
// when the last collection ran, and where the scrub is (lossy by a minute).
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

  void start();
  void stop();

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
  contract::CheckReport last_scrub();

 private:
  void run_collections();
  void end_idle_check();  // needs mutex_
  void collect(bool dry_run);
  void note_collection(const contract::CollectionStatus& status);
  void load_last();
  bool due(std::chrono::nanoseconds now);
  void run_scrub();
  Result<bool> scrub_page(std::optional<ObjectKey>& after);
  // Sleeps what reading so much may take; false: stopping.
  bool pace(std::uint64_t bytes, std::uint64_t bytes_per_s);
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
  std::vector<std::thread> threads_;
};

}  // namespace dims::catalog
