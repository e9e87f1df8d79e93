// VersionGate: where those who make versions reachable and the one who drops them meet.
//
// Rule: a version whose record is there and that is not marked as gone keeps its whole tree.
// Whoever relies on a version (a session, a branch) holds the gate from looking for it until his
// own record is durable; whoever commits is known with his root from before the first look at the
// store until the answer; a collection closes the gate to decide that a version goes, and never
// decides so about one that was relied upon since it began.
//
// Threads: thread-safe. Ownership: Hold and Flight end before the gate. Memory: the versions named
// while a collection runs.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <vector>

#include "common/format/version.h"

namespace dims::catalog {

class VersionGate {
 public:
  using Hold = std::shared_lock<std::shared_mutex>;
  Hold hold(const VersionId& version) {
    Hold lock(gate_);
    note(version);
    return lock;
  }

  class Flight {
   public:
    Flight(VersionGate& gate, const VersionId& version, const format::ObjectKey& root)
        : gate_(gate) {
      Hold lock(gate_.gate_);
      std::lock_guard names(gate_.names_mutex_);
      at_ = gate_.flights_.emplace(version, root);
      gate_.named_.insert(version);
    }
    ~Flight() {
      std::lock_guard names(gate_.names_mutex_);
      const VersionId version = at_->first;
      gate_.flights_.erase(at_);
      if (!gate_.collecting_ && !gate_.flights_.contains(version)) gate_.named_.erase(version);
    }
    Flight(const Flight&) = delete;
    Flight& operator=(const Flight&) = delete;

   private:
    VersionGate& gate_;
    std::multimap<VersionId, format::ObjectKey>::iterator at_;
  };

  // A collection begins: the roots of all commits under way.
  std::vector<format::ObjectKey> begin_collection() {
    std::unique_lock closed(gate_);  // nobody is between his look and his record
    std::lock_guard names(names_mutex_);
    collecting_ = true;
    named_.clear();
    std::vector<format::ObjectKey> roots;
    for (const auto& [version, root] : flights_) {
      named_.insert(version);
      roots.push_back(root);
    }
    return roots;
  }
  void end_collection() {
    std::lock_guard names(names_mutex_);
    collecting_ = false;
    named_.clear();
    for (const auto& [version, root] : flights_) named_.insert(version);
  }

  // Runs `drop` with the gate closed unless somebody relied on the version since the collection
  // began; then false comes back.
  template <typename Drop>
  Result<bool> drop(const VersionId& version, Drop drop) {
    std::unique_lock closed(gate_);
    {
      std::lock_guard names(names_mutex_);
      if (named_.contains(version)) return false;
    }
    const Status dropped = drop();
    if (!dropped.ok()) return dropped.error();
    return true;
  }

 private:
  void note(const VersionId& version) {
    std::lock_guard names(names_mutex_);
    if (collecting_) named_.insert(version);
  }

  std::shared_mutex gate_;
  std::mutex names_mutex_;
  bool collecting_ = false;
  std::multimap<VersionId, format::ObjectKey> flights_;
  std::set<VersionId> named_;  // relied upon since the collection began
};

}  // namespace dims::catalog
