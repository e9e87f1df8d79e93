// CallRegistry: the calls that block a caller's thread now, so that shutdown can end them, and a
// new connection. Threads: thread-safe. Ownership: a Scope lives as long as its context is in use,
// and not longer than the registry.
#pragma once

#include <grpcpp/grpcpp.h>

#include <mutex>
#include <unordered_set>

namespace dims::client {

class CallRegistry {
 public:
  class Scope {
   public:
    Scope(CallRegistry& registry, grpc::ClientContext& context)
        : registry_(registry), context_(context) {
      std::lock_guard lock(registry_.mutex_);
      registry_.contexts_.insert(&context_);
      if (registry_.down_) context_.TryCancel();
    }
    ~Scope() {
      std::lock_guard lock(registry_.mutex_);
      registry_.contexts_.erase(&context_);
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    CallRegistry& registry_;
    grpc::ClientContext& context_;
  };

  void cancel_all() {
    std::lock_guard lock(mutex_);
    down_ = true;
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
  }
  // Those of this moment; they fail as cancelled by the other side.
  void break_all() {
    std::lock_guard lock(mutex_);
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
  }
  bool down() {
    std::lock_guard lock(mutex_);
    return down_;
  }

 private:
  std::mutex mutex_;
  std::unordered_set<grpc::ClientContext*> contexts_;
  bool down_ = false;
};

}  // namespace dims::client
