// Audit: what happened that somebody may be asked about: logins and refused ones, changes of the
// log (people, machines, access, keys), commits, take-overs, removals.
//
//   org/audit/<number>   one entry
//
// Threads: thread-safe. Ownership: the store outlives it. Errors: of the store. Durable on return:
// the entry. The newest kKept stay, older ones go.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "common/base/clock.h"
#include "common/contract/ref_store.h"
#include "rdim-server/access/tokens.h"

namespace dims::access {

struct AuditEntry {
  std::uint64_t number = 0;  // 1, then one more each
  std::uint64_t time_unix_s = 0;
  std::string what;
  trust::UserId user;
  MachineId machine;
  ImageId image;
  std::string detail;
  std::string address;
};

class Audit {
 public:
  static Result<std::unique_ptr<Audit>> open(contract::RefStore& refs, Clock& clock);
  static constexpr std::uint64_t kKept = 1'000'000;

  void add(AuditEntry entry);
  // By whom, what, about which image.
  void add(const Caller& caller, std::string what, const ImageId& image = {},
           std::string detail = {});
  // Newest first, those before `before` (0: all), at most limit.
  Result<std::vector<AuditEntry>> read(std::uint64_t before, std::size_t limit);

 private:
  Audit(contract::RefStore& refs, Clock& clock) : refs_(refs), clock_(clock) {}

  contract::RefStore& refs_;
  Clock& clock_;
  std::mutex mutex_;
  std::uint64_t first_ = 1, next_ = 1;
};

}  // namespace dims::access
