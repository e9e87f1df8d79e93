// GrpcRemote: the calls of the contract, each put onto the right lane. See client.h.
//
// Before its first call, and again after a loss, it says Hello: protocol and limits are known
// before anything else is sent. Threads: thread-safe. Ownership: destroy it when no call is
// running.
#pragma once

#include "common/client/calls.h"
#include "common/client/client.h"
#include "common/client/roaming.h"
#include "common/client/transfer.h"
#include "common/client/watch.h"

namespace dims::client {

class GrpcRemote final : public contract::Remote {
 public:
  GrpcRemote(ClientOptions options, const Endpoint& endpoint);
  ~GrpcRemote() override;

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
  void on_rebuilt(std::function<void()> call) override;
  void shutdown() override;

 private:
  // What is known of the server since the last Hello.
  struct Known {
    contract::ServerInfo info;
    RequestLimits limits;
  };

  // One call without Hello before it.
  template <typename Request, typename Reply>
  Result<Reply> ask(grpc::Status (v1::Dims::Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Reply*),
                    const Request& request, std::string* peer = nullptr);
  // The same after Hello.
  template <typename Request, typename Reply>
  Result<Reply> call(grpc::Status (v1::Dims::Stub::*method)(grpc::ClientContext*, const Request&,
                                                            Reply*),
                     const Request& request);
  Result<Known> say_hello();
  // Known, or one Hello that all callers of the moment share.
  Result<Known> known();
  // Of a call that was begun on that connection.
  Error failed(const grpc::Status& status, std::uint64_t connection);
  // New connections; whatever is under way on the old ones fails, to be tried again.
  void rebuild(const std::string& why);
  Error another(const std::string& what) const;
  // After a loss the next call says Hello again.
  void note(const Error& error, std::uint64_t connection);
  Transfer& transfer(contract::Priority priority) {
    return priority == contract::Priority::kDemand ? demand_transfer_ : bulk_transfer_;
  }

  const ClientOptions options_;
  CallRegistry calls_;
  TransferCounters counters_;
  std::shared_ptr<ByteBudget> budget_;
  std::unique_ptr<Lane> demand_, bulk_;
  Transfer demand_transfer_, bulk_transfer_;
  WatchList watches_;

  std::mutex hello_mutex_;
  std::condition_variable hello_done_;
  std::optional<Known> known_;
  std::optional<Result<Known>> last_hello_;
  std::uint64_t hello_round_ = 0;
  bool hello_running_ = false;
  std::uint64_t losses_ = 0;
  std::atomic<std::uint64_t> connection_{0};  // how many there were before this one

  std::mutex rebuilt_mutex_;
  std::function<void()> on_rebuilt_;
  std::unique_ptr<Roaming> roaming_;  // null: no network to watch; last: it calls this object
};

}  // namespace dims::client
