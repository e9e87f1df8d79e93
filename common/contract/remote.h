// Remote: RDIM as a client sees it. Implemented by common/client (gRPC) and by test doubles.
//
// Threads: all methods are thread-safe and block the caller; many callers at once are the way to
// have many requests in flight (they share streams). Ownership: values. Errors: kUnavailable when
// the server cannot be reached now (the caller decides whether to wait and retry); kCancelled after
// shutdown(); all others as the server typed them. No call has a time limit of its own beyond the
// connection's health: slow is not dead.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/format/object.h"
#include "common/format/version.h"

namespace dims::contract {

using format::CommitPoint;
using format::ObjectKey;

enum class Priority { kDemand, kBoot, kWriteBack, kPrefetch };

struct ServerInfo {
  GenerationId generation;
  std::string version;
  std::uint32_t max_objects_per_request = 0;
  std::uint32_t max_message_bytes = 0;
};

struct HolderInfo {
  MachineId machine;
  std::string machine_name;
  SessionId session;
  std::chrono::milliseconds expires_in{0};  // 0: expired
  std::uint64_t unsent_bytes = 0;           // as the holder said at its last renewal
};

struct ImageInfo {
  ImageId id;
  std::string name;
  std::uint64_t image_bytes = 0;
  format::TreeParameters tree;
  DomainId domain;
  Digest key_check;
  VersionId head;  // zero: no version yet
  std::uint64_t head_sequence = 0;
  VersionId origin;  // zero: none
  std::uint64_t created_unix_ns = 0;
  std::optional<HolderInfo> holder;
  std::string conflict_of;
  std::vector<HolderInfo> unsent;  // lost the lease before releasing it, and did not report since
  std::vector<std::string> branches;  // names of its conflict branches that the asker may read
};

// What is to be removed, and on which conditions.
struct ImageRemoval {
  // NOLINTNEXTLINE(google-explicit-constructor): mostly there are none.
  ImageRemoval(const ImageId& image) : id(image) {}
  ImageId id;
  VersionId head;  // not zero: only while this is its newest version, else kConflict
  LeaseId lease;   // not zero: only under this lease; else only while nobody holds one
  std::uint64_t token = 0;
};

struct VersionInfo {
  VersionId id;
  Bytes record_bytes;
  format::VersionRecord record;
  bool gone = false;  // retention let its data go
};

struct SessionRequest {
  ImageId image;
  SessionId session;
  MachineId machine;
  std::string machine_name;
  std::string mode;
  VersionId base;                  // zero: the head
  JournalId journal;               // zero: none
  std::uint64_t unsent_bytes = 0;  // what its machine still has to send
};
struct SessionAnswer {
  ImageInfo image;
  std::optional<CommitPoint> newest_of_journal;
  VersionId newest_version;
};

struct LeaseRequest {
  ImageId image;
  SessionId session;
  MachineId machine;
  std::string machine_name;
  bool take_over = false;  // end another's lease
  bool hand_off = false;   // ask the holder to send what it has and to release
};
struct LeaseGrant {
  LeaseId lease;
  std::uint64_t token = 0;
  std::chrono::milliseconds term{0};
  std::uint64_t unsent_bytes = 0;  // told at a renewal
};

struct CommitOrder {
  ImageId image;
  LeaseId lease;
  std::uint64_t token = 0;
  VersionId parent;  // zero: the image has no version yet
  Bytes record;
};
struct CommitAnswer {
  VersionId version;
  std::uint64_t sequence = 0;
  bool repeated = false;
  std::vector<ObjectKey> missing;  // not empty: nothing was committed
};

struct DiffPart {
  std::vector<format::ObjectKey> keys;
  std::vector<Bytes> nodes;
  std::vector<format::ObjectKey> removed;
};

struct ServerEvent {
  enum class Kind { kReady, kNewVersion, kLeaseRequested, kLeaseLost, kRemoved, kBranches };
  Kind kind = Kind::kReady;
  ImageId image;
  VersionId version;
  std::uint64_t sequence = 0;
  std::optional<HolderInfo> who;
  bool hand_off = false;              // of kLeaseRequested
  std::vector<std::string> branches;  // of kBranches: all of them now
};

struct RemoteStoreInfo {
  std::uint64_t objects = 0, object_bytes = 0, disk_bytes = 0, images = 0;
  std::uint64_t puts_stored = 0, puts_present = 0, gets = 0, bytes_sent = 0, bytes_received = 0;
  GenerationId generation;
};

struct RemoteCounters {
  std::uint64_t bytes_received = 0;  // of objects
  std::uint64_t bytes_sent = 0;      // and taken by the server
  std::uint64_t objects_received = 0;
  std::uint64_t objects_sent = 0;
  bool connected = false;
  std::uint64_t losses = 0;   // times that calls found the connection lost
  std::uint64_t rebuilt = 0;  // times that it was made anew because the host's network changed
  std::uint64_t network_changes = 0;
  std::string rebuilt_because;  // the last time
};

class EventStream {
 public:
  virtual ~EventStream() = default;  // cancels
  // The next event; kDeadlineExceeded after the timeout, kUnavailable when the stream broke.
  virtual Result<ServerEvent> next(std::chrono::milliseconds timeout) = 0;
  // Wakes who waits in next(), now and from now on: kCancelled. From any thread.
  virtual void cancel() {}
};

class Remote {
 public:
  virtual ~Remote() = default;

  virtual Result<ServerInfo> hello() = 0;

  virtual Result<ImageInfo> create_image(const ImageInfo& image) = 0;
  virtual Result<ImageInfo> find_image(const std::string& name) = 0;
  virtual Result<ImageInfo> get_image(const ImageId& id) = 0;
  virtual Result<std::vector<ImageInfo>> list_images() = 0;
  virtual Status remove_image(const ImageRemoval& removal) = 0;

  // version zero and sequence 0: the head. Structure and signature of the record are checked.
  virtual Result<VersionInfo> get_version(const ImageId& image, const VersionId& version,
                                          std::uint64_t sequence) = 0;
  virtual Result<std::vector<VersionInfo>> list_versions(const ImageId& image,
                                                         std::uint32_t limit) = 0;

  virtual Result<SessionAnswer> open_session(const SessionRequest& request) = 0;
  virtual Status close_session(const ImageId& image, const SessionId& session) = 0;
  virtual Result<LeaseGrant> acquire_lease(const LeaseRequest& request) = 0;
  virtual Result<LeaseGrant> renew_lease(const ImageId& image, const LeaseGrant& lease) = 0;
  virtual Status release_lease(const ImageId& image, const LeaseGrant& lease) = 0;
  virtual Result<CommitAnswer> commit(const CommitOrder& order) = 0;

  // Any number of keys; split into requests as the limits say. sink(index, object or error) runs on
  // the calling thread, once a key unless the call fails; ids are verified before.
  using GetSink = std::function<void(std::size_t index, Result<Bytes> object)>;
  virtual Status get(const ImageId& image, std::span<const ObjectKey> keys, Priority priority,
                     const GetSink& sink) = 0;
  virtual Result<std::vector<bool>> has(const ImageId& image, std::span<const ObjectKey> keys) = 0;
  struct PutItem {
    ObjectKey key;
    ByteView object;
  };
  // Returns when the server has answered for all. Returns how many were new.
  virtual Result<std::uint64_t> put(const ImageId& image, std::span<const PutItem> items,
                                    Priority priority) = 0;

  // sink runs on the calling thread; returning false ends the call with kCancelled.
  using DiffSink = std::function<bool(DiffPart part)>;
  virtual Status diff(const ImageId& image, const VersionId& old_version,
                      const VersionId& new_version, const DiffSink& sink) = 0;

  virtual Result<std::unique_ptr<EventStream>> watch(const std::vector<ImageId>& images,
                                                     const SessionId& session) = 0;
  virtual Result<RemoteStoreInfo> store_info() = 0;
  virtual RemoteCounters counters() = 0;
  // Called, on a thread of the Remote, when the connections were made anew: who sits out a pause
  // may try at once. An empty one ends that, and waits for a call under way.
  virtual void on_rebuilt(std::function<void()> /*call*/) {}
  // Ends all waiting calls with kCancelled; for the end of the program.
  virtual void shutdown() = 0;
};

}  // namespace dims::contract
