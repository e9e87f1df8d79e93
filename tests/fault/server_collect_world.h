// A small server and a few clients, whose every step a seeded schedule chooses, a collection
// included: also in the middle of a commit. Real catalog, real collector; the stores are in memory
// or RocksDB.
//
// Threads: one. Units: steps.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "common/io/memory_file.h"
#include "rdim-server/catalog/catalog.h"
#include "rdim-server/catalog/collector.h"
#include "rdim-server/stores/memory_stores.h"

namespace dims::test {

using contract::ObjectKey;
using format::SealedObject;

// Trees that share chunks and leaves, sealed once a process.
struct TreePool {
  struct Tree {
    std::vector<const SealedObject*> objects;  // children before parents
    ObjectKey root;
  };
  explicit TreePool(std::uint64_t seed);
  DomainId domain;
  std::deque<SealedObject> sealed;
  std::vector<Tree> trees;
  std::map<ObjectKey, const SealedObject*> by_key;
};

// Passes everything on; lets the schedule in between.
class YieldingStore : public contract::ObjectStore {
 public:
  explicit YieldingStore(contract::ObjectStore& below) : below_(&below) {}
  void stand_on(contract::ObjectStore& below) { below_ = &below; }
  std::function<void()> yield = [] {};

  Result<std::vector<contract::PutOutcome>> put(std::span<const PutItem> items) override {
    return below_->put(items);
  }
  void get(std::span<const ObjectKey> keys, const GetSink& sink) override {
    yield();
    below_->get(keys, sink);
    yield();
  }
  Result<std::vector<bool>> has(std::span<const ObjectKey> keys) override {
    return below_->has(keys);
  }
  Status touch(std::span<const ObjectKey> keys) override { return below_->touch(keys); }
  Status remove(const ObjectKey& key) override { return below_->remove(key); }
  Result<std::vector<ObjectKey>> list(const std::optional<ObjectKey>& after,
                                      std::size_t limit) override {
    return below_->list(after, limit);
  }
  Status barrier() override {
    yield();
    const Status status = below_->barrier();
    yield();
    return status;
  }
  Result<contract::StoreInfo> info() override { return below_->info(); }
  Result<std::vector<bool>> touch_present(std::span<const ObjectKey> keys) override {
    yield();
    auto present = below_->touch_present(keys);
    yield();
    return present;
  }
  Result<std::vector<contract::ObjectRow>> list_rows(const std::optional<ObjectKey>& after,
                                                     std::size_t limit) override {
    return below_->list_rows(after, limit);
  }
  Status set_touch_floor(std::uint64_t seconds) override {
    return below_->set_touch_floor(seconds);
  }
  std::uint64_t touch_floor() override { return below_->touch_floor(); }
  Result<std::vector<contract::RemoveOutcome>> remove_untouched(
      std::span<const ObjectKey> keys, std::uint64_t touched_before_s) override {
    return below_->remove_untouched(keys, touched_before_s);
  }
  Status reclaim(const std::function<bool()>& cancelled) override {
    return below_->reclaim(cancelled);
  }
  Result<contract::AuditPage> audit(const std::optional<ObjectKey>& after, std::size_t limit,
                                    std::uint64_t bytes_max, bool mend) override {
    return below_->audit(after, limit, bytes_max, mend);
  }

 private:
  contract::ObjectStore* below_;
};

class CollectWorld {
 public:
  CollectWorld(const TreePool& pool, std::uint64_t seed, Clock& clock,
               std::function<void(std::chrono::seconds)> advance, contract::ObjectStore& objects,
               contract::RefStore& refs);

  // What a restart finds, if the stores do not outlive the process: called when nobody uses the old
  // ones any more.
  std::function<std::pair<contract::ObjectStore*, contract::RefStore*>()> reopen;

  // Runs the schedule to its end, then collects until nothing is left to do. Empty: all is well;
  // else what went wrong.
  std::string run(std::size_t steps);

  struct Counts {
    std::uint64_t commits = 0, missing = 0, branches = 0, removals = 0, collections = 0, swept = 0,
                  spared = 0, dropped = 0, restarts = 0, steps_inside_commits = 0, saves = 0,
                  resumed = 0, resumed_sweeps = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Upload {
    const TreePool::Tree* tree = nullptr;
    std::size_t next = 0;
  };
  struct Client {
    ImageId image;
    std::string name;
    contract::LeaseGrant lease;
    std::optional<Upload> upload;
    std::set<SessionId> sessions;
    std::vector<VersionId> versions;
    std::uint64_t epoch = 0;
    JournalId journal;
  };

  void fail(const std::string& what);
  void restart();
  void step();
  void make_image();
  void branch();
  void upload_step(Client& client);
  void commit(Client& client);
  void open_session(Client& client);
  void close_session(Client& client);
  void remove_image();
  void set_retention(Client& client);
  void start_collection();
  catalog::CollectorOptions collector_options();
  void collect_step();
  bool complete(const VersionId& version, std::set<ObjectKey>* all);
  void check_all(std::set<ObjectKey>* all);
  void check_end();
  Client* some_client();

  const TreePool& pool_;
  SeededRandom random_;
  Clock& clock_;
  const std::function<void(std::chrono::seconds)> advance_;
  contract::ObjectStore* bare_;
  YieldingStore objects_;
  contract::RefStore* refs_;
  std::unique_ptr<catalog::Catalog> catalog_;
  io::MemoryFileSystem files_;  // of lasting runs
  bool lasting_ = false;
  bool catalog_opened_ = false;
  std::unique_ptr<catalog::Collector> collector_;
  std::chrono::seconds grace_{0};
  bool in_commit_ = false;
  bool in_collector_ = false;
  std::vector<std::unique_ptr<Client>> clients_;
  std::uint64_t names_ = 0;
  std::string failure_;
  Counts counts_;
};

}  // namespace dims::test
