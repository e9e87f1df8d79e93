#include "rdim-server/services/new_image.h"

#include "common/base/parse.h"
#include "common/trust/signer_policy.h"

namespace dims::services {
namespace {

using access::Caller;
using access::denied;
using trust::Access;

struct Origin {
  contract::ImageInfo image;  // whose history the origin is part of, as the caller names it
  bool writable = false;
};

// The image that a branch is made of: the one that it names as its conflict's, or the one that its
// origin was committed to.
Result<std::optional<Origin>> origin_of(ServiceContext& context, const Caller& caller,
                                        const contract::ImageInfo& asked) {
  if (asked.origin.is_zero()) return std::optional<Origin>{};
  Result<contract::ImageInfo> image = denied();
  if (!asked.conflict_of.empty()) {
    image = context.catalog.find_image(asked.conflict_of);
  } else {
    const auto id = context.catalog.image_of_version(asked.origin);
    if (id.ok()) image = context.catalog.get_image(*id);
  }
  if (!image.ok()) return denied();
  const Access held = context.gate.control().access(caller, image->id);
  if (held < Access::kRead) return denied();
  DIMS_ASSIGN(bool part, context.catalog.is_version_of(image->id, asked.origin));
  if (!part && !asked.conflict_of.empty()) {
    // A branch of a branch: of one with the same rights; or of one that was removed, whose machine
    // brings what it has.
    DIMS_ASSIGN(const ImageId made, context.catalog.image_of_version(asked.origin));
    if (!context.catalog.get_image(made).ok())
      return unknown_version(ErrorCode::kNotFound, asked.origin);
    part = context.gate.control().listed(made) == context.gate.control().listed(image->id);
  }
  if (!part) return denied();
  return std::optional<Origin>({*image, held >= Access::kWrite});
}

bool may_use_domain(ServiceContext& context, const Caller& caller, const DomainId& domain,
                    const std::optional<Origin>& origin) {
  if (origin && origin->writable && origin->image.domain == domain) return true;
  access::AccessControl& control = context.gate.control();
  const bool organisations =
      control.book().with([&](const trust::OrgState& org) { return org.init().domain == domain; });
  if (organisations) return control.has_role(caller, trust::Role::kOperator);
  return control.book().with([&](const trust::OrgState& org) {
    const trust::User* const user = org.user(caller.user);
    return user != nullptr && user->private_domain == domain;
  });
}

Status check_quota(ServiceContext& context, const Caller& caller) {
  access::AccessControl& control = context.gate.control();
  const trust::Quota limits = control.limits_of(caller);
  const ImageUse use = image_use(context, caller.user);
  if (limits.images != 0 && use.images >= limits.images) {
    return make_error(ErrorCode::kResourceExhausted,
                      "you have " + std::to_string(use.images) + " images, as many as you may",
                      "remove one, or ask your administrator for more");
  }
  return ok_status();
}

}  // namespace

Status check_room(ServiceContext& context, const DomainId& domain) {
  std::string name;
  const std::uint64_t limit =
      context.gate.control().book().with([&](const trust::OrgState& org) -> std::uint64_t {
        for (const trust::User* const user : org.users()) {
          if (!(user->private_domain == domain)) continue;
          name = user->name;
          return org.quota(user->id).bytes;
        }
        return 0;
      });
  if (limit == 0) return ok_status();
  DIMS_ASSIGN(std::uint64_t stored, context.stored.of(domain, StoredBytes::Look::kKept));
  if (stored < limit) return ok_status();
  // A collection may have given something back.
  DIMS_ASSIGN(stored, context.stored.of(domain, StoredBytes::Look::kAnew));
  if (stored < limit) return ok_status();
  return make_error(
      ErrorCode::kResourceExhausted,
      format_size(stored) + " are stored for '" + name + "', who may have " + format_size(limit),
      "remove images or versions (a collection gives their bytes back), or ask your "
      "administrator for more");
}

ImageUse image_use(ServiceContext& context, const trust::UserId& user) {
  ImageUse use;
  for (const ImageId& id : context.gate.control().people().images_of(user)) {
    const auto image = context.catalog.get_image(id);
    if (!image.ok()) continue;  // removed
    ++use.images;
    use.bytes += image->image_bytes;
  }
  return use;
}

std::vector<ImageId> line_of(ServiceContext& context, const ImageId& image) {
  std::vector<ImageId> line{image};
  if (const auto row = context.gate.control().people().image(image)) line.push_back(row->branch_of);
  const auto info = context.catalog.get_image(image);
  if (info.ok() && !info->origin.is_zero()) {
    const auto origin = context.catalog.image_of_version(info->origin);
    if (origin.ok()) line.push_back(*origin);
  }
  return line;
}

Status claim_new_image(ServiceContext& context, const Caller& caller,
                       const contract::ImageInfo& asked) {
  if (context.gate.open_to_all()) return ok_status();
  access::AccessControl& control = context.gate.control();
  DIMS_ASSIGN(const auto origin, origin_of(context, caller, asked));
  const bool own =
      control.listed(asked.id) == asked.id && control.access(caller, asked.id) == Access::kAdmin;
  const bool branch = !own && origin && origin->writable && !asked.conflict_of.empty() &&
                      origin->image.domain == asked.domain;
  if (!own && !branch) return denied();
  // Who reads an image is told of its branches: nobody makes one of what he may not write.
  if (!asked.conflict_of.empty() && !branch) {
    const auto home = context.catalog.find_image(asked.conflict_of);
    if (!home.ok() || control.access(caller, home->id) < Access::kWrite) return denied();
  }
  if (!may_use_domain(context, caller, asked.domain, origin)) return denied();
  access::People::ImageRow row;
  row.owner = caller.user;
  if (branch) row.branch_of = origin->image.id;
  const bool again = context.catalog.get_image(asked.id).ok();
  // Writes that lost their place go to a branch whatever the quota says.
  if (!again && !branch) {
    DIMS_TRY(check_quota(context, caller));
    DIMS_TRY(check_room(context, asked.domain));
  }
  if (again && !control.people().image(asked.id)) return denied();
  return control.people().put_image(asked.id, row);
}

Error unknown_version(ErrorCode code, const VersionId& version) {
  return make_error(code, "version " + version.short_hex() + " is not known here",
                    "see 'rdim version ls'");
}

Result<bool> may_name_version(ServiceContext& context, const ImageId& image,
                              const VersionId& version) {
  if (context.gate.open_to_all() || version.is_zero()) return true;
  return context.catalog.is_version_of(image, version);
}

Status check_signer(ServiceContext& context, const Caller& caller,
                    const contract::CommitOrder& order) {
  if (context.gate.open_to_all()) return ok_status();
  DIMS_ASSIGN(const format::VersionRecord record, format::decode_version(order.record, false));
  access::AccessControl& control = context.gate.control();
  DIMS_ASSIGN(const Bytes bytes, control.people().session(record.signer));
  const auto refused = [] {
    return make_error(ErrorCode::kPermissionDenied,
                      "the version is signed by no session of yours that is known here",
                      "send the session's certificate first");
  };
  if (bytes.empty()) return refused();
  DIMS_ASSIGN(const trust::SessionCertificate session, trust::decode_session(bytes));
  if (!(session.user == caller.user)) return refused();
  // A branch has the rights and epochs of what it branched from.
  const ImageId listed = control.listed(record.image);
  // Asked for again after a lost answer, it may be older than new keys.
  const bool made =
      context.catalog.get_version(order.image, format::version_id(order.record), 0).ok();
  return control.book().with([&](const trust::OrgState& org) {
    return made ? trust::check_version_signer(org, record, listed, session)
                : trust::may_commit(org, record, listed, session);
  });
}

}  // namespace dims::services
