// Admin: what administrators ask of RDIM beyond images: collection, check, retention. Implemented
// by common/client (gRPC).
//
// Threads: thread-safe; calls block. Ownership: values. Errors: as Remote's (remote.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace dims::contract {

struct CollectionStatus {
  std::uint64_t run = 0;  // number of the run since the server started; 0: none yet
  bool running = false;
  bool dry_run = false;
  std::string phase;
  std::uint64_t images = 0, versions_kept = 0, versions_dropped = 0, records_removed = 0;
  std::uint64_t nodes_marked = 0, objects = 0, garbage = 0, garbage_bytes = 0;
  std::uint64_t removed = 0, spared = 0;
  std::uint64_t disk_bytes_before = 0, disk_bytes_after = 0;
  std::uint64_t began_unix_s = 0, ended_unix_s = 0;
  std::uint64_t next_in_s = 0;  // 0: none is planned
  std::uint64_t resumed = 0;    // how often it went on after a restart of the server
  std::optional<Error> failed;  // why the run stopped
};

enum class Severity { kNote, kWarning, kError };

struct CheckFinding {
  std::string code;  // stable, lower case
  Severity severity = Severity::kError;
  std::string what;
  std::string where;
  std::string hint;
  bool repaired = false;
};

struct CheckProgress {
  std::string phase;
  std::uint64_t objects = 0, bytes = 0, nodes = 0, versions = 0, images = 0;
  std::uint64_t garbage = 0, garbage_bytes = 0;  // what the next collection may take
};

struct CheckReport {
  std::uint64_t began_unix_s = 0, ended_unix_s = 0;  // 0: never, still running
  bool repair = false;
  CheckProgress progress;
  std::vector<CheckFinding> findings;  // the first of them
  std::uint64_t findings_total = 0;
};

struct RetentionInfo {
  std::string policy;  // "all" or "last=10,hourly=24,..."
  bool own = false;    // the image's own, not the server's
};

class Admin {
 public:
  virtual ~Admin() = default;
  // Returns the run's number at once; kUnavailable while a collection or a check runs.
  virtual Result<std::uint64_t> start_collection(bool dry_run) = 0;
  virtual Result<CollectionStatus> collection_status() = 0;
  using FindingSink = std::function<void(const CheckFinding& finding)>;
  using ProgressSink = std::function<void(const CheckProgress& progress)>;
  // Returns when the whole store was looked at.
  virtual Status check(bool repair, const FindingSink& found, const ProgressSink& progress) = 0;
  struct LastChecks {
    CheckReport check, scrub;
  };
  virtual Result<LastChecks> last_checks() = 0;
  virtual Result<RetentionInfo> retention(const ImageId& image) = 0;
  // Empty: the server's again.
  virtual Result<RetentionInfo> set_retention(const ImageId& image, const std::string& policy) = 0;
  // ImageInfo::unsent names the machine no longer. kNotFound: it did not.
  virtual Status forget_unsent(const ImageId& image, const MachineId& machine) = 0;
  // Ends waiting calls with kCancelled.
  virtual void shutdown() = 0;
};

}  // namespace dims::contract
