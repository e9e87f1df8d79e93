#include "nbdkit-ldim/fetch/fetcher.h"

#include <spdlog/spdlog.h>

#include <optional>

#include "common/base/wire.h"
#include "common/format/object.h"

namespace dims::ldim {

using format::Reference;

namespace {

constexpr unsigned kNodeLives = 3;
constexpr unsigned kChunkLives = 0;
constexpr int kServerFaultTries = 3;  // for objects that the server mangles or lacks
constexpr std::chrono::milliseconds kFirstPause{100};
constexpr std::chrono::milliseconds kLongestPause{2000};
constexpr std::chrono::milliseconds kQuitPoll{200};

// A node in the cache: its length, its sealed bytes, zeros up to a page.
Bytes pack_node(ByteView object) {
  Bytes packed;
  packed.reserve(static_cast<std::size_t>(round_up(object.size() + 4, kPageBytes)));
  Writer w(packed);
  w.string(object);
  packed.resize(static_cast<std::size_t>(round_up(packed.size(), kPageBytes)), 0);
  return packed;
}

}  // namespace

// Guarded by Fetcher::mutex_.
struct Fetcher::Flight {
  std::optional<Result<std::shared_ptr<Bytes>>> outcome;
  bool away = false;  // its owner waits for the server
};

Fetcher::Fetcher(contract::Remote& remote, PageCache& cache, const ImageId& image,
                 std::function<bool()> quitting)
    : remote_(remote), cache_(cache), quitting_(std::move(quitting)), image_(image) {}

Fetcher::~Fetcher() { stop(); }

void Fetcher::stop() {
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

void Fetcher::poke() {
  {
    const MutexLock lock(mutex_);
    ++pokes_;
  }
  changed_.notify_all();
}

bool Fetcher::pause(std::chrono::milliseconds longest) {
  const auto until = std::chrono::steady_clock::now() + longest;
  MutexLock lock(mutex_);
  const std::uint64_t before = pokes_;
  while (!stopped_ && pokes_ == before && std::chrono::steady_clock::now() < until) {
    const auto slice =
        std::min<std::chrono::nanoseconds>(until - std::chrono::steady_clock::now(), kQuitPoll);
    if (changed_.wait_for(lock, slice) == std::cv_status::timeout && quitting_) {
      lock.unlock();
      if (quitting_()) return false;
      lock.lock();
    }
  }
  return !stopped_;
}

Result<std::shared_ptr<Bytes>> Fetcher::join(const std::shared_ptr<Flight>& flight,
                                             FetchWait wait) {
  MutexLock lock(mutex_);
  while (!flight->outcome && !stopped_) {
    if (wait == FetchWait::kDoNotWait && flight->away) {
      return make_error(ErrorCode::kUnavailable, "the server cannot be reached");
    }
    if (changed_.wait_for(lock, kQuitPoll) == std::cv_status::timeout && quitting_ &&
        !flight->outcome) {
      lock.unlock();
      if (quitting_()) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
      lock.lock();
    }
  }
  if (!flight->outcome) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
  return flight->outcome->ok() ? flight->outcome->value() : nullptr;
}

void Fetcher::set_away(const std::vector<std::size_t>& open,
                       const std::vector<std::shared_ptr<Flight>>& flights, bool away) {
  {
    const MutexLock lock(mutex_);
    for (const std::size_t i : open) flights[i]->away = away;
  }
  changed_.notify_all();
}

void Fetcher::set_image(const ImageId& image) {
  const MutexLock lock(mutex_);
  image_ = image;
}

ImageId Fetcher::image() {
  const MutexLock lock(mutex_);
  return image_;
}

void Fetcher::land(const ObjectId& id, const std::shared_ptr<Flight>& flight,
                   Result<std::shared_ptr<Bytes>> outcome) {
  {
    const MutexLock lock(mutex_);
    flight->outcome = std::move(outcome);
    flights_.erase(id);
  }
  changed_.notify_all();
}

Status Fetcher::fetch(std::span<const Reference> refs, contract::Priority priority, FetchWait wait,
                      const Kind& kind, const ChunkSink& sink) {
  std::vector<std::shared_ptr<Flight>> flights(refs.size());
  std::vector<std::size_t> own;
  std::vector<std::size_t> joined;
  {
    const MutexLock lock(mutex_);
    if (stopped_) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
    for (std::size_t i = 0; i < refs.size(); ++i) {
      auto& flight = flights_[refs[i].id];
      if (flight == nullptr) {
        flight = std::make_shared<Flight>();
        own.push_back(i);
      } else {
        joined.push_back(i);
      }
      flights[i] = flight;
    }
  }
  counters_.joined += joined.size();
  // Those who joined our flights must not wait for ever: they see the error and fetch for
  // themselves.
  const auto land_all = [&](const Error& error) {
    for (const std::size_t i : own) {
      bool landed = true;
      {
        const MutexLock lock(mutex_);
        landed = flights[i]->outcome.has_value();
      }
      if (!landed) land(refs[i].id, flights[i], error);
    }
  };
  try {
    const Status status = fetch_own(refs, own, flights, priority, wait, kind, sink);
    if (!status.ok()) {
      land_all(status.error());
      return status;
    }
  } catch (...) {  // out of memory, say
    land_all(make_error(ErrorCode::kInternal, "the fetch was abandoned"));
    throw;
  }
  std::vector<Reference> again;
  std::vector<std::size_t> again_index;
  for (const std::size_t i : joined) {
    DIMS_ASSIGN(const std::shared_ptr<Bytes> pages, join(flights[i], wait));
    if (pages != nullptr) {
      sink(i, *pages);
    } else {
      again.push_back(refs[i]);
      again_index.push_back(i);
    }
  }
  if (again.empty()) return ok_status();
  const Kind again_kind{
      [&](std::size_t k) { return kind.cached(again_index[k]); },
      [&](std::size_t k, Bytes object) { return kind.decode(again_index[k], std::move(object)); }};
  return fetch(again, priority, wait, again_kind,
               [&](std::size_t k, ByteView pages) { sink(again_index[k], pages); });
}

Status Fetcher::fetch_own(std::span<const Reference> refs, const std::vector<std::size_t>& own,
                          const std::vector<std::shared_ptr<Flight>>& flights,
                          contract::Priority priority, FetchWait wait, const Kind& kind,
                          const ChunkSink& sink) {
  std::vector<std::size_t> open;
  for (const std::size_t i : own) {
    if (auto pages = kind.cached(i)) {
      auto shared = std::make_shared<Bytes>(std::move(*pages));
      sink(i, *shared);
      land(refs[i].id, flights[i], shared);
    } else {
      open.push_back(i);
    }
  }
  int faults = 0;
  bool said = false;
  std::chrono::milliseconds next_pause = kFirstPause;
  while (!open.empty()) {
    std::vector<format::ObjectKey> keys;
    keys.reserve(open.size());
    for (const std::size_t i : open) keys.push_back(refs[i].object_key());
    std::vector<std::size_t> failed;
    std::vector<bool> answered(open.size(), false);
    Error fault;
    const Status status =
        remote_.get(image(), keys, priority, [&](std::size_t k, Result<Bytes> object) {
          const std::size_t i = open[k];
          answered[k] = true;
          const std::size_t sealed_bytes = object.ok() ? object->size() : 0;
          Result<Bytes> pages = object.ok() ? kind.decode(i, std::move(object).value())
                                            : Result<Bytes>(object.error());
          if (!pages.ok()) {
            fault = pages.error();
            failed.push_back(i);
            return;
          }
          counters_.bytes += sealed_bytes;
          auto shared = std::make_shared<Bytes>(std::move(pages).value());
          sink(i, *shared);
          land(refs[i].id, flights[i], shared);
        });
    for (std::size_t k = 0; k < open.size(); ++k) {
      if (!answered[k]) failed.push_back(open[k]);
    }
    open = std::move(failed);
    if (open.empty()) break;
    const Error& error = status.ok() ? fault : status.error();
    const bool away = !status.ok() && (error.code == ErrorCode::kUnavailable ||
                                       error.code == ErrorCode::kDeadlineExceeded ||
                                       error.code == ErrorCode::kResourceExhausted);
    if (!away) {
      if (error.code == ErrorCode::kCancelled || ++faults >= kServerFaultTries) return error;
      spdlog::warn("fetching again after: {}", error.to_string());
    } else if (wait == FetchWait::kDoNotWait) {
      return error;
    } else if (!said) {
      said = true;
      spdlog::warn("reads wait for the server: {}", error.to_string());
    }
    ++counters_.retries;
    ++counters_.waiting;
    set_away(open, flights, true);
    const bool go_on = pause(next_pause);
    set_away(open, flights, false);
    --counters_.waiting;
    if (!go_on) return make_error(ErrorCode::kCancelled, "LDIM is stopping");
    next_pause = std::min(next_pause * 2, kLongestPause);
  }
  if (said) spdlog::info("the server answers again");
  return ok_status();
}

Status Fetcher::chunks(std::span<const Reference> refs, contract::Priority priority, FetchWait wait,
                       const ChunkSink& sink) {
  const Kind kind{[&](std::size_t i) { return cached_pages(refs[i].id); },
                  [&](std::size_t i, Bytes object) -> Result<Bytes> {
                    // The client has checked the id already; com and tag bind the content to the
                    // key.
                    DIMS_ASSIGN(Bytes pages, format::open_object(refs[i], object, false));
                    ++counters_.chunks;
                    // No room in the cache is no reason to fail a read.
                    (void)cache_.insert(refs[i].id, pages, kChunkLives).ok();
                    return pages;
                  }};
  return fetch(refs, priority, wait, kind, sink);
}

std::optional<Bytes> Fetcher::cached_pages(const ObjectId& id) {
  std::uint32_t pages = 0;
  const CachePlace place = cache_.find(id, &pages);
  if (!place.known()) return std::nullopt;
  Bytes out(pages * kPageBytes);
  if (cache_.read(place, id, 0, out) != CacheRead::kOk) return std::nullopt;
  return out;
}

void Fetcher::keep_node(const ObjectId& id, ByteView object) {
  (void)cache_.insert(id, pack_node(object), kNodeLives).ok();
}

std::optional<Bytes> Fetcher::cached_node(const Reference& ref) {
  const std::optional<Bytes> packed = cached_pages(ref.id);
  if (!packed) return std::nullopt;
  Reader r(*packed);
  const ByteView object = r.string();
  if (!r.ok()) return std::nullopt;
  return Bytes(object.begin(), object.end());
}

Result<Bytes> Fetcher::node(const Reference& ref, FetchWait wait) {
  Bytes out;
  DIMS_TRY(nodes({&ref, 1}, contract::Priority::kDemand, wait, [&](std::size_t, Bytes object) {
    out = std::move(object);
    return ok_status();
  }));
  return out;
}

Status Fetcher::nodes(std::span<const Reference> refs, contract::Priority priority, FetchWait wait,
                      const tree::NodeSource::Sink& sink) {
  std::vector<Reference> absent;
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < refs.size(); ++i) {
    if (auto object = cached_node(refs[i])) {
      DIMS_TRY(sink(i, std::move(*object)));
    } else {
      absent.push_back(refs[i]);
      index.push_back(i);
    }
  }
  if (absent.empty()) return ok_status();
  Status first_error;
  const Kind kind{[&](std::size_t k) { return cached_node(absent[k]); },
                  [&](std::size_t k, Bytes object) -> Result<Bytes> {
                    ++counters_.nodes;
                    keep_node(absent[k].id, object);
                    return object;
                  }};
  DIMS_TRY(fetch(absent, priority, wait, kind, [&](std::size_t k, ByteView object) {
    if (first_error.ok()) first_error = sink(index[k], Bytes(object.begin(), object.end()));
  }));
  return first_error;
}

}  // namespace dims::ldim
