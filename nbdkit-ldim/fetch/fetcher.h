// Fetcher: brings absent objects from the server into the cache, one flight an object.
//
// Threads: all methods are thread-safe; callers block until their objects are there. While the
// server is away they wait and try again by themselves, for as long as it takes (the guest must
// never see the network as an I/O error), until stop(). Ownership: remote and cache outlive it.
// Errors: kCancelled after stop(); kUnavailable only for callers that said they would not wait;
// kNotFound and kCorrupt when the server itself lacks or mangles an object, after retries. Durable
// on return: nothing.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>

#include "common/base/mutex.h"
#include "common/contract/remote.h"
#include "common/tree/node_source.h"
#include "nbdkit-ldim/cache/page_cache.h"

namespace dims::ldim {

struct FetchCounters {
  std::atomic<std::uint64_t> chunks{0};  // fetched from the server
  std::atomic<std::uint64_t> nodes{0};
  std::atomic<std::uint64_t> bytes{0};    // sealed bytes of both
  std::atomic<std::uint64_t> joined{0};   // waited for somebody else's flight
  std::atomic<std::uint64_t> waiting{0};  // callers that wait for the server now
  std::atomic<std::uint64_t> retries{0};
};

enum class FetchWait { kWait, kDoNotWait };

class Fetcher {
 public:
  // quitting (may be empty) is asked while waiting: true ends the wait with kCancelled.
  Fetcher(contract::Remote& remote, PageCache& cache, const ImageId& image,
          std::function<bool()> quitting = {});
  ~Fetcher();

  // sink(index, pages) once a reference, on the calling thread, in any order. The pages are also in
  // the cache afterwards (unless that has no room).
  using ChunkSink = std::function<void(std::size_t index, ByteView pages)>;
  Status chunks(std::span<const format::Reference> refs, contract::Priority priority,
                FetchWait wait, const ChunkSink& sink);

  // A tree node's sealed bytes, from the cache or the server.
  Result<Bytes> node(const format::Reference& ref, FetchWait wait);
  // The same for many; sink as NodeSource has it.
  Status nodes(std::span<const format::Reference> refs, contract::Priority priority, FetchWait wait,
               const tree::NodeSource::Sink& sink);
  // All pages of a chunk if the cache holds them.
  std::optional<Bytes> cached_pages(const ObjectId& id);
  // The node if the cache holds it.
  std::optional<Bytes> cached_node(const format::Reference& ref);
  void keep_node(const ObjectId& id, ByteView object);

  // The image that requests are made for (a conflict branch takes over the session's place).
  void set_image(const ImageId& image);
  // Ends all waiting, for good.
  void stop();
  // Makes those that wait for the server try again at once.
  void poke();
  // Sleeps up to `longest`, less when poked; false after stop().
  bool pause(std::chrono::milliseconds longest);

  const FetchCounters& counters() const { return counters_; }

 private:
  struct Flight;
  // What differs between chunks and nodes.
  struct Kind {
    // From the cache: asked once a flight is ours, for an earlier one may have landed since the
    // caller looked.
    std::function<std::optional<Bytes>(std::size_t index)> cached;
    std::function<Result<Bytes>(std::size_t index, Bytes object)> decode;
  };
  Status fetch(std::span<const format::Reference> refs, contract::Priority priority, FetchWait wait,
               const Kind& kind, const ChunkSink& sink);
  Status fetch_own(std::span<const format::Reference> refs, const std::vector<std::size_t>& own,
                   const std::vector<std::shared_ptr<Flight>>& flights, contract::Priority priority,
                   FetchWait wait, const Kind& kind, const ChunkSink& sink);
  // Waits for somebody else's flight; null: it failed.
  Result<std::shared_ptr<Bytes>> join(const std::shared_ptr<Flight>& flight, FetchWait wait);
  void set_away(const std::vector<std::size_t>& open,
                const std::vector<std::shared_ptr<Flight>>& flights, bool away);
  void land(const ObjectId& id, const std::shared_ptr<Flight>& flight,
            Result<std::shared_ptr<Bytes>> outcome);
  ImageId image();

  contract::Remote& remote_;
  PageCache& cache_;
  const std::function<bool()> quitting_;
  FetchCounters counters_;
  Mutex mutex_;
  Condition changed_;
  ImageId image_ DIMS_GUARDED_BY(mutex_);
  bool stopped_ DIMS_GUARDED_BY(mutex_) = false;
  std::uint64_t pokes_ DIMS_GUARDED_BY(mutex_) = 0;
  std::unordered_map<ObjectId, std::shared_ptr<Flight>, IdHash> flights_ DIMS_GUARDED_BY(mutex_);
};

// The tree code's view of the fetcher.
class FetchedNodes : public tree::NodeSource {
 public:
  FetchedNodes(Fetcher& fetcher, contract::Priority priority, FetchWait wait)
      : fetcher_(fetcher), priority_(priority), wait_(wait) {}
  Status load(std::span<const format::Reference> refs, const Sink& sink) override {
    return fetcher_.nodes(refs, priority_, wait_, sink);
  }

 private:
  Fetcher& fetcher_;
  contract::Priority priority_;
  FetchWait wait_;
};

}  // namespace dims::ldim
