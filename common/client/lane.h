// Lane: one connection and the one thread that completes its asynchronous operations.
//
// Threads: thread-safe. A completion runs on the lane's thread and must not block. Ownership:
// whoever starts operations holds an Activity; the destructor waits until all are gone, then joins
// the thread. Operations must have been cancelled before. Who makes a call that blocks keeps the
// stub until its end. Errors: none.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "common/client/channel.h"

#include "dims/v1/dims.grpc.pb.h"

namespace dims::client {

class Lane {
 public:
  // The tag of an operation: called with gRPC's "ok". What it returns is dropped after it has
  // returned, so that it can give up the object that holds it.
  using Completion = std::function<std::shared_ptr<void>(bool ok)>;

  explicit Lane(const Endpoint& endpoint);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  std::shared_ptr<v1::Dims::Stub> stub();
  grpc::CompletionQueue* queue() { return &queue_; }
  bool connected();
  // A connection of their own for all operations from now on, without any pause that the old one's
  // failures have earned. Those under way stay where they are.
  void reconnect();

  // While one lives, the queue takes new operations.
  class Activity {
   public:
    explicit Activity(Lane& lane);
    ~Activity();
    Activity(const Activity&) = delete;
    Activity& operator=(const Activity&) = delete;

   private:
    Lane& lane_;
  };

 private:
  const Endpoint endpoint_;
  std::mutex mutex_;
  std::shared_ptr<grpc::Channel> channel_;
  std::shared_ptr<v1::Dims::Stub> stub_;
  grpc::CompletionQueue queue_;
  std::condition_variable idle_;
  std::size_t activities_ = 0;
  std::thread thread_;
};

}  // namespace dims::client
