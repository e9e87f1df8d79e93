// ObjectStore: the server's store of sealed objects. Engines come behind this; nothing above knows
// which.
//
// Threads: all methods are thread-safe and may run in parallel. Ownership: callers own what they
// pass and what is returned. Units: bytes. Errors: kCorrupt for an object whose bytes do not have
// its id (put refuses it, get reports it), kNoSpace, kIo. Durable on return: nothing but barrier().
// Every implementation passes tests/contract/object_store_suite.h.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/format/object.h"

namespace dims::contract {

using format::ObjectKey;

enum class PutOutcome { kStored, kPresent };

struct StoreInfo {
  std::uint64_t objects = 0;
  std::uint64_t object_bytes = 0;  // sum of the sealed objects
  std::uint64_t disk_bytes = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  struct PutItem {
    ObjectKey key;
    ByteView object;
  };
  // Stores what is absent and renews the touch time of what is present. Verifies id = hash of every
  // object first; one bad object fails the call and nothing of it is stored.
  virtual Result<std::vector<PutOutcome>> put(std::span<const PutItem> items) = 0;

  // Calls sink(index, object or error) once a key, in any order, on the calling thread; stops early
  // when sink returns false. kNotFound for absent objects.
  using GetSink = std::function<bool(std::size_t index, Result<Bytes> object)>;
  virtual void get(std::span<const ObjectKey> keys, const GetSink& sink) = 0;

  virtual Result<std::vector<bool>> has(std::span<const ObjectKey> keys) = 0;
  // Renews the touch time, so that a sweep spares them for another grace period.
  virtual Status touch(std::span<const ObjectKey> keys) = 0;
  virtual Status remove(const ObjectKey& key) = 0;
  // Up to limit keys that follow `after` in key order.
  virtual Result<std::vector<ObjectKey>> list(const std::optional<ObjectKey>& after,
                                              std::size_t limit) = 0;
  // Everything that put() answered (stored or present) before this call is durable on return.
  virtual Status barrier() = 0;
  virtual Result<StoreInfo> info() = 0;
};

}  // namespace dims::contract
