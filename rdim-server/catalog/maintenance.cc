#include "rdim-server/catalog/maintenance.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/base/parse.h"
#include "common/base/wire.h"

namespace dims::catalog {
namespace {

constexpr const char* kCollectionKey = "maintenance/collection";
constexpr const char* kScrubKey = "maintenance/scrub";
constexpr std::size_t kFindingsMax = 1000;
constexpr std::chrono::seconds kScrubPause = std::chrono::hours(24);
constexpr std::chrono::seconds kScrubSaveEvery{60};
constexpr std::chrono::seconds kRetryAfter{60};
constexpr std::chrono::seconds kCheckIdleMax = std::chrono::minutes(10);

void remember(contract::CheckReport& report, const std::vector<contract::CheckFinding>& findings) {
  report.findings_total += findings.size();
  for (const auto& finding : findings) {
    if (report.findings.size() < kFindingsMax) {
      report.findings.push_back(finding);
      continue;
    }
    // Notes give way, so that a report of nothing but notes has nothing worse.
    const auto note =
        std::find_if(report.findings.begin(), report.findings.end(),
                     [](const auto& kept) { return kept.severity == contract::Severity::kNote; });
    if (finding.severity == contract::Severity::kNote || note == report.findings.end()) continue;
    report.findings.erase(note);
    report.findings.push_back(finding);
  }
}

void save(contract::RefStore& refs, const char* key, const Bytes& value) {
  const auto row = refs.get(key);
  if (!row.ok()) return;
  const auto put = refs.put(key, value, *row ? (*row)->revision : 0);
  if (!put.ok()) spdlog::warn("cannot note {}: {}", key, put.error().to_string());
}

}  // namespace

Maintenance::Maintenance(Catalog& catalog, contract::ObjectStore& store, contract::RefStore& refs,
                         Clock& clock, const MaintenanceOptions& options)
    : catalog_(catalog), store_(store), refs_(refs), clock_(clock), options_(options) {}

Maintenance::~Maintenance() { stop(); }

std::uint64_t Maintenance::unix_s() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
}

void Maintenance::start() {
  load_last();
  threads_.emplace_back([this] { run_collections(); });
  if (options_.scrub_bytes_per_s != 0) threads_.emplace_back([this] { run_scrub(); });
}

void Maintenance::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool Maintenance::pace(std::uint64_t bytes, std::uint64_t bytes_per_s) {
  std::unique_lock lock(mutex_);
  if (bytes_per_s == 0) return !stopping_;
  const std::chrono::duration<double> time(static_cast<double>(bytes) /
                                           static_cast<double>(bytes_per_s));
  changed_.wait_for(lock, time, [&] { return stopping_; });
  return !stopping_;
}

// Row: 1 while one runs, 0 after it (1 byte), when it began (8, seconds since 1970).
void Maintenance::load_last() {
  std::lock_guard lock(mutex_);
  next_ = clock_.boottime() + options_.gc_interval;
  const auto row = refs_.get(kCollectionKey);
  if (!row.ok() || !*row) return;
  Reader r((*row)->value);
  const bool cut_short = r.u8() != 0;
  const std::uint64_t began = r.u64(), now = unix_s();
  if (!r.ok()) return;
  const auto interval = static_cast<std::uint64_t>(options_.gc_interval.count());
  const std::uint64_t age = now > began ? now - began : 0;
  if (cut_short) {
    next_ = clock_.boottime() + kRetryAfter;  // what ended the server may need a check first
  } else {
    next_ = clock_.boottime() + std::chrono::seconds(age < interval ? interval - age : 0);
  }
}

void Maintenance::note_collection(const contract::CollectionStatus& status) {
  if (status.dry_run) return;
  Bytes value;
  Writer w(value);
  w.u8(status.running ? 1 : 0);
  w.u64(status.began_unix_s);
  save(refs_, kCollectionKey, value);
}

Result<std::uint64_t> Maintenance::start_collection(bool dry_run) {
  std::lock_guard lock(mutex_);
  end_idle_check();
  if (busy_ || wanted_) {
    return make_error(ErrorCode::kUnavailable, "a collection or a check is running",
                      "wait until it has ended: 'rdim gc status'");
  }
  wanted_ = dry_run;
  status_.running = true;  // from the caller's point of view
  changed_.notify_all();
  return status_.run + 1;
}

contract::CollectionStatus Maintenance::collection_status() {
  std::lock_guard lock(mutex_);
  contract::CollectionStatus out = status_;
  if (options_.gc_interval.count() != 0 && !out.running) {
    const auto left = next_ - clock_.boottime();
    out.next_in_s = static_cast<std::uint64_t>(
        std::max<std::int64_t>(std::chrono::ceil<std::chrono::seconds>(left).count(), 1));
  }
  return out;
}

bool Maintenance::due(std::chrono::nanoseconds now) {
  return options_.gc_interval.count() != 0 && now >= next_;
}

void Maintenance::run_collections() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    end_idle_check();
    const bool asked = wanted_.has_value();
    if (!busy_ && (asked || due(clock_.boottime()))) {
      const bool dry_run = wanted_.value_or(false);
      wanted_.reset();
      busy_ = true;
      lock.unlock();
      collect(dry_run);
      lock.lock();
      busy_ = false;
      continue;
    }
    changed_.wait_for(lock, std::chrono::seconds(1));
  }
}

void Maintenance::collect(bool dry_run) {
  CollectorOptions options;
  options.upload_grace = options_.upload_grace;
  options.dry_run = dry_run;
  options.space = options_.space;
  Collector collector(catalog_, store_, clock_, options);
  contract::CollectionStatus now;
  const auto disk_bytes = [&] {
    const auto info = store_.info();
    return info.ok() ? info->disk_bytes : 0;
  };
  now.running = true;
  now.dry_run = dry_run;
  now.began_unix_s = unix_s();
  now.disk_bytes_before = disk_bytes();
  {
    std::lock_guard lock(mutex_);
    now.run = status_.run + 1;
  }
  note_collection(now);
  const auto stopping = [this] {
    std::lock_guard lock(mutex_);
    return stopping_;
  };
  Result<bool> more = true;
  std::uint64_t paid = 0;
  while (more.ok() && *more) {
    more = collector.step(stopping);
    const CollectorFigures& figures = collector.figures();
    now.phase = name_of(collector.phase());
    now.images = figures.roots.images;
    now.versions_kept = figures.roots.versions_kept;
    now.versions_dropped = figures.roots.versions_dropped;
    now.records_removed = figures.roots.records_removed;
    now.nodes_marked = figures.nodes_marked;
    now.objects = figures.objects;
    now.garbage = figures.garbage;
    now.garbage_bytes = figures.garbage_bytes;
    now.removed = figures.removed;
    now.spared = figures.spared;
    {
      std::lock_guard lock(mutex_);
      status_ = now;
    }
    if (!pace(figures.cost_bytes - paid, options_.gc_bytes_per_s)) break;
    paid = figures.cost_bytes;
  }
  const bool ended = more.ok() && !*more;
  if (!more.ok()) {
    now.failed = more.error();
    spdlog::error("collection: {}", more.error().to_string());
  }
  now.disk_bytes_after = disk_bytes();
  now.ended_unix_s = unix_s();
  // Stopped with the server it counts as cut short, and begins anew with it.
  now.running = !ended && more.ok();
  note_collection(now);
  now.running = false;
  if (ended) {
    spdlog::info("collection {}: {} of {} objects are garbage ({}), {} removed, {} versions let go",
                 now.run, now.garbage, now.objects, format_size(now.garbage_bytes), now.removed,
                 now.versions_dropped);
  }
  std::lock_guard lock(mutex_);
  status_ = now;
  const auto again = now.failed ? std::max(options_.gc_interval, kRetryAfter)
                                : std::chrono::seconds(options_.gc_interval);
  if (!dry_run) next_ = clock_.boottime() + again;
}

Maintenance::CheckRun::CheckRun(Maintenance& maintenance, const CheckOptions& options)
    : maintenance_(maintenance) {
  check_.emplace(maintenance.catalog_, maintenance.store_, maintenance.refs_, options);
}

Maintenance::CheckRun::~CheckRun() {
  {
    std::lock_guard lock(maintenance_.mutex_);
    if (maintenance_.check_run_ != this) return;
    // Its walk opens the gate of versions again: not under a collection that begins below.
    check_.reset();
    maintenance_.check_run_ = nullptr;
    maintenance_.busy_ = false;
  }
  maintenance_.changed_.notify_all();
}

// Whoever does not read what it says must not keep collections away.
void Maintenance::end_idle_check() {
  if (check_run_ == nullptr || check_run_->stepping_) return;
  if (clock_.boottime() - check_run_->asked_ < kCheckIdleMax) return;
  spdlog::warn("check: nobody asked for more in {} minutes: it ends", kCheckIdleMax.count() / 60);
  check_run_->check_.reset();
  check_run_ = nullptr;
  busy_ = false;
}

Result<bool> Maintenance::CheckRun::step() {
  {
    std::lock_guard lock(maintenance_.mutex_);
    if (!check_) {
      return make_error(ErrorCode::kCancelled,
                        "the check was ended: nobody read what it said for 10 minutes",
                        "run it again, and let it go on: 'rdim check'");
    }
    stepping_ = true;
  }
  const auto more = check_->step();
  progress_ = check_->progress();
  const auto fresh = check_->take_findings();
  findings_.insert(findings_.end(), fresh.begin(), fresh.end());
  for (const contract::CheckFinding& finding : fresh) {
    if (finding.severity == contract::Severity::kNote) continue;
    spdlog::warn("check: {}: {} ({}){}", finding.code, finding.what, finding.where,
                 finding.repaired ? ": repaired" : "");
  }
  std::lock_guard lock(maintenance_.mutex_);
  stepping_ = false;
  asked_ = maintenance_.clock_.boottime();
  remember(maintenance_.check_, fresh);
  maintenance_.check_.progress = check_->progress();
  if (more.ok() && !*more) maintenance_.check_.ended_unix_s = maintenance_.unix_s();
  return more;
}

Result<std::unique_ptr<Maintenance::CheckRun>> Maintenance::begin_check(bool repair) {
  std::lock_guard lock(mutex_);
  end_idle_check();
  if (busy_ || wanted_) {
    return make_error(ErrorCode::kUnavailable, "a collection or a check is running",
                      "wait until it has ended: 'rdim gc status'");
  }
  busy_ = true;
  check_ = {};
  check_.began_unix_s = unix_s();
  check_.repair = repair;
  CheckOptions options;
  options.repair = repair;
  options.space = options_.space;
  std::unique_ptr<CheckRun> run(new CheckRun(*this, options));
  run->asked_ = clock_.boottime();
  check_run_ = run.get();
  return run;
}

contract::CheckReport Maintenance::last_check() {
  std::lock_guard lock(mutex_);
  return check_;
}

contract::CheckReport Maintenance::last_scrub() {
  std::lock_guard lock(mutex_);
  return scrub_;
}

// Reads on; true: the pass has ended.
Result<bool> Maintenance::scrub_page(std::optional<ObjectKey>& after) {
  DIMS_ASSIGN(const contract::AuditPage page, store_.audit(after, 64, kMiB, false));
  std::vector<contract::CheckFinding> findings;
  for (const contract::StoreFinding& finding : page.findings) {
    if (finding.kind == contract::StoreFinding::Kind::kStrayBytes) continue;
    const std::string where = "object " + finding.key.id.hex();
    spdlog::error("scrub: {}: {}", where, finding.what);
    findings.push_back({"damaged-object", contract::Severity::kError, finding.what, where,
                        "run 'rdim check'; a machine that still has it puts it again", false});
    // A read finds it damaged, too, and then it counts as absent: the next put heals it.
    store_.get(std::span(&finding.key, 1), [](std::size_t, Result<Bytes>) { return true; });
  }
  after = page.last;
  {
    std::lock_guard lock(mutex_);
    scrub_.progress.phase = after ? "objects" : "done";
    scrub_.progress.objects += page.objects;
    scrub_.progress.bytes += page.bytes;
    remember(scrub_, findings);
    if (!after) scrub_.ended_unix_s = unix_s();
  }
  if (!pace(std::max<std::uint64_t>(page.bytes, page.objects * 64), options_.scrub_bytes_per_s)) {
    return true;
  }
  return !after;
}

void Maintenance::run_scrub() {
  const auto stopped = [this] {
    std::lock_guard lock(mutex_);
    return stopping_;
  };
  std::optional<ObjectKey> after;
  if (const auto row = refs_.get(kScrubKey); row.ok() && *row) {
    Reader r((*row)->value);
    ObjectKey key;
    key.domain = r.id<DomainId>();
    key.id = r.id<ObjectId>();
    if (r.at_end()) after = key;
  }
  while (!stopped()) {
    {
      std::lock_guard lock(mutex_);
      const auto findings = std::move(scrub_.findings);
      scrub_ = {};
      scrub_.began_unix_s = unix_s();
      scrub_.findings = findings;  // of the last pass, until it is over
      scrub_.findings_total = findings.size();
    }
    auto saved = clock_.boottime();
    bool over = false;
    while (!over && !stopped()) {
      const auto page = scrub_page(after);
      if (!page.ok()) spdlog::error("scrub: {}", page.error().to_string());
      over = !page.ok() || *page;
      if (!over && clock_.boottime() - saved < kScrubSaveEvery) continue;
      saved = clock_.boottime();
      Bytes value;
      if (after) {
        Writer w(value);
        w.id(after->domain);
        w.id(after->id);
      }
      save(refs_, kScrubKey, value);
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kScrubPause, [&] { return stopping_; });
    after.reset();
  }
}

}  // namespace dims::catalog
