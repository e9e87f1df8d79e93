// CountingRemote: another Remote's calls, counted by kind: how many there were, in how many a fault
// of the wire happened, how many failed as unreachable.
//
// Threads: thread-safe. Ownership: owns the remote; the counts outlive it. Errors: the remote's.
#pragma once

#include <array>
#include <atomic>

#include "common/contract/remote.h"

namespace dims::test {

enum class WireCall {
  kHello,
  kImage,
  kVersion,
  kOpenSession,
  kCloseSession,
  kAcquireLease,
  kRenewLease,
  kReleaseLease,
  kCommit,
  kGet,
  kHas,
  kPut,
  kDiff,
  kWatch,
};
inline constexpr std::size_t kWireCalls = 14;
inline constexpr std::array<const char*, kWireCalls> kWireCallNames{
    "Hello",        "GetImage",   "GetVersion",   "OpenSession", "CloseSession",
    "AcquireLease", "RenewLease", "ReleaseLease", "Commit",      "Get",
    "Has",          "Put",        "Diff",         "Watch"};

struct WireCounts {
  struct Of {
    std::atomic<std::uint64_t> calls{0}, met{0}, failed{0};
  };
  std::array<Of, kWireCalls> calls;
  Of& of(WireCall call) { return calls[static_cast<std::size_t>(call)]; }
};

class CountingRemote final : public contract::Remote {
 public:
  // faults: grows with every fault of the wire.
  CountingRemote(std::unique_ptr<contract::Remote> remote, WireCounts& counts,
                 const std::atomic<std::uint64_t>& faults)
      : remote_(std::move(remote)), counts_(counts), faults_(faults) {}

  Result<contract::ServerInfo> hello() override {
    return counted(WireCall::kHello, [&] { return remote_->hello(); });
  }
  Result<contract::ImageInfo> create_image(const contract::ImageInfo& image) override {
    return remote_->create_image(image);
  }
  Result<contract::ImageInfo> find_image(const std::string& name) override {
    return counted(WireCall::kImage, [&] { return remote_->find_image(name); });
  }
  Result<contract::ImageInfo> get_image(const ImageId& id) override {
    return counted(WireCall::kImage, [&] { return remote_->get_image(id); });
  }
  Result<std::vector<contract::ImageInfo>> list_images() override { return remote_->list_images(); }
  Status remove_image(const contract::ImageRemoval& removal) override {
    return remote_->remove_image(removal);
  }
  Result<contract::VersionInfo> get_version(const ImageId& image, const VersionId& version,
                                            std::uint64_t sequence) override {
    return counted(WireCall::kVersion,
                   [&] { return remote_->get_version(image, version, sequence); });
  }
  Result<std::vector<contract::VersionInfo>> list_versions(const ImageId& image,
                                                           std::uint32_t limit) override {
    return counted(WireCall::kVersion, [&] { return remote_->list_versions(image, limit); });
  }
  Result<contract::SessionAnswer> open_session(const contract::SessionRequest& request) override {
    return counted(WireCall::kOpenSession, [&] { return remote_->open_session(request); });
  }
  Status close_session(const ImageId& image, const SessionId& session) override {
    return counted(WireCall::kCloseSession, [&] { return remote_->close_session(image, session); });
  }
  Result<contract::LeaseGrant> acquire_lease(const contract::LeaseRequest& request) override {
    return counted(WireCall::kAcquireLease, [&] { return remote_->acquire_lease(request); });
  }
  Result<contract::LeaseGrant> renew_lease(const ImageId& image,
                                           const contract::LeaseGrant& lease) override {
    return counted(WireCall::kRenewLease, [&] { return remote_->renew_lease(image, lease); });
  }
  Status release_lease(const ImageId& image, const contract::LeaseGrant& lease) override {
    return counted(WireCall::kReleaseLease, [&] { return remote_->release_lease(image, lease); });
  }
  Result<contract::CommitAnswer> commit(const contract::CommitOrder& order) override {
    return counted(WireCall::kCommit, [&] { return remote_->commit(order); });
  }
  Status get(const ImageId& image, std::span<const format::ObjectKey> keys,
             contract::Priority priority, const GetSink& sink) override {
    return counted(WireCall::kGet, [&] { return remote_->get(image, keys, priority, sink); });
  }
  Result<std::vector<bool>> has(const ImageId& image,
                                std::span<const format::ObjectKey> keys) override {
    return counted(WireCall::kHas, [&] { return remote_->has(image, keys); });
  }
  Result<std::uint64_t> put(const ImageId& image, std::span<const PutItem> items,
                            contract::Priority priority) override {
    return counted(WireCall::kPut, [&] { return remote_->put(image, items, priority); });
  }
  Status diff(const ImageId& image, const VersionId& old_version, const VersionId& new_version,
              const DiffSink& sink) override {
    return counted(WireCall::kDiff,
                   [&] { return remote_->diff(image, old_version, new_version, sink); });
  }
  Result<std::unique_ptr<contract::EventStream>> watch(const std::vector<ImageId>& images,
                                                       const SessionId& session) override {
    auto events = remote_->watch(images, session);
    if (!events.ok()) return events;
    ++counts_.of(WireCall::kWatch).calls;
    return std::unique_ptr<contract::EventStream>(
        std::make_unique<Events>(std::move(events).value(), counts_.of(WireCall::kWatch)));
  }
  Result<contract::RemoteStoreInfo> store_info() override { return remote_->store_info(); }
  contract::RemoteCounters counters() override { return remote_->counters(); }
  void on_rebuilt(std::function<void()> call) override { remote_->on_rebuilt(std::move(call)); }
  void shutdown() override { remote_->shutdown(); }

 private:
  class Events : public contract::EventStream {
   public:
    Events(std::unique_ptr<contract::EventStream> events, WireCounts::Of& counts)
        : events_(std::move(events)), counts_(counts) {}
    Result<contract::ServerEvent> next(std::chrono::milliseconds timeout) override {
      auto event = events_->next(timeout);
      if (!event.ok() && event.error().code == ErrorCode::kUnavailable) {
        ++counts_.met;
        ++counts_.failed;
      }
      return event;
    }
    void cancel() override { events_->cancel(); }

   private:
    const std::unique_ptr<contract::EventStream> events_;
    WireCounts::Of& counts_;
  };

  template <typename Call>
  std::invoke_result_t<const Call&> counted(WireCall which, const Call& call) {
    WireCounts::Of& of = counts_.of(which);
    ++of.calls;
    const std::uint64_t before = faults_;
    std::invoke_result_t<const Call&> outcome = call();
    const bool met = faults_ != before;
    if (met) ++of.met;
    // Without a fault meanwhile it never left: the line was down already.
    if (met && !outcome.ok() && outcome.error().code == ErrorCode::kUnavailable) ++of.failed;
    return outcome;
  }

  const std::unique_ptr<contract::Remote> remote_;
  WireCounts& counts_;
  const std::atomic<std::uint64_t>& faults_;
};

}  // namespace dims::test
