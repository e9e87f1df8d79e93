// Transfer: moving objects over the shared streams of one lane: get, has, put.
//
// Each call is cut into requests; several are in flight, over all callers of the lane. Every
// received object is hashed on the caller's thread before the caller sees it.
//
// Threads: thread-safe; calls block their caller. Ownership: must outlive the lane's activities.
// Units: bytes, keys. Errors: as common/contract/remote.h; kCorrupt an item whose bytes have
// another id; kInternal when the server does not keep to the protocol. Memory: put() waits for the
// budget; get() by its requests in flight.
#pragma once

#include <atomic>

#include "common/client/client.h"
#include "common/client/mux_stream.h"

namespace dims::client {

// Bytes that are sent and not answered, over all callers of one client.
class ByteBudget : public std::enable_shared_from_this<ByteBudget> {
 public:
  explicit ByteBudget(std::uint64_t max) : max_(max) {}
  // Waits for room; one request alone may be larger than all. The bytes are given back when the
  // result is dropped. nullptr after shutdown().
  std::shared_ptr<void> take(std::uint64_t bytes);
  void shutdown();

 private:
  std::mutex mutex_;
  std::condition_variable room_;
  const std::uint64_t max_;
  std::uint64_t used_ = 0;
  bool down_ = false;
};

struct TransferCounters {
  std::atomic<std::uint64_t> bytes_received{0}, bytes_sent{0}, objects_received{0}, objects_sent{0};
};

// What a request may hold; from the options and the server's limits.
struct RequestLimits {
  std::size_t keys = 64;
  std::size_t put_bytes = 512 * 1024;
  std::size_t in_flight_per_call = 8;
};

struct GetTraits {
  using Request = v1::GetRequest;
  using Reply = v1::GetReply;
  static constexpr const char* kName = "get";
  static constexpr bool kCancels = true;
  static auto open(v1::Dims::Stub& stub, grpc::ClientContext* context, grpc::CompletionQueue* queue,
                   void* tag) {
    return stub.AsyncGet(context, queue, tag);
  }
  static bool ends(const Reply& reply) { return reply.done() || reply.has_error(); }
};
struct HasTraits {
  using Request = v1::HasRequest;
  using Reply = v1::HasReply;
  static constexpr const char* kName = "has";
  static constexpr bool kCancels = false;
  static auto open(v1::Dims::Stub& stub, grpc::ClientContext* context, grpc::CompletionQueue* queue,
                   void* tag) {
    return stub.AsyncHas(context, queue, tag);
  }
  static bool ends(const Reply& /*reply*/) { return true; }
};
struct PutTraits {
  using Request = v1::PutRequest;
  using Reply = v1::PutReply;
  static constexpr const char* kName = "put";
  static constexpr bool kCancels = false;
  static auto open(v1::Dims::Stub& stub, grpc::ClientContext* context, grpc::CompletionQueue* queue,
                   void* tag) {
    return stub.AsyncPut(context, queue, tag);
  }
  static bool ends(const Reply& /*reply*/) { return true; }
};

class Transfer {
 public:
  Transfer(Lane& lane, const std::string& where, std::shared_ptr<ByteBudget> budget,
           TransferCounters& counters);

  void set_requests_in_flight(std::size_t requests);
  Status get(const RequestLimits& limits, const ImageId& image,
             std::span<const format::ObjectKey> keys, contract::Priority priority,
             const contract::Remote::GetSink& sink);
  Result<std::vector<bool>> has(const RequestLimits& limits, const ImageId& image,
                                std::span<const format::ObjectKey> keys);
  Result<std::uint64_t> put(const RequestLimits& limits, const ImageId& image,
                            std::span<const contract::Remote::PutItem> items,
                            contract::Priority priority);
  // Fails what is under way; what comes next uses the lane's connection of then.
  void break_off(const Error& error);
  void shutdown();

 private:
  MuxStream<GetTraits> get_;
  MuxStream<HasTraits> has_;
  MuxStream<PutTraits> put_;
  std::shared_ptr<ByteBudget> budget_;
  TransferCounters& counters_;
};

}  // namespace dims::client
