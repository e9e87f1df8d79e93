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

// What the store knows of an object without its bytes.
struct ObjectRow {
  ObjectKey key;
  format::ObjectKind kind = format::ObjectKind::kChunk;
  std::uint8_t level = 0;
  std::uint32_t object_bytes = 0;
  std::uint64_t touched_s = 0;  // seconds since 1970
};

// A touch time so far ahead of the clock is an error of a clock; the next touch sets it right.
inline constexpr std::uint64_t kTouchAheadMaxSeconds = 24 * 3600;

enum class RemoveOutcome { kRemoved, kTouched, kAbsent };

// What audit() found wrong with one key, and, if it was asked to, mended.
struct StoreFinding {
  enum class Kind {
    kDamagedObject,  // the bytes do not have the id
    kMissingObject,  // a row without bytes
    kStrayBytes,     // bytes without a row: nobody can reach them
    kWrongRow,       // the row says another kind, level or length than the object
    kDamagedRow,     // the row cannot be read
  };
  Kind kind = Kind::kDamagedObject;
  ObjectKey key;
  std::string what;
  bool mended = false;
};
struct AuditPage {
  std::vector<StoreFinding> findings;
  std::optional<ObjectKey> last;  // where the next page begins after; nullopt: this was the last
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;  // read
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  struct PutItem {
    ObjectKey key;
    ByteView object;
  };
  // Stores what is absent, renews the touch time of what is present and heals it if it cannot be
  // read. Verifies id = hash of every object first; one bad object fails the call and nothing of it
  // is stored.
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
  // A hint that barrier() follows soon: what it would wait for may begin now. Never waits.
  virtual void expect_barrier() {}
  virtual Result<StoreInfo> info() = 0;

  // For whoever promises that objects stay: has() and touch() in one step. What it calls present
  // survives every sweep whose mark began before this call (see set_touch_floor).
  virtual Result<std::vector<bool>> touch_present(std::span<const ObjectKey> keys) = 0;
  // Up to limit rows that follow `after` in key order.
  virtual Result<std::vector<ObjectRow>> list_rows(const std::optional<ObjectKey>& after,
                                                   std::size_t limit) = 0;
  // A mark begins: from now on nothing keeps a touch time below this one when it is put or touched.
  // Only grows; durable on return: it holds again as soon as the store is opened, unless it lies
  // ahead of the clock then (kTouchAheadMaxSeconds).
  virtual Status set_touch_floor(std::uint64_t seconds) = 0;
  virtual std::uint64_t touch_floor() = 0;
  // Removes those whose touch time lies before `touched_before_s`; looking at the time and removing
  // are one step.
  virtual Result<std::vector<RemoveOutcome>> remove_untouched(std::span<const ObjectKey> keys,
                                                              std::uint64_t touched_before_s) = 0;
  // Gives the space of removed objects back to the disk; may take minutes. `cancelled` is asked now
  // and then.
  virtual Status reclaim(const std::function<bool()>& cancelled) = 0;
  // Reads what is stored after `after`, at most `limit` keys and about bytes_max bytes, and checks
  // it. mend: drops what is damaged, so that the next put of it heals it; what cannot be read for
  // want of something else than the disk fails the call.
  virtual Result<AuditPage> audit(const std::optional<ObjectKey>& after, std::size_t limit,
                                  std::uint64_t bytes_max, bool mend) = 0;
};

}  // namespace dims::contract
