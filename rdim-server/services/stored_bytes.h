// StoredBytes: how many bytes the store holds of a domain: what a user's quota is about.
//
// Counted by a look at the domain's rows, which costs with their number, and kept; what is put is
// added as it comes. Whoever is about to be refused has it counted anew, so what a collection took
// is given back at once. Garbage that no collection has taken yet counts.
// Threads: thread-safe; one domain is counted at a time, and nobody waits for it: meanwhile the
// last figure stands, and where there is none yet, nothing is known to be stored. Ownership: store
// and clock outlive it. Units: bytes of sealed objects. Errors: of the store. Durable: nothing.
#pragma once

#include <map>
#include <mutex>

#include "common/base/clock.h"
#include "common/contract/object_store.h"

namespace dims::services {

class StoredBytes {
 public:
  StoredBytes(contract::ObjectStore& store, Clock& clock) : store_(store), clock_(clock) {}

  enum class Look { kKept, kAnew };  // kAnew: unless that was a moment ago
  Result<std::uint64_t> of(const DomainId& domain, Look look);
  void added(const DomainId& domain, std::uint64_t bytes);

 private:
  struct Count {
    std::uint64_t bytes = 0;
    std::chrono::nanoseconds at{0};
  };
  Result<std::uint64_t> count(const DomainId& domain);

  contract::ObjectStore& store_;
  Clock& clock_;
  std::mutex counting_;  // taken before mutex_
  std::mutex mutex_;
  std::map<DomainId, Count> counts_;
};

}  // namespace dims::services
