// Watch: the server's announcements as an EventStream.
//
// Threads: next() from one thread at a time. Ownership: the stream may outlive the lane; then it
// says kCancelled. Memory: at most kQueuedMax events are read ahead, the rest waits at the server.
// Errors: as common/contract/remote.h.
#pragma once

#include "common/client/lane.h"
#include "common/contract/remote.h"

namespace dims::client {

class Watch;

// The watches of one client.
class WatchList {
 public:
  WatchList(Lane& lane, std::string where) : lane_(lane), where_(std::move(where)) {}
  Result<std::unique_ptr<contract::EventStream>> open(const v1::WatchRequest& request);
  // Those of now end with this error.
  void break_off(const Error& error);
  void shutdown();

 private:
  Lane& lane_;
  const std::string where_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Watch>> watches_;
  bool down_ = false;
};

}  // namespace dims::client
