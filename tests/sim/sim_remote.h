// SimRemote: one machine's connection to a SimServer, without gRPC: every call meets a fate that
// depends on the seed, the call and how often it was made, and on nothing else; so threads that
// call at the same time do not change a run.
//
// Threads: thread-safe. Ownership: server and clock outlive it. Errors: as contract::Remote; ids of
// what arrives are verified here as the real client does. Reads fail by kUnavailable only, so that
// who waits goes on waiting.
#pragma once

#include <deque>
#include <functional>
#include <unordered_map>

#include "common/contract/remote.h"
#include "tests/sim/sim_server.h"

namespace dims::sim {

enum class Fate {
  kDelivered,
  kLostRequest,
  kLostReply,
  kTwice,     // delivered twice, one behind the other
  kLate,      // the caller gives up; it arrives among later calls, in any order
  kCut,       // a part of the items arrives
  kHalfOpen,  // nothing comes back until the time-out; whether it arrived is open
  kPause,     // it takes 1 s to 1 h
};
inline constexpr int kFates = 8;

struct NetworkPlan {
  unsigned change_percent = 0;        // of calls that change something, and of has
  unsigned demand_permille = 0;       // of reads (each fault there costs real time)
  unsigned wire_damage_permille = 0;  // of objects that arrive
};

class SimRemote : public contract::Remote {
 public:
  SimRemote(SimServer& server, SimClock& clock, std::uint64_t seed, const NetworkPlan& plan = {});

  void set_plan(const NetworkPlan& plan);
  void set_available(bool available);
  // What still is under way arrives now, in any order.
  void deliver_late();
  // Another object in place of one that arrives, for wire damage.
  void set_stand_in(Bytes object);
  std::uint64_t faults() const;
  std::uint64_t faults(Fate fate) const;
  std::uint64_t wire_damages() const;

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
  // Brings no news: a simulation is driven by its own steps.
  Result<std::unique_ptr<contract::EventStream>> watch(const std::vector<ImageId>& images,
                                                       const SessionId& session) override;
  Result<contract::RemoteStoreInfo> store_info() override;
  contract::RemoteCounters counters() override;
  void shutdown() override;

 private:
  enum class Call { kAsk, kChange, kGet, kHas, kPut, kCommit };
  struct Drawn {
    Fate fate = Fate::kDelivered;
    std::uint64_t number = 0;  // more of the same chance
  };
  Drawn draw(Call call, ByteView identity);
  Status before(Call call);
  std::chrono::nanoseconds pause_of(const Drawn& drawn) const;
  template <typename T, typename Body>
  Result<T> run(Call call, ByteView identity, Body body);
  template <typename Body>
  Status run_status(Call call, ByteView identity, Body body);

  SimServer& server_;
  SimClock& clock_;
  const std::uint64_t seed_;
  mutable std::mutex mutex_;
  NetworkPlan plan_;
  bool available_ = true;
  bool down_ = false;
  std::unordered_map<std::uint64_t, std::uint64_t> made_;  // by call and identity
  std::deque<std::function<void()>> late_;
  SeededRandom late_random_;
  Bytes stand_in_;
  std::uint64_t faults_[kFates] = {};
  std::uint64_t wire_damages_ = 0;
  contract::RemoteCounters counters_;
};

}  // namespace dims::sim
