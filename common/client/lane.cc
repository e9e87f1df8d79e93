#include "common/client/lane.h"

namespace dims::client {

Lane::Lane(const Endpoint& endpoint)
    : endpoint_(endpoint),
      channel_(make_channel(endpoint)),
      stub_(v1::Dims::NewStub(channel_)),
      thread_([this] {
        void* tag = nullptr;
        bool ok = false;
        while (queue_.Next(&tag, &ok)) {
          const std::shared_ptr<void> given_up = (*static_cast<Completion*>(tag))(ok);
        }
      }) {}

Lane::~Lane() {
  {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [&] { return activities_ == 0; });
  }
  queue_.Shutdown();
  thread_.join();
}

std::shared_ptr<v1::Dims::Stub> Lane::stub() {
  std::lock_guard lock(mutex_);
  return stub_;
}

bool Lane::connected() {
  std::lock_guard lock(mutex_);
  return channel_->GetState(false) == GRPC_CHANNEL_READY;
}

void Lane::reconnect() {
  auto channel = make_channel(endpoint_);
  std::shared_ptr<v1::Dims::Stub> stub = v1::Dims::NewStub(channel);
  std::lock_guard lock(mutex_);
  channel_.swap(channel);  // the old ones go when the lock is free
  stub_.swap(stub);
}

Lane::Activity::Activity(Lane& lane) : lane_(lane) {
  std::lock_guard lock(lane_.mutex_);
  ++lane_.activities_;
}

Lane::Activity::~Activity() {
  std::lock_guard lock(lane_.mutex_);
  if (--lane_.activities_ == 0) lane_.idle_.notify_all();
}

}  // namespace dims::client
