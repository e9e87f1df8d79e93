// RootWalk: finds what must stay: every version that keeps its data, in pieces. In mode kDrop it
// also decides what goes (retention) and writes that down before anything of it is swept; removes
// the records of versions that no image leads to any more.
//
// Threads: one owner; images may change meanwhile. Ownership: the catalog outlives it. Errors:
// kCorrupt when a version that must stay is not known or damaged (a sweep would take what it held).
// Durable on return: every decision that was counted.
#pragma once

#include <functional>
#include <set>

#include "rdim-server/catalog/catalog.h"
#include "rdim-server/catalog/key_runs.h"
#include "rdim-server/catalog/retention.h"

namespace dims::catalog {

struct RootFigures {
  std::uint64_t images = 0;
  std::uint64_t versions_kept = 0;
  std::uint64_t versions_dropped = 0;  // by retention; in a dry run: would be
  std::uint64_t records_removed = 0;   // of versions that no image leads to
};

// What is wrong with the records, for check; a collection stops at the fatal ones.
struct RootTrouble {
  enum class Kind {
    kDanglingHead,     // a head or an origin that is not known
    kMissingParent,    // a version whose parent is not known
    kDamagedVersion,   // a version record that is not what its id says
    kDroppedHead,      // marked as gone, and yet a head or an origin
    kUnknownBase,      // a session on a version that is not known
    kDamagedSession,   // what it stands on cannot be read
    kUnlinkedVersion,  // a record that no image leads to
  };
  Kind kind = Kind::kDanglingHead;
  bool fatal = false;
  VersionId version;
  std::string where;
};

class RootWalk {
 public:
  enum class Mode {
    kDrop,    // decide and write down
    kDryRun,  // count what kDrop would do
    kAll,     // everything that is not gone counts as root
  };
  struct Options {
    Mode mode = Mode::kAll;
    bool guard = false;  // with kAll: the caller drops what is unlinked through the gate
    RunSpace space;
    std::size_t versions_a_step = 64;
  };
  // strict: everything below it must be there.
  using Sink = std::function<Status(const ObjectKey& root, bool strict)>;
  using TroubleSink = std::function<Status(const RootTrouble& trouble)>;

  RootWalk(Catalog& catalog, const Options& options, Sink sink, TroubleSink trouble);
  ~RootWalk();

  // False: nothing was left.
  Result<bool> step();
  const RootFigures& figures() const { return figures_; }

 private:
  enum class Phase { kBegin, kImages, kUnlinked, kPins, kDone };
  struct Chain {
    ImageId image;
    std::string name;
    VersionId at;
    RetentionChooser chooser;
    bool parent_may_be_gone = false;
  };

  Status begin();
  Status gather_images();
  Status gather_sessions();
  Status step_images();
  Status step_chain();
  Status visit(const VersionId& id, const format::VersionRecord& record);
  Status visit_shared(const VersionId& id);
  Status let_go(const VersionId& id, const format::VersionRecord& record);
  Status step_unlinked();
  Status step_pins();
  Status emit(const format::VersionRecord& record);
  Status report(RootTrouble::Kind kind, bool fatal, const VersionId& version,
                const std::string& where);

  Catalog& catalog_;
  const Options options_;
  const Sink sink_;
  const TroubleSink trouble_;
  RootFigures figures_;
  Phase phase_ = Phase::kBegin;
  bool collecting_ = false;

  std::vector<ImageId> images_;
  std::size_t image_ = 0;
  std::optional<Chain> chain_;
  std::map<VersionId, std::string> heads_;  // and origins; whose
  std::set<VersionId> pins_;                // of sessions
  std::map<VersionId, std::string>::iterator head_at_;
  std::set<VersionId>::iterator pin_at_;
  KeyRuns linked_;
  std::unique_ptr<KeyCursor> linked_cursor_;
  std::optional<MarkedKey> linked_at_;
  std::string version_after_;
};

}  // namespace dims::catalog
