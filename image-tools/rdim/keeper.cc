#include "image-tools/rdim/keeper.h"

#include <algorithm>

#include "common/crypto/hash.h"
#include "common/trust/signer_policy.h"

namespace dims::rdim {
namespace {

using trust::Access;
using trust::KeyScope;
using trust::UserId;

constexpr std::size_t kSignersMax = 64;  // of one image, that are asked for

ImageId image_of(const trust::ScopeId& id) {
  ImageId image;
  image.bytes = id.bytes;
  return image;
}
DomainId domain_of(const trust::ScopeId& id) {
  DomainId domain;
  domain.bytes = id.bytes;
  return domain;
}

// No answer, as opposed to one that says no.
bool is_unanswered(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded ||
         error.code == ErrorCode::kResourceExhausted || error.code == ErrorCode::kCancelled;
}

}  // namespace

std::vector<UserId> Keeper::readers_of(const ImageId& image) const {
  std::vector<UserId> out;
  const trust::OrgState& org = people_.member().org();
  for (const trust::User* const user : org.users())
    if (org.access(user->id, image) >= Access::kRead || is_escrow(org, *user))
      out.push_back(user->id);
  return out;
}

// Of the organisation's domain: who keeps its masters, and who may write an image in it.
Result<std::vector<UserId>> Keeper::writers_of(const DomainId& domain) {
  std::vector<UserId> out;
  const trust::OrgState& org = people_.member().org();
  const auto& images = images_in_[domain];
  for (const trust::User* const user : org.users()) {
    if (!org.is_active(user->id)) continue;
    const bool keeps = domain == org.init().domain && user->role >= trust::Role::kOperator;
    const bool owns = domain == user->private_domain;
    bool writes = keeps || owns;
    for (auto image = images.begin(); !writes && image != images.end(); ++image) {
      if (org.access(user->id, *image) < Access::kWrite) continue;
      DIMS_ASSIGN(writes, belongs(*image, domain));
    }
    if (writes) out.push_back(user->id);
  }
  return out;
}

// Who may say that an image is of a domain: its owner; of the organisation's, who may make images
// in it.
bool Keeper::may_place(const trust::SessionCertificate& certificate, const DomainId& domain) const {
  const trust::OrgState& org = people_.member().org();
  if (certificate.user == people_.member().secrets.user) return true;
  return domain == org.init().domain &&
         org.role_at(certificate.user, certificate.position.seq) >= trust::Role::kOperator;
}

// That an image is of a domain is the server's word, and its writers get the domain's newest
// secret: so a version has to say it, by somebody who would know. Whoever made the image made its
// first one.
Result<bool> Keeper::belongs(const ImageId& image, const DomainId& domain) {
  const auto known = belongs_.find({image, domain});
  if (known != belongs_.end()) return known->second;
  const trust::OrgState& org = people_.member().org();
  const client::Certificates server = client::certificates_from(*people_.member().access);
  std::map<trust::PublicKey, Bytes> seen;
  const auto certificate_of = [&](const trust::PublicKey& key) -> Result<Bytes> {
    const auto found = seen.find(key);
    if (found != seen.end()) return found->second;
    if (seen.size() == kSignersMax) return make_error(ErrorCode::kUntrusted, "too many signers");
    auto got = server(image, key);
    if (!got.ok() && is_unanswered(got.error())) return got.error();
    return seen[key] = got.ok() ? std::move(*got) : Bytes{};
  };
  const auto says_so = [&](const contract::VersionInfo& version) -> Result<bool> {
    const format::VersionRecord& record = version.record;
    // An empty disk names none.
    if (!record.root.id.is_zero() && !(record.root.domain == domain)) return false;
    if (!(record.image == image)) return false;
    const auto bytes = certificate_of(record.signer);
    if (!bytes.ok() && is_unanswered(bytes.error())) return bytes.error();
    if (!bytes.ok()) return false;
    const auto certificate = trust::decode_session(*bytes);
    return certificate.ok() && may_place(*certificate, domain) &&
           trust::check_version_signer(org, record, image, *certificate).ok();
  };
  bool found = false;
  const auto first = remote_.get_version(image, {}, 1);
  if (!first.ok() && is_unanswered(first.error())) return first.error();
  if (first.ok()) {
    DIMS_ASSIGN(found, says_so(*first));
  }
  if (!found) {
    const auto all = remote_.list_versions(image, 0);
    if (!all.ok() && is_unanswered(all.error())) return all.error();
    for (std::size_t i = 0; all.ok() && !found && i < all->size(); ++i) {
      DIMS_ASSIGN(found, says_so((*all)[i]));
    }
  }
  return belongs_[{image, domain}] = found;
}

// Epochs up to `last` whose secret that user has not been granted: of an image all count, of a
// domain the newest.
Result<std::set<std::uint32_t>> Keeper::missing_grants(const Scoped& what, std::uint32_t last,
                                                       const UserId& user) {
  client::Member& member = people_.member();
  const trust::User* const known = member.org().user(user);
  DIMS_ASSIGN(const auto grants,
              member.access->grants(what.first, what.second.view(),
                                    user == member.secrets.user ? UserId{} : user));
  std::set<std::uint32_t> missing{last};
  for (std::uint32_t epoch = 1; what.first == KeyScope::kImage && epoch < last; ++epoch)
    missing.insert(epoch);
  const Digest key = crypto::sha256(known->keys.box_key.view());
  for (const Bytes& bytes : grants) {
    const auto grant = trust::decode_grant(bytes);
    if (grant.ok() && grant->scope == what.first && grant->id == what.second &&
        grant->recipient == user && grant->recipient_key == key &&
        trust::check_grant(member.org(), *grant).ok())
      missing.erase(grant->epoch);
  }
  return missing;
}

Status Keeper::see_to(const Scoped& what, const std::vector<UserId>& recipients,
                      KeeperReport& report) {
  client::Member& member = people_.member();
  const trust::Epoch* newest = member.org().epoch(what.first, what.second);
  if (newest == nullptr) return ok_status();
  const std::uint32_t last = newest->body.epoch;
  std::map<UserId, std::set<std::uint32_t>> lack;
  std::size_t lack_newest = 0;
  for (const UserId& user : recipients) {
    DIMS_ASSIGN(const auto missing, missing_grants(what, last, user));
    if (missing.contains(last)) ++lack_newest;
    if (!missing.empty()) lack[user] = missing;
  }
  if (lack.empty()) return ok_status();
  // Only by who reads it himself: nobody learns a key by mending.
  const auto self = lack.find(member.secrets.user);
  const bool self_too = self != lack.end() && self->second.contains(last);
  if (self_too && lack_newest == recipients.size()) return new_epochs({what}, report);

  const client::Grants ours = client::grants_from(*member.access);
  std::vector<Bytes> made;
  for (std::uint32_t epoch = last; epoch > 0; --epoch) {
    // Writers need the newest secret of a domain, readers every one of an image.
    if (epoch != last && what.first == KeyScope::kDomain) break;
    const auto secret =
        client::epoch_secret(member.org(), member.secrets, ours, what.first, what.second, epoch);
    if (!secret.ok() && epoch == last) {
      if (what.first == KeyScope::kImage) report.left.push_back(image_of(what.second));
      return ok_status();
    }
    if (!secret.ok()) continue;
    for (const auto& [user, missing] : lack) {
      if (!missing.contains(epoch)) continue;
      DIMS_ASSIGN(made.emplace_back(),
                  trust::make_grant(member.org(), what.first, what.second, epoch, secret->key(),
                                    user, member.secrets.user, member.secrets.sign));
    }
  }
  if (made.empty()) return ok_status();
  DIMS_TRY(member.access->put_grants(made));
  report.grants += static_cast<unsigned>(made.size());
  return ok_status();
}

// Which version is the last of the old keys.
Status Keeper::name_head(trust::KeyEpoch& epoch) {
  if (epoch.scope == KeyScope::kDomain) return ok_status();
  const auto image = remote_.get_image(image_of(epoch.id));
  if (!image.ok() && image.error().code != ErrorCode::kNotFound &&
      image.error().code != ErrorCode::kPermissionDenied)
    return image.error();
  const trust::OrgState& org = people_.member().org();
  const bool listed = std::any_of(images_in_.begin(), images_in_.end(), [&](const auto& entry) {
    const auto& [domain, inside] = entry;
    return std::find(inside.begin(), inside.end(), image_of(epoch.id)) != inside.end();
  });
  if (!image.ok() && listed) return image.error();  // the server showed it a moment ago
  if (!image.ok()) {
    // Announced, and never made; or removed since: what the log says already stays.
    const trust::Epoch* const newest = org.epoch(epoch.scope, epoch.id);
    epoch.last_sequence = newest == nullptr ? 0 : newest->body.last_sequence;
    epoch.last_version = newest == nullptr ? VersionId{} : newest->body.last_version;
    return ok_status();
  }
  // What the log says is for ever: the server's word alone is not enough for it.
  DIMS_TRY(check_named_head(*image));
  epoch.last_sequence = image->head_sequence;
  epoch.last_version = image->head;
  return ok_status();
}

// That a writer made it, that its number is the one that the server says, and that it is none older
// than the log knows.
Status Keeper::check_named_head(const contract::ImageInfo& image) {
  client::Member& member = people_.member();
  const auto refuse = [&](const std::string& what) {
    return make_error(ErrorCode::kUntrusted,
                      "no new keys were begun for '" + image.name +
                          "': its newest version, says "
                          "the server, " +
                          what,
                      "ask whoever runs the server");
  };
  if (image.head_sequence < trust::head_floor(member.org(), image.id))
    return refuse("is older than the last one under its last keys");
  if (image.head.is_zero() && image.head_sequence == 0) return ok_status();
  DIMS_ASSIGN(const contract::VersionInfo head, remote_.get_version(image.id, image.head, 0));
  if (!(head.record.image == image.id)) return refuse("is another image's");
  if (head.record.sequence != image.head_sequence) return refuse("has another number");
  const auto certificates = client::certificates_from(*member.access);
  trust::OrgSigner signer(member.org(), image.id,
                          [&](const trust::PublicKey& key) { return certificates(image.id, key); });
  const Status made = signer.check(head.record);
  if (made.ok() || made.error().code == ErrorCode::kUnavailable) return made;
  return refuse("is not one that it can be: " + made.error().message);
}

Status Keeper::new_epochs(const std::vector<Scoped>& what, KeeperReport& report) {
  client::Member& member = people_.member();
  std::vector<crypto::SecretKey> secrets;
  std::vector<trust::KeyEpoch> epochs;
  for (const Scoped& one : what) {
    secrets.push_back(crypto::SecretKey::random(system_random()));
    trust::KeyEpoch& epoch = epochs.emplace_back();
    epoch.scope = one.first;
    epoch.id = one.second;
  }
  // Before the log says anything: who cannot be found out now would be left without.
  std::vector<std::vector<UserId>> recipients;
  for (const Scoped& one : what) {
    if (one.first == KeyScope::kDomain) {
      DIMS_ASSIGN(recipients.emplace_back(), writers_of(domain_of(one.second)));
    } else {
      recipients.push_back(readers_of(image_of(one.second)));
    }
  }
  DIMS_TRY(member.append([&](const trust::OrgState& org) -> Result<std::vector<trust::Body>> {
    std::vector<trust::Body> bodies;
    for (std::size_t i = 0; i < epochs.size(); ++i) {
      // At each try: a disk that is in use may have committed meanwhile.
      const Status named = name_head(epochs[i]);
      if (!named.ok()) return named.error();
      const trust::Epoch* const newest = org.epoch(epochs[i].scope, epochs[i].id);
      epochs[i].epoch = newest == nullptr ? 1 : newest->body.epoch + 1;
      epochs[i].commitment =
          trust::epoch_commitment(epochs[i].scope, epochs[i].id, epochs[i].epoch, secrets[i].key());
      bodies.emplace_back(epochs[i]);
    }
    return bodies;
  }));
  DIMS_TRY(people_.remember());
  report.epochs += static_cast<unsigned>(epochs.size());
  std::vector<Bytes> made;
  for (std::size_t i = 0; i < epochs.size(); ++i) {
    for (const UserId& user : recipients[i]) {
      DIMS_ASSIGN(
          made.emplace_back(),
          trust::make_grant(member.org(), epochs[i].scope, epochs[i].id, epochs[i].epoch,
                            secrets[i].key(), user, member.secrets.user, member.secrets.sign));
    }
  }
  DIMS_TRY(member.access->put_grants(made));
  report.grants += static_cast<unsigned>(made.size());
  return ok_status();
}

// One after another: a disk in use that commits just then, or one whose head cannot be believed,
// must not keep all others from new keys. The log knows what is still due.
Status Keeper::new_epochs_each(const std::vector<Scoped>& what, KeeperReport& report) {
  Status first = ok_status();
  for (const Scoped& one : what) {
    const Status made = new_epochs({one}, report);
    if (!made.ok() && is_unanswered(made.error())) return made;
    if (!made.ok() && first.ok()) first = made;
  }
  return first;
}

Result<KeeperReport> Keeper::make_missing(const ImageId* only) {
  client::Member& member = people_.member();
  KeeperReport report;
  DIMS_ASSIGN(const std::vector<contract::ImageInfo> images, remote_.list_images());
  images_in_.clear();
  for (const contract::ImageInfo& image : images) images_in_[image.domain].push_back(image.id);
  std::vector<DomainId> domains;
  std::vector<Scoped> due;  // somebody has lost a right, and new keys did not follow
  for (const contract::ImageInfo& image : images) {
    if (only != nullptr && !(image.id == *only)) continue;
    if (!member.org().may_administer(member.secrets.user, image.id)) continue;
    domains.push_back(image.domain);
    // Also where new keys are due: what is there already is sealed with the old ones.
    const Scoped what{KeyScope::kImage, trust::scope_id(image.id)};
    DIMS_TRY(see_to(what, readers_of(image.id), report));
    if (!member.org().image_keys_due(image.id)) continue;
    if (member.org().access(member.secrets.user, image.id) == Access::kNone)
      report.left.push_back(image.id);
    else
      due.push_back(what);
  }
  if (only == nullptr) domains.push_back(member.org().init().domain);
  std::sort(domains.begin(), domains.end());
  domains.erase(std::unique(domains.begin(), domains.end()), domains.end());
  const bool top = member.org().is_administrator(member.secrets.user);
  for (const DomainId& domain : domains) {
    const bool ours =
        domain == member.secrets.private_domain || (domain == member.org().init().domain && top);
    if (!ours) continue;
    DIMS_ASSIGN(const std::vector<UserId> writers, writers_of(domain));
    const bool shared = std::any_of(writers.begin(), writers.end(), [&](const UserId& user) {
      return !(user == member.secrets.user);
    });
    // A private domain that nobody else writes needs no epoch in the log: its secret is at hand.
    const Scoped what{KeyScope::kDomain, trust::scope_id(domain)};
    const bool first = member.org().epoch(what.first, what.second) == nullptr && shared;
    if (first || member.org().domain_keys_due(domain, images_in_[domain]))
      due.push_back(what);
    else
      DIMS_TRY(see_to(what, writers, report));
  }
  DIMS_TRY(new_epochs_each(due, report));
  std::sort(report.left.begin(), report.left.end());
  report.left.erase(std::unique(report.left.begin(), report.left.end()), report.left.end());
  return report;
}

Result<KeeperReport> Keeper::rotate(const std::vector<ImageId>& images, bool domains) {
  client::Member& member = people_.member();
  KeeperReport report;
  std::vector<Scoped> what;
  std::vector<DomainId> seen;
  DIMS_ASSIGN(const std::vector<contract::ImageInfo> all, remote_.list_images());
  images_in_.clear();
  for (const contract::ImageInfo& image : all) images_in_[image.domain].push_back(image.id);
  for (const ImageId& image : images) {
    // Keys of an image are made by who reads it: an administrator who does not must not learn them.
    if (member.org().access(member.secrets.user, image) == Access::kNone ||
        !member.org().may_administer(member.secrets.user, image)) {
      report.left.push_back(image);
      continue;
    }
    what.emplace_back(KeyScope::kImage, trust::scope_id(image));
    for (const auto& [domain, inside] : images_in_)
      if (std::find(inside.begin(), inside.end(), image) != inside.end()) seen.push_back(domain);
  }
  if (domains) {
    const bool top = member.org().is_administrator(member.secrets.user);
    if (top) seen.push_back(member.org().init().domain);
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (const DomainId& domain : seen) {
      const trust::ScopeId id = trust::scope_id(domain);
      const bool organisations = domain == member.org().init().domain;
      if (organisations ? top
                        : domain == member.secrets.private_domain &&
                              member.org().epoch(KeyScope::kDomain, id) != nullptr)
        what.emplace_back(KeyScope::kDomain, id);
    }
  }
  DIMS_TRY(new_epochs_each(what, report));
  return report;
}

}  // namespace dims::rdim
