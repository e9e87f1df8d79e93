#include "rdim-server/services/stream_registry.h"

#include <algorithm>

namespace dims::services {

void StreamRegistry::add(const std::shared_ptr<OpenStream>& stream) {
  {
    std::lock_guard lock(mutex_);
    if (!ended_) {
      streams_.push_back(stream);
      if (streams_.size() < sweep_at_) return;
      std::erase_if(streams_, [](const auto& weak) { return weak.expired(); });
      sweep_at_ = std::max<std::size_t>(64, 2 * streams_.size());
      return;
    }
  }
  stream->end();
}

void StreamRegistry::end_all() {
  std::vector<std::weak_ptr<OpenStream>> streams;
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    streams.swap(streams_);
  }
  for (const auto& weak : streams) {
    if (const auto stream = weak.lock()) stream->end();
  }
}

}  // namespace dims::services
