// Marker: everything that some roots lead to, found level by level from the top. Each node is read
// once, however many versions share it; keys are kept in sorted runs (key_runs.h).
//
// Threads: one owner; the store may change meanwhile. Ownership: the store outlives it. Errors: of
// the store. Memory: bounded by the runs.
#pragma once

#include <array>
#include <functional>

#include "common/contract/object_store.h"
#include "rdim-server/catalog/key_runs.h"

namespace dims::catalog {

class Marker {
 public:
  static constexpr std::size_t kLevels = format::kMaxLevel + 2;
  // Of a key below a root that must be complete.
  static constexpr std::uint8_t kStrict = 1;

  // Told of every node that must be there and is not, or is no node; an error ends the step.
  using MissingSink = std::function<Status(const ObjectKey& node, const Error& why)>;

  Marker(contract::ObjectStore& store, const RunSpace& space, MissingSink missing);

  // Before the first step.
  Status add_root(const ObjectKey& root, bool strict);
  Status add_node(const ObjectKey& node, std::size_t level);
  // Reads at most `nodes` nodes. False: all is marked.
  Result<bool> step(std::size_t nodes);
  std::uint64_t nodes() const { return nodes_; }
  std::uint64_t bytes_read() const { return bytes_read_; }

  // All that is marked, ascending. After the last step.
  KeyCursor marked();

 private:
  Status take(const MarkedKey& entry, Result<Bytes> node);

  contract::ObjectStore& store_;
  const MissingSink missing_;
  std::array<std::unique_ptr<KeyRuns>, kLevels> levels_;  // 0: chunks
  std::size_t level_ = kLevels;
  std::unique_ptr<KeyCursor> cursor_;
  std::uint64_t nodes_ = 0;
  std::uint64_t bytes_read_ = 0;
};

}  // namespace dims::catalog
