// PatientRemote: a connection that waits for a server that goes away in the middle of a transfer (a
// restart, a roaming machine, a broken line) and asks again what was not answered.
//
// Threads: as the connection behind it; each call waits for itself. Ownership: borrows the
// connection and the progress, which say when to stop. Errors: those of the connection;
// kUnavailable when no call was answered for the whole patience. Asked again are only calls that
// can be: an object is named by its content, a commit by its record. Renewing and giving back
// leases and streams of events are passed on as they are. Durable: as the server says.
#pragma once

#include <atomic>
#include <chrono>

#include "common/base/clock.h"
#include "common/contract/remote.h"
#include "image-tools/transfer/progress.h"

namespace dims::transfer {

class PatientRemote : public contract::Remote {
 public:
  PatientRemote(contract::Remote& remote, std::chrono::milliseconds patience, Clock& clock,
                Progress& progress)
      : remote_(remote),
        patience_(patience),
        clock_(clock),
        progress_(progress),
        answered_(clock.boottime()) {}

  Result<contract::ServerInfo> hello() override;
  Result<contract::ImageInfo> create_image(const contract::ImageInfo& image) override;
  Result<contract::ImageInfo> find_image(const std::string& name) override;
  Result<contract::ImageInfo> get_image(const ImageId& id) override;
  Result<std::vector<contract::ImageInfo>> list_images() override;
  Status remove_image(const contract::ImageRemoval& removal) override {
    return remote_.remove_image(removal);
  }
  Result<contract::VersionInfo> get_version(const ImageId& image, const VersionId& version,
                                            std::uint64_t sequence) override;
  Result<std::vector<contract::VersionInfo>> list_versions(const ImageId& image,
                                                           std::uint32_t limit) override;
  Result<contract::SessionAnswer> open_session(const contract::SessionRequest& request) override {
    return remote_.open_session(request);
  }
  Status close_session(const ImageId& image, const SessionId& session) override {
    return remote_.close_session(image, session);
  }
  Result<contract::LeaseGrant> acquire_lease(const contract::LeaseRequest& request) override;
  Result<contract::LeaseGrant> renew_lease(const ImageId& image,
                                           const contract::LeaseGrant& lease) override {
    return remote_.renew_lease(image, lease);
  }
  Status release_lease(const ImageId& image, const contract::LeaseGrant& lease) override {
    return remote_.release_lease(image, lease);
  }
  Result<contract::CommitAnswer> commit(const contract::CommitOrder& order) override;
  Status get(const ImageId& image, std::span<const format::ObjectKey> keys,
             contract::Priority priority, const GetSink& sink) override;
  Result<std::vector<bool>> has(const ImageId& image,
                                std::span<const format::ObjectKey> keys) override;
  Result<std::uint64_t> put(const ImageId& image, std::span<const PutItem> items,
                            contract::Priority priority) override;
  Status diff(const ImageId& image, const VersionId& old_version, const VersionId& new_version,
              const DiffSink& sink) override {
    return remote_.diff(image, old_version, new_version, sink);
  }
  Result<std::unique_ptr<contract::EventStream>> watch(const std::vector<ImageId>& images,
                                                       const SessionId& session) override {
    return remote_.watch(images, session);
  }
  Result<contract::RemoteStoreInfo> store_info() override { return remote_.store_info(); }
  contract::RemoteCounters counters() override { return remote_.counters(); }
  void on_rebuilt(std::function<void()> call) override { remote_.on_rebuilt(std::move(call)); }
  void shutdown() override { remote_.shutdown(); }

 private:
  template <typename Call>
  auto patiently(const Call& call) -> decltype(call());
  // True: ask again, after a pause. False: that error is the answer.
  bool again(const Error& error, int attempt, std::chrono::nanoseconds began);

  contract::Remote& remote_;
  const std::chrono::milliseconds patience_;
  Clock& clock_;
  Progress& progress_;
  std::atomic<std::chrono::nanoseconds> answered_;  // when a call was, last; boot time
  std::atomic<bool> told_{false};
};

}  // namespace dims::transfer
