// RefStore: small records that change, by compare-and-swap.
//
// Threads: thread-safe; puts and removes of one key are linearizable. Ownership: values are copied.
// Units: a revision is opaque, 0 = "absent". Errors: kConflict when the expected revision is not
// the current one; kIo; kInvalidArgument for one key twice in put_all. Durable on return: puts and
// remove (synced). Every implementation passes
// tests/contract/ref_store_suite.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace dims::contract {

struct RefValue {
  Bytes value;
  std::uint64_t revision = 0;
};

// One row of put_all().
struct RefPut {
  std::string key;
  Bytes value;
  std::uint64_t expected_revision = 0;  // 0: the key must be absent
};

class RefStore {
 public:
  virtual ~RefStore() = default;
  virtual Result<std::optional<RefValue>> get(const std::string& key) = 0;
  // expected_revision 0: the key must be absent. Returns the new revision.
  virtual Result<std::uint64_t> put(const std::string& key, ByteView value,
                                    std::uint64_t expected_revision) = 0;
  // Rows of different keys in one step: all of them, or none, whatever happens to the machine.
  virtual Status put_all(const std::vector<RefPut>& rows) = 0;
  virtual Status remove(const std::string& key, std::uint64_t expected_revision) = 0;
  // Keys with this prefix that follow `after`, ascending, at most limit.
  virtual Result<std::vector<std::pair<std::string, RefValue>>> list(const std::string& prefix,
                                                                     const std::string& after,
                                                                     std::size_t limit) = 0;
};

}  // namespace dims::contract
