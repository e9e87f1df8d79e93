#include "rdim-server/catalog/catalog.h"

#include <algorithm>

namespace dims::catalog {
namespace {

Error name_taken(const std::string& name) {
  return make_error(ErrorCode::kAlreadyExists, "an image named '" + name + "' exists",
                    "choose another name, or remove that image first");
}

bool same_image(const ImageRecord& record, const contract::ImageInfo& asked) {
  return record.name == asked.name && record.image_bytes == asked.image_bytes &&
         record.tree == asked.tree && record.domain == asked.domain &&
         record.key_check == asked.key_check && record.origin == asked.origin;
}

Status check_new_image(const contract::ImageInfo& asked) {
  DIMS_TRY(check_image_name(asked.name));
  if (asked.id.is_zero() || asked.domain.is_zero()) {
    return make_error(ErrorCode::kInvalidArgument, "an image needs an id and a domain");
  }
  if (asked.image_bytes == 0 || asked.image_bytes > kMaxImageBytes) {
    return make_error(ErrorCode::kInvalidArgument,
                      "an image of " + std::to_string(asked.image_bytes) + " bytes is not possible",
                      "sizes go from 1 byte to 64 PiB");
  }
  if (!asked.conflict_of.empty()) DIMS_TRY(check_image_name(asked.conflict_of));
  return format::check_parameters(asked.tree);
}

}  // namespace

Result<contract::ImageInfo> Catalog::create_image(const contract::ImageInfo& asked) {
  DIMS_TRY(check_new_image(asked));
  std::lock_guard naming(naming_mutex_);
  if (auto existing = live(asked.id); existing.ok()) {
    std::lock_guard lock((*existing)->mutex);
    if (same_image((*existing)->record, asked)) return info_of(**existing);
    return make_error(ErrorCode::kAlreadyExists,
                      "the image id " + asked.id.hex() + " is taken by another image");
  }
  {
    std::shared_lock lock(table_mutex_);
    if (names_.contains(asked.name)) return name_taken(asked.name);
  }
  auto image = std::make_shared<LiveImage>();
  ImageRecord record;
  record.id = asked.id;
  record.name = asked.name;
  record.image_bytes = asked.image_bytes;
  record.tree = asked.tree;
  record.domain = asked.domain;
  record.key_check = asked.key_check;
  record.origin = asked.origin;
  record.conflict_of = asked.conflict_of;
  record.created_unix_ns = static_cast<std::uint64_t>(clock_.wall().count());
  // Before the gate: whoever opens a session locks his image first, and then the gate.
  std::vector<DomainId> base_domains;
  if (const auto origin = load_version(asked.origin); origin.ok()) {
    if (auto base = live(origin->record.image); base.ok()) {
      std::lock_guard lock((*base)->mutex);
      base_domains = (*base)->record.base_domains;
      base_domains.push_back((*base)->record.domain);
    }
  }
  // Until the branch is durable no collection lets its origin go.
  const auto hold = hold_version(asked.origin);
  if (!hold.ok()) return hold.error();
  if (!asked.origin.is_zero()) {
    const auto origin = load_version(asked.origin);
    if (!origin.ok()) return origin.error().with_context("the origin of '" + asked.name + "'");
    if (origin->record.image_bytes != asked.image_bytes || !(origin->record.tree == asked.tree)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "a branch has the size and the tree parameters of its origin");
    }
    // A branch begins as its origin: one reference is copied.
    record.head = asked.origin;
    record.head_sequence = origin->record.sequence;
    if (!(origin->record.root.domain == asked.domain) && !origin->record.root.id.is_zero()) {
      record.base_domains.push_back(origin->record.root.domain);
    }
    for (const DomainId& domain : base_domains) {
      if (!may_use_domain(record, domain)) record.base_domains.push_back(domain);
    }
  }
  // The name first: cut short between the two, it points at nothing and may be claimed again.
  DIMS_TRY(claim_name(asked.name, asked.id));
  DIMS_TRY(save(*image, std::move(record)));
  {
    std::unique_lock lock(table_mutex_);
    images_[asked.id] = image;
    names_[asked.name] = asked.id;
    if (!asked.conflict_of.empty()) branches_[asked.conflict_of][asked.name] = asked.id;
  }
  announce_branches(asked.conflict_of);
  std::lock_guard lock(image->mutex);
  return info_of(*image);
}

std::vector<Catalog::Branch> Catalog::branches_of(const std::string& name) {
  std::vector<Branch> out;
  std::shared_lock lock(table_mutex_);
  const auto found = branches_.find(name);
  if (found == branches_.end()) return out;
  for (const auto& [branch, id] : found->second) out.push_back({branch, id});
  return out;
}

// Which there are, each watcher is told as he may know them.
void Catalog::announce_branches(const std::string& conflict_of) {
  if (conflict_of.empty()) return;
  contract::ServerEvent event;
  event.kind = contract::ServerEvent::Kind::kBranches;
  {
    std::shared_lock lock(table_mutex_);
    const auto home = names_.find(conflict_of);
    if (home == names_.end()) return;
    event.image = home->second;
  }
  events_.announce(event);
}

Status Catalog::claim_name(const std::string& name, const ImageId& id) {
  // Whatever the record says, no living image has this name (the caller looked).
  DIMS_ASSIGN(const auto current, refs_.get(name_key(name)));
  DIMS_TRY(refs_.put(name_key(name), id.view(), current ? current->revision : 0));
  return ok_status();
}

Result<contract::ImageInfo> Catalog::find_image(const std::string& name) {
  ImageId id;
  {
    std::shared_lock lock(table_mutex_);
    const auto found = names_.find(name);
    if (found == names_.end()) {
      return make_error(ErrorCode::kNotFound, "no image is named '" + name + "'",
                        "see 'rdim image ls'");
    }
    id = found->second;
  }
  return get_image(id);
}

Result<contract::ImageInfo> Catalog::get_image(const ImageId& id) {
  DIMS_ASSIGN(const ImagePtr image, live(id));
  std::lock_guard lock(image->mutex);
  return info_of(*image);
}

std::vector<contract::ImageInfo> Catalog::list_images(const std::string& after, std::size_t limit) {
  std::vector<ImagePtr> images;
  {
    std::shared_lock lock(table_mutex_);
    for (auto it = names_.upper_bound(after); it != names_.end() && images.size() < limit; ++it) {
      images.push_back(images_.at(it->second));
    }
  }
  std::vector<contract::ImageInfo> out;
  for (const ImagePtr& image : images) {
    std::lock_guard lock(image->mutex);
    out.push_back(info_of(*image));
  }
  return out;
}

std::size_t Catalog::image_count() {
  std::shared_lock lock(table_mutex_);
  return images_.size();
}

Status Catalog::remove_image(const contract::ImageRemoval& removal) {
  const ImageId& id = removal.id;
  std::lock_guard naming(naming_mutex_);
  const auto found = live(id);
  if (!found.ok()) return found.error();
  std::string name;
  std::string conflict_of;
  {
    std::lock_guard lock((*found)->mutex);
    name = (*found)->record.name;
    conflict_of = (*found)->record.conflict_of;
    if (!removal.lease.is_zero())
      DIMS_TRY(check_lease(**found, removal.lease, removal.token, true));
    else if (lease_is_live(**found))
      return held_error(**found);
    if (!removal.head.is_zero() && !((*found)->record.head == removal.head)) {
      return make_error(ErrorCode::kConflict,
                        "image '" + name + "' has got another version meanwhile, version " +
                            std::to_string((*found)->record.head_sequence),
                        "look at it, and try again");
    }
    DIMS_TRY(refs_.remove(image_key(id), (*found)->revision));
    (*found)->removed = true;
  }
  {
    std::unique_lock lock(table_mutex_);
    images_.erase(id);
    names_.erase(name);
    if (const auto home = branches_.find(conflict_of); home != branches_.end()) {
      home->second.erase(name);
      if (home->second.empty()) branches_.erase(home);
    }
  }
  contract::ServerEvent event;
  event.kind = contract::ServerEvent::Kind::kRemoved;
  event.image = id;
  events_.announce(event);
  announce_branches(conflict_of);
  // What follows is tidying: a name without an image is free, a session without one pins nothing.
  DIMS_ASSIGN(const auto entry, refs_.get(name_key(name)));
  if (entry) DIMS_TRY(refs_.remove(name_key(name), entry->revision));
  DIMS_ASSIGN(const auto retention, refs_.get(retention_key(id)));
  if (retention) DIMS_TRY(refs_.remove(retention_key(id), retention->revision));
  for (;;) {
    DIMS_ASSIGN(const auto sessions, refs_.list(session_prefix(id), "", 256));
    if (sessions.empty()) return ok_status();
    for (const auto& [key, value] : sessions) {
      const Status removed = refs_.remove(key, value.revision);  // or its machine just closed it
      if (!removed.ok() && removed.error().code != ErrorCode::kConflict) return removed;
    }
  }
}

}  // namespace dims::catalog
