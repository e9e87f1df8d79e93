// Marker: everything that some roots lead to, found level by level from the top. Each node is read
// once, however many versions share it; keys are kept in sorted runs (key_runs.h).
//
// Threads: one owner; the store may change meanwhile. Ownership: the store outlives it. Errors: of
// the store. Memory: bounded by the runs. Durable: what save() covered, if the runs are lasting;
// nodes that were read before it are not read again by whoever restores it.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include "common/contract/object_store.h"
#include "rdim-server/catalog/key_runs.h"

namespace dims::catalog {

// What a mark has done so far.
struct MarkPlace {
  std::uint8_t level = 0;          // whose nodes are read; those above it were
  std::optional<ObjectKey> after;  // within the level
  std::uint64_t nodes = 0;
  std::vector<std::vector<RunFile>> runs;  // of each level
};

class Marker {
 public:
  static constexpr std::size_t kLevels = format::kMaxLevel + 2;
  // Of a key below a root that must be complete.
  static constexpr std::uint8_t kStrict = 1;
  static constexpr std::uint8_t kNode = 2;

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

  // All that is marked, ascending, behind `after`. After the last step.
  KeyCursor marked(const std::optional<ObjectKey>& after = std::nullopt);

  // Between steps; no cursor of marked() may be open.
  Result<MarkPlace> save();
  Status restore(const MarkPlace& place);
  std::vector<std::string> run_paths() const;

 private:
  Status take(const MarkedKey& entry, Result<Bytes> node);

  contract::ObjectStore& store_;
  const MissingSink missing_;
  std::array<std::unique_ptr<KeyRuns>, kLevels> levels_;  // 0: chunks
  std::size_t level_ = kLevels;
  std::optional<ObjectKey> after_;
  std::unique_ptr<KeyCursor> cursor_;  // behind after_; opened when needed
  std::uint64_t nodes_ = 0;
  std::uint64_t bytes_read_ = 0;
};

}  // namespace dims::catalog
