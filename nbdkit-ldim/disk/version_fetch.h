// VersionFetch: brings a version that was announced into the cache while the session goes on with
// its own, so that the next start needs no network for what has changed.
//
// Only leaves that differ from the base are looked at, and at most half of the cache is filled.
// Nothing under the running guest changes. Threads: announce() and progress() from any; works on a
// thread of its own, which stop() ends. Ownership: all parts outlive it. Errors: kept in
// progress(); the next announcement tries again. Durable: when the cache is synced, at the end of
// each fetch.
#pragma once

#include <optional>
#include <string>
#include <thread>

#include "common/base/mutex.h"
#include "common/format/key_file.h"
#include "nbdkit-ldim/fetch/reader.h"

namespace dims::ldim {

struct VersionFetchProgress {
  std::uint64_t sequence = 0;  // of the version; 0: none was announced
  bool done = false;
  std::uint64_t chunks = 0;  // fetched for it
  std::string trouble;
};

class VersionFetch {
 public:
  struct Parts {
    contract::Remote& remote;
    Fetcher& fetcher;
    PageCache& cache;
    BaseTree& tree;  // of the session
    const format::KeyRing& key;
  };
  explicit VersionFetch(const Parts& parts);
  ~VersionFetch();
  VersionFetch(const VersionFetch&) = delete;
  VersionFetch& operator=(const VersionFetch&) = delete;

  void announce(const ImageId& image, const VersionId& version);
  VersionFetchProgress progress() const;
  void stop();

 private:
  struct Wanted {
    ImageId image;
    VersionId version;
  };
  void run();
  Status fetch(const Wanted& wanted);
  bool stopping() const;

  const Parts parts_;
  mutable Mutex mutex_;
  Condition changed_;
  std::optional<Wanted> wanted_ DIMS_GUARDED_BY(mutex_);
  VersionFetchProgress progress_ DIMS_GUARDED_BY(mutex_);
  bool stop_ DIMS_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace dims::ldim
