#include "common/client/member_keys.h"

#include <mutex>

#include "common/crypto/hash.h"

namespace dims::client {
namespace {

using trust::KeyScope;

Error not_granted(const std::string& what) {
  return make_error(ErrorCode::kPermissionDenied, "nobody has granted you the key of " + what,
                    "ask whoever administers it to run 'rdim image grant --all'");
}

}  // namespace

Grants grants_from(AccessClient& access) {
  return [&access](KeyScope scope, const trust::ScopeId& id) {
    return access.grants(scope, id.view(), {});
  };
}

Certificates certificates_from(AccessClient& access) {
  return [&access](const ImageId& image, const trust::PublicKey& key) -> Result<Bytes> {
    DIMS_ASSIGN(std::vector<Bytes> found, access.sessions(image, {key}));
    if (found.empty() || found.front().empty()) {
      return make_error(
          ErrorCode::kUntrusted,
          "there is no certificate of the session " + key.short_hex() + " that signed a version",
          "ask whoever runs the server");
    }
    return std::move(found.front());
  };
}

Result<crypto::SecretKey> epoch_secret(const trust::OrgState& org,
                                       const trust::UserSecrets& secrets, const Grants& grants,
                                       KeyScope scope, const trust::ScopeId& id,
                                       std::uint32_t epoch) {
  const std::string what = std::string(scope == KeyScope::kDomain ? "domain " : "image ") +
                           id.short_hex() + ", epoch " + std::to_string(epoch);
  DIMS_ASSIGN(const std::vector<Bytes> all, grants(scope, id));
  Status problem = not_granted(what);
  for (const Bytes& bytes : all) {
    const auto grant = trust::decode_grant(bytes);
    if (!grant.ok() || grant->scope != scope || !(grant->id == id) || grant->epoch != epoch)
      continue;
    auto opened = trust::open_grant(org, bytes, secrets.user, secrets.box);
    if (opened.ok()) return opened;
    problem = opened.error();  // another grant may be better
  }
  return problem.error();
}

// Of what stays when a user gets new keys (passwd --compromised): unsent writes on his machines
// must not be lost by that.
Secret32 local_key_of(const trust::UserSecrets& secrets) {
  return crypto::prf(secrets.private_secret.key(), "local-user",
                     {secrets.org.view(), secrets.user.view()});
}

std::function<Status(const format::VersionRecord&)> signer_check(
    std::shared_ptr<const trust::OrgLog> log, const ImageId& image, Certificates certificates,
    const trust::PublicKey& own) {
  // Certificates are asked for once: they do not change.
  struct Seen {
    std::mutex mutex;
    std::map<trust::PublicKey, Bytes> found;
  };
  return [log = std::move(log), image, certificates = std::move(certificates), own,
          seen = std::make_shared<Seen>()](const format::VersionRecord& version) -> Status {
    if (version.signer == own) return ok_status();  // made here, by this very session
    const std::lock_guard lock(seen->mutex);
    const auto known = seen->found.find(version.signer);
    Bytes bytes;
    const auto source = [&](const trust::PublicKey& key) -> Result<Bytes> {
      if (known != seen->found.end()) return known->second;
      DIMS_ASSIGN(bytes, certificates(image, key));
      return bytes;
    };
    // Of the image or of a branch of it: who may write the one may write the other.
    const Status checked = trust::OrgSigner(log->state(), image, source).check(version);
    // What does not convince is asked for again.
    if (checked.ok() && known == seen->found.end()) seen->found[version.signer] = bytes;
    return checked;
  };
}

Result<format::KeyFile> image_keys(std::shared_ptr<const trust::OrgLog> log,
                                   const trust::UserSecrets& secrets, const Grants& grants,
                                   const Certificates& certificates, const ImageWanted& wanted,
                                   const MachineId& machine, const crypto::SecretSigner& session) {
  const trust::OrgState& org = log->state();
  if (org.access(secrets.user, wanted.image) < wanted.access) {
    return make_error(ErrorCode::kPermissionDenied,
                      "you may not " +
                          std::string(wanted.access == trust::Access::kRead ? "read" : "write") +
                          " this image",
                      "ask whoever administers it for 'rdim image grant'");
  }
  format::KeyFile keys;
  auto member = std::make_shared<format::MemberKeys>();
  keys.org = org.org();
  keys.domain = wanted.domain;
  keys.signing = {session.seed.key(), session.public_key};
  member->local = local_key_of(secrets);
  member->machine = machine;

  const trust::ScopeId image = trust::scope_id(wanted.image);
  const trust::Epoch* const newest = org.epoch(KeyScope::kImage, image);
  if (newest == nullptr) return not_granted("image " + image.short_hex());
  for (std::uint32_t epoch = newest->body.epoch; epoch > 0; --epoch) {
    auto secret = epoch_secret(org, secrets, grants, KeyScope::kImage, image, epoch);
    if (secret.ok())
      member->image[epoch] = secret->key();
    else if (epoch == newest->body.epoch)
      return secret.error();  // older ones may be from before his time
  }

  if (wanted.access >= trust::Access::kWrite) {
    const trust::ScopeId domain = trust::scope_id(wanted.domain);
    const trust::Epoch* const last = org.epoch(KeyScope::kDomain, domain);
    if (last == nullptr && wanted.domain == secrets.private_domain) {
      keys.domain_secret = secrets.private_secret.key();
      member->domain_epoch = 1;
    } else if (last == nullptr) {
      return not_granted("domain " + domain.short_hex());
    } else {
      DIMS_ASSIGN(const auto secret,
                  epoch_secret(org, secrets, grants, KeyScope::kDomain, domain, last->body.epoch));
      keys.domain_secret = secret.key();
      member->domain_epoch = last->body.epoch;
    }
  }

  member->check_signer = signer_check(log, wanted.image, certificates, session.public_key);
  member->head_floor = [log, home = wanted.image](const ImageId& asked) {
    // A branch has numbers of its own.
    return asked == home ? trust::head_floor(log->state(), home) : 0;
  };
  keys.member = std::move(member);
  return keys;
}

}  // namespace dims::client
