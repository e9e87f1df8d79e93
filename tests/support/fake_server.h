// FakeServer: RDIM's rules in memory, for tests without a network. Clients reach it through
// FakeRemote; several may share one server, and a "restarted" client is a new FakeRemote on the
// same server.
//
// It keeps the commit rules of the data model: commit id first, then lease and token, parent,
// missing objects. Time stands still: leases expire only by expire_leases().
//
// Threads: all methods are thread-safe and never block. Ownership: values; hold it by shared_ptr.
// Errors: the same codes as the real server's. Durable: nothing.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "common/base/clock.h"
#include "common/contract/remote.h"

namespace dims::test {

class FakeServer {
 public:
  using ObjectKey = format::ObjectKey;
  static constexpr std::chrono::milliseconds kLeaseTerm{30000};

  FakeServer();

  // What the wire offers.
  contract::ServerInfo hello();
  Result<contract::ImageInfo> create_image(const contract::ImageInfo& image);
  Result<contract::ImageInfo> find_image(const std::string& name);
  Result<contract::ImageInfo> get_image(const ImageId& id);
  std::vector<contract::ImageInfo> list_images();
  Status remove_image(const contract::ImageRemoval& removal);
  Result<contract::VersionInfo> get_version(const ImageId& image, const VersionId& version,
                                            std::uint64_t sequence);
  Result<std::vector<contract::VersionInfo>> list_versions(const ImageId& image,
                                                           std::uint32_t limit);
  Result<contract::SessionAnswer> open_session(const contract::SessionRequest& request);
  Status close_session(const ImageId& image, const SessionId& session);
  Result<contract::LeaseGrant> acquire_lease(const contract::LeaseRequest& request);
  Result<contract::LeaseGrant> renew_lease(const ImageId& image, const contract::LeaseGrant& lease);
  Status release_lease(const ImageId& image, const contract::LeaseGrant& lease);
  Result<contract::CommitAnswer> commit(const contract::CommitOrder& order);
  // Not verified: the bytes as they lie there (perhaps damaged).
  Result<Bytes> get_object(const ImageId& image, const ObjectKey& key);
  Result<std::vector<bool>> has(const ImageId& image, std::span<const ObjectKey> keys);
  Result<std::uint64_t> put(const ImageId& image, std::span<const contract::Remote::PutItem> items);
  Result<contract::DiffPart> diff(const ImageId& image, const VersionId& old_version,
                                  const VersionId& new_version);
  contract::RemoteStoreInfo store_info();

  // What a watch of these images is told behind READY: their conflict branches.
  std::vector<contract::ServerEvent> first_events(const std::vector<ImageId>& images);
  // Events since the server began, for those who watch. Returns the number of events so far.
  std::size_t event_count();
  // The first event at or after `from` that this watcher is meant to see, and the place behind it.
  std::optional<std::pair<contract::ServerEvent, std::size_t>> event_after(
      std::size_t from, const std::vector<ImageId>& images, const SessionId& session);
  // Called (with no lock held) after every change that may bring an event; returns a number for
  // remove_listener.
  std::uint64_t add_listener(std::function<void()> listener);
  void remove_listener(std::uint64_t listener);

  // What tests do to it.
  void expire_leases();
  // The next one differs: as after a restore from a backup.
  void change_generation();
  void damage_object(const ObjectKey& key);  // flips a byte
  void drop_object(const ObjectKey& key);
  // As a collection after retention: the version is not known any more, and what no head needs is
  // gone.
  void let_go(const VersionId& version);
  std::vector<ObjectKey> all_objects();
  std::size_t object_count();
  std::size_t open_sessions(const ImageId& image);
  VersionId head(const ImageId& image);

 private:
  struct Version {
    Bytes record_bytes;
    format::VersionRecord record;
  };
  struct Journal {
    format::CommitPoint newest;
    VersionId version;
    std::uint64_t sequence = 0;
  };
  struct Image {
    contract::ImageInfo info;
    bool held = false;
    bool expired = false;
    LeaseId lease;
    std::uint64_t token = 0;
    contract::HolderInfo holder;
    std::unordered_map<JournalId, Journal, IdHash> journals;
    std::set<SessionId> sessions;
  };
  struct Announcement {
    contract::ServerEvent event;
    std::optional<SessionId> only_for;
  };
  class Announce;  // runs the listeners when the lock has been given back

  Result<Image*> image_locked(const ImageId& id);
  contract::ImageInfo info_locked(const Image& image) const;
  std::vector<std::string> branches_locked(const std::string& name) const;
  void announce_branches_locked(const std::string& conflict_of);
  Status check_lease_locked(const Image& image, const LeaseId& lease, std::uint64_t token) const;
  std::vector<ObjectKey> missing_locked(const ObjectKey& root);
  Result<ObjectKey> root_locked(const ImageId& image, const VersionId& version) const;
  // Nodes below (and with) root, parents first; stops where `stop` holds.
  std::vector<ObjectKey> nodes_locked(const ObjectKey& root, const std::set<ObjectKey>& stop) const;
  void announce_locked(contract::ServerEvent event,
                       std::optional<SessionId> only_for = std::nullopt);

  std::mutex mutex_;
  Random& random_ = system_random();
  GenerationId generation_;
  std::map<ImageId, Image> images_;
  std::unordered_map<VersionId, Version, IdHash> versions_;
  std::unordered_map<ObjectKey, Bytes, format::ObjectKeyHash> objects_;
  std::unordered_set<ObjectKey, format::ObjectKeyHash>
      complete_;  // nodes of which everything below is there
  std::vector<Announcement> events_;
  std::map<std::uint64_t, std::function<void()>> listeners_;
  std::uint64_t next_listener_ = 1;
  contract::RemoteStoreInfo totals_;
};

}  // namespace dims::test
