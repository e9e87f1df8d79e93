// Catalog: the rules of RDIM: images, versions, sessions, leases, commits. It knows neither the
// wire nor the engine.
//
// Order of a commit: objects durable (barrier) < version record durable < image record durable <
// answer and announcement.
//
// Threads: thread-safe; one image's changes go one after another, and a commit's walk of its tree
// holds nobody up. Ownership: stores, clock and random outlive it. One process owns the stores:
// records of images are kept in memory and written through. Errors: as each method says; all of
// them kIo, kNoSpace, kCorrupt from the stores. Durable on return: every change, except the renewal
// of a lease (after a restart every lease gets a full term).
#pragma once

#include <map>
#include <memory>
#include <shared_mutex>

#include "common/base/clock.h"
#include "common/contract/object_store.h"
#include "common/contract/ref_store.h"
#include "rdim-server/catalog/events.h"
#include "rdim-server/catalog/records.h"
#include "rdim-server/catalog/retention.h"
#include "rdim-server/catalog/tree_diff.h"
#include "rdim-server/catalog/version_gate.h"

namespace dims::catalog {

struct CatalogOptions {
  std::chrono::nanoseconds lease_term = std::chrono::seconds(60);
  std::size_t missing_max = 4096;  // keys that one answer names
  RetentionPolicy retention;       // of images without one of their own
};

// What a call wants with the objects that it names. Who may is asked above (services/gate.h).
enum class Access { kRead, kWrite };

class Catalog {
 public:
  static Result<std::unique_ptr<Catalog>> open(contract::ObjectStore& objects,
                                               contract::RefStore& refs,
                                               const GenerationId& generation, Clock& clock,
                                               Random& random, const CatalogOptions& options);

  // images.cc. The id is the client's choice and its idempotency key: the same image again is no
  // error. kAlreadyExists for a name or an id that is taken, kInvalidArgument, kNotFound for the
  // origin.
  Result<contract::ImageInfo> create_image(const contract::ImageInfo& image);
  Result<contract::ImageInfo> find_image(const std::string& name);
  Result<contract::ImageInfo> get_image(const ImageId& id);
  // By name, those after `after`, at most limit.
  std::vector<contract::ImageInfo> list_images(const std::string& after, std::size_t limit);
  // kLeaseHeld while somebody works on it, kStaleLease for a lease that it must be and is not,
  // kConflict for a head that it has no more.
  Status remove_image(const contract::ImageRemoval& removal);
  std::size_t image_count();
  // The conflict branches of the image of this name, by name. That one was made or removed is
  // announced to who watches the image.
  struct Branch {
    std::string name;
    ImageId id;
  };
  std::vector<Branch> branches_of(const std::string& name);

  // versions.cc. Version zero and sequence 0: the head. kNotFound.
  Result<contract::VersionInfo> get_version(const ImageId& image, const VersionId& version,
                                            std::uint64_t sequence);
  // kOtherHistory for an unknown new version; an unknown old one counts as an empty tree.
  Result<std::unique_ptr<TreeDiff>> diff(const ImageId& image, const VersionId& old_version,
                                         const VersionId& new_version);

  // The image that a version was committed to. kNotFound.
  Result<ImageId> image_of_version(const VersionId& version);
  // Whether it is in the image's history, the origin's included. One that nobody knows is: whoever
  // asks for it is told so.
  Result<bool> is_version_of(const ImageId& image, const VersionId& version);

  // retention_of is the server's where an image has none of its own.
  Result<RetentionPolicy> retention_of(const ImageId& image);
  Result<bool> has_own_retention(const ImageId& image);
  // nullopt: the server's again.
  Status set_retention(const ImageId& image, const std::optional<RetentionPolicy>& policy);
  // True: its record is known, its data was let go.
  Result<bool> is_gone(const VersionId& version);

  // sessions.cc. kOtherHistory for a base that this server does not know.
  Result<contract::SessionAnswer> open_session(const contract::SessionRequest& request);
  Status close_session(const ImageId& image, const SessionId& session);
  // Whose session it is; zero for one that is not known.
  Result<MachineId> machine_of_session(const ImageId& image, const SessionId& session);

  // leases.cc. kLeaseHeld naming the holder; the holder's own session gets its lease again.
  Result<contract::LeaseGrant> acquire_lease(const contract::LeaseRequest& request);
  // kStaleLease when another session has taken it, or it was released.
  Result<contract::LeaseGrant> renew_lease(const ImageId& image, const contract::LeaseGrant& lease);
  // Ok when it is free already.
  Status release_lease(const ImageId& image, const contract::LeaseGrant& lease);

  // unsent.cc. A machine that lost its lease before it released it stays named in the image's info
  // until it reports that it has nothing left to send (a session's start, a lease of its own, a
  // commit on its conflict branch) or is forgotten. Who forgets it ends its sessions, too: the
  // versions that they stand on are kept no longer. kNotFound: it is not named there.
  Status forget_unsent(const ImageId& image, const MachineId& machine);

  // commit.cc. In this order: the commit id (its first answer again, or kOtherHistory), lease and
  // token (kStaleLease), parent (kConflict), the record (kInvalidArgument, kCorrupt), presence
  // (`missing`).
  Result<contract::CommitAnswer> commit(const contract::CommitOrder& order);

  // kNotFound for an unknown image, kPermissionDenied for a domain that is not the image's: to
  // read, also those of what it was branched from.
  Status check_access(const ImageId& image, std::span<const ObjectKey> keys, Access access);

  EventHub& events() { return events_; }
  const GenerationId& generation() const { return generation_; }
  std::chrono::nanoseconds lease_term() const { return options_.lease_term; }

 private:
  friend class RootWalk;
  friend class Check;
  struct LiveImage {
    std::mutex mutex;
    ImageRecord record;
    std::uint64_t revision = 0;
    std::chrono::nanoseconds lease_ends{0};  // boottime
    std::uint64_t unsent_bytes = 0;          // as the holder told at its last renewal
    bool removed = false;
  };
  using ImagePtr = std::shared_ptr<LiveImage>;
  struct StoredVersion {
    Bytes bytes;
    format::VersionRecord record;
  };

  Catalog(contract::ObjectStore& objects, contract::RefStore& refs, const GenerationId& generation,
          Clock& clock, Random& random, const CatalogOptions& options);

  Status load();
  Result<ImagePtr> live(const ImageId& id);
  // Every session of the image that `which` picks, but that one.
  Status close_sessions(const ImageId& image,
                        const std::function<bool(const SessionRecord&)>& which,
                        const SessionId& but);
  // The methods below need the image's mutex.
  Status save(LiveImage& image, ImageRecord next);
  contract::ImageInfo info_of(const LiveImage& image);
  contract::HolderInfo holder_of(const LiveImage& image);
  bool lease_is_live(const LiveImage& image);
  Error held_error(const LiveImage& image);
  Status note_report(LiveImage& image, const contract::SessionRequest& report);
  Status check_lease(const LiveImage& image, const LeaseId& lease, std::uint64_t token,
                     bool even_expired);
  std::optional<Result<contract::CommitAnswer>> answer_again(const ImageRecord& image,
                                                             const format::VersionRecord& record,
                                                             const VersionId& id);
  Status check_parent(const LiveImage& image, const VersionId& parent);
  Status check_record(const ImageRecord& image, const contract::CommitOrder& order,
                      const format::VersionRecord& record);

  // Takes the lock of the image that the branch is of: call it with no image's mutex held.
  void note_branch_commit(const std::string& conflict_of, const MachineId& machine);
  Result<StoredVersion> load_version(const VersionId& id);
  Result<ObjectKey> root_of(const VersionId& version);
  // While the hold lives no collection lets the version go. kNotFound if one has.
  Result<VersionGate::Hold> hold_version(const VersionId& version);
  Status mark_gone(const VersionId& version);
  Status forget_gone(const VersionId& version);
  Status store_version(const VersionId& id, ByteView record);
  Status claim_name(const std::string& name, const ImageId& id);
  void announce_branches(const std::string& conflict_of);

  contract::ObjectStore& objects_;
  contract::RefStore& refs_;
  const GenerationId generation_;
  Clock& clock_;
  Random& random_;
  const CatalogOptions options_;
  EventHub events_;
  VersionGate gate_;

  std::mutex naming_mutex_;  // creating and removing; taken before every other
  std::shared_mutex table_mutex_;
  std::map<ImageId, ImagePtr> images_;
  std::map<std::string, ImageId> names_;
  // By the name of what they branched from.
  std::map<std::string, std::map<std::string, ImageId>> branches_;
};

bool may_use_domain(const ImageRecord& image, const DomainId& domain);

}  // namespace dims::catalog
