// Keeper: sees to it that who may read has the keys, and who may not any more gets no new ones.
//
// A right stands in the log; a key comes as a grant. Whoever administers an image (or, for the
// organisation's domain, an administrator) makes the grants that are missing. Taking a right away
// begins new epochs: what was readable stays readable to whom had the old keys and can still fetch
// it, what is written from then on is not.
//
// What a command did not come to after somebody had lost a right (a crash, an error, an image whose
// keys its user has not), the log shows: the next run of who administers the image does it.
// Which images are in a domain is believed of versions that its owner signed, not of the server: it
// could name one whose writers would get the domain's secret by that.
//
// A crash between the announcement of an epoch and its grants leaves an epoch that nobody can use:
// the next run notices that nobody has it and begins another one.
// Threads: the main thread. Errors: those of the calls; what was done before one stays done.
// Durable on return: log and grants, on the server.
#pragma once

#include <map>
#include <set>

#include "image-tools/rdim/people.h"

namespace dims::rdim {

struct KeeperReport {
  unsigned grants = 0;
  unsigned epochs = 0;
  std::vector<ImageId> left;  // images that another must see to: their keys are not ours
};

class Keeper {
 public:
  Keeper(People& people, contract::Remote& remote) : people_(people), remote_(remote) {}

  // Of one image, or of all that this user administers, and of domains; and the epochs that are due
  // there (trust::OrgState::image_keys_due()).
  Result<KeeperReport> make_missing(const ImageId* only);
  // New epochs of these images and, with `domains`, of the domains that they are in.
  Result<KeeperReport> rotate(const std::vector<ImageId>& images, bool domains);

 private:
  using Scoped = std::pair<trust::KeyScope, trust::ScopeId>;
  Status see_to(const Scoped& what, const std::vector<trust::UserId>& recipients,
                KeeperReport& report);
  Status name_head(trust::KeyEpoch& epoch);
  Status check_named_head(const contract::ImageInfo& image);
  Status new_epochs(const std::vector<Scoped>& what, KeeperReport& report);
  std::vector<trust::UserId> readers_of(const ImageId& image) const;
  Status new_epochs_each(const std::vector<Scoped>& what, KeeperReport& report);
  Result<std::vector<trust::UserId>> writers_of(const DomainId& domain);
  bool may_place(const trust::SessionCertificate& certificate, const DomainId& domain) const;
  Result<bool> belongs(const ImageId& image, const DomainId& domain);
  Result<std::set<std::uint32_t>> missing_grants(const Scoped& what, std::uint32_t last,
                                                 const trust::UserId& user);

  People& people_;
  contract::Remote& remote_;
  std::map<DomainId, std::vector<ImageId>> images_in_;  // says the server
  std::map<std::pair<ImageId, DomainId>, bool> belongs_;
};

}  // namespace dims::rdim
