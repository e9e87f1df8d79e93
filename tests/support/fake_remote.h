// FakeRemote: one client's connection to a FakeServer, with a network that tests spoil on purpose.
//
// Damage by name: set_available(false) = the cable is out; hold() = calls arrive and wait,
// release() lets them go; set_delay() = a slow link (not to be used for deciding order);
// lose_replies() = applied, but answered kUnavailable; fail() = typed errors.
// FakeServer::damage_object() = a corrupt copy.
//
// Threads: thread-safe. Ownership: shares the server; event streams may outlive the remote. Calls
// block while held; shutdown() ends them with kCancelled. get() verifies ids as the contract says
// (kCorrupt an item).
#pragma once

#include <array>
#include <condition_variable>

#include "tests/support/fake_server.h"

namespace dims::test {

enum class RemoteCall {
  kHello,
  kImages,
  kVersions,
  kSession,
  kLease,
  kCommit,
  kGet,
  kHas,
  kPut,
  kDiff,
  kWatch,
  kInfo
};
inline constexpr std::size_t kRemoteCalls = 12;

class FakeRemote : public contract::Remote {
 public:
  explicit FakeRemote(std::shared_ptr<FakeServer> server = std::make_shared<FakeServer>());
  ~FakeRemote() override;

  FakeServer& server() { return *server_; }
  std::shared_ptr<FakeServer> shared_server() { return server_; }

  // The network. Going away breaks the event streams and ends held calls with kUnavailable.
  void set_available(bool available);
  void set_delay(std::chrono::milliseconds delay);
  void hold(RemoteCall call);
  void release(RemoteCall call);
  // The next `count` such calls are applied, and their answer is lost.
  void lose_replies(RemoteCall call, int count);
  // The next `count` such calls are not applied and give this error.
  void fail(RemoteCall call, Error error, int count = 1);

  // What was asked.
  std::uint64_t calls(RemoteCall call) const;
  std::uint64_t waiting(RemoteCall call) const;     // now held
  std::vector<format::ObjectKey> keys_got() const;  // every key that get() was asked for, in order
  std::vector<format::ObjectKey> keys_put() const;
  void forget_keys();

  Result<contract::ServerInfo> hello() override;
  Result<contract::ImageInfo> create_image(const contract::ImageInfo& image) override;
  Result<contract::ImageInfo> find_image(const std::string& name) override;
  Result<contract::ImageInfo> get_image(const ImageId& id) override;
  Result<std::vector<contract::ImageInfo>> list_images() override;
  Status remove_image(const contract::ImageRemoval& removal) override;
  Result<contract::VersionInfo> get_version(const ImageId& image, const VersionId& version,
                                            std::uint64_t sequence) override;
  Result<std::vector<contract::VersionInfo>> list_versions(const ImageId& image,
                                                           std::uint32_t limit) override;
  Result<contract::SessionAnswer> open_session(const contract::SessionRequest& request) override;
  Status close_session(const ImageId& image, const SessionId& session) override;
  Result<contract::LeaseGrant> acquire_lease(const contract::LeaseRequest& request) override;
  Result<contract::LeaseGrant> renew_lease(const ImageId& image,
                                           const contract::LeaseGrant& lease) override;
  Status release_lease(const ImageId& image, const contract::LeaseGrant& lease) override;
  Result<contract::CommitAnswer> commit(const contract::CommitOrder& order) override;
  Status get(const ImageId& image, std::span<const format::ObjectKey> keys,
             contract::Priority priority, const GetSink& sink) override;
  Result<std::vector<bool>> has(const ImageId& image,
                                std::span<const format::ObjectKey> keys) override;
  Result<std::uint64_t> put(const ImageId& image, std::span<const PutItem> items,
                            contract::Priority priority) override;
  Status diff(const ImageId& image, const VersionId& old_version, const VersionId& new_version,
              const DiffSink& sink) override;
  Result<std::unique_ptr<contract::EventStream>> watch(const std::vector<ImageId>& images,
                                                       const SessionId& session) override;
  Result<contract::RemoteStoreInfo> store_info() override;
  contract::RemoteCounters counters() override;
  void shutdown() override;

 private:
  struct Knobs {
    std::uint64_t calls = 0;
    std::uint64_t waiting = 0;
    bool held = false;
    int lose = 0;
    int failures = 0;
    Error failure;
  };
  // Outlives the remote in its event streams.
  struct Network {
    mutable std::mutex mutex;
    std::condition_variable changed;
    bool available = true;
    bool down = false;
    std::uint64_t outage = 0;  // grows whenever the network goes away
    std::chrono::milliseconds delay{0};
    std::array<Knobs, kRemoteCalls> knobs;
    std::vector<format::ObjectKey> got, put;
    contract::RemoteCounters counters;
  };
  class Stream;

  static Knobs& knobs_of(Network& network, RemoteCall call) {
    return network.knobs[static_cast<std::size_t>(call)];
  }
  Status enter(RemoteCall call);
  Status leave(RemoteCall call);
  template <typename T, typename Body>
  Result<T> run(RemoteCall call, const Body& body);
  template <typename Body>
  Status run_status(RemoteCall call, const Body& body);

  std::shared_ptr<FakeServer> server_;
  std::shared_ptr<Network> network_ = std::make_shared<Network>();
};

}  // namespace dims::test
