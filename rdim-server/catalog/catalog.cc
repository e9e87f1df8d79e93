#include "rdim-server/catalog/catalog.h"

#include <algorithm>

namespace dims::catalog {
namespace {

constexpr std::size_t kLoadBatch = 256;

}  // namespace

Catalog::Catalog(contract::ObjectStore& objects, contract::RefStore& refs,
                 const GenerationId& generation, Clock& clock, Random& random,
                 const CatalogOptions& options)
    : objects_(objects),
      refs_(refs),
      generation_(generation),
      clock_(clock),
      random_(random),
      options_(options) {}

Result<std::unique_ptr<Catalog>> Catalog::open(contract::ObjectStore& objects,
                                               contract::RefStore& refs,
                                               const GenerationId& generation, Clock& clock,
                                               Random& random, const CatalogOptions& options) {
  std::unique_ptr<Catalog> catalog(new Catalog(objects, refs, generation, clock, random, options));
  DIMS_TRY(catalog->load());
  return catalog;
}

Status Catalog::load() {
  // Nobody could renew while the server was away: every lease starts a full term.
  const auto lease_ends = clock_.boottime() + options_.lease_term;
  std::string after;
  for (;;) {
    DIMS_ASSIGN(const auto rows, refs_.list(kImagePrefix, after, kLoadBatch));
    for (const auto& [key, value] : rows) {
      Result<ImageRecord> record = decode_image(value.value);
      if (!record.ok()) return record.error().with_context(key);
      auto image = std::make_shared<LiveImage>();
      image->record = std::move(*record);
      image->revision = value.revision;
      image->lease_ends = lease_ends;
      names_[image->record.name] = image->record.id;
      if (!image->record.conflict_of.empty())
        branches_[image->record.conflict_of][image->record.name] = image->record.id;
      images_[image->record.id] = std::move(image);
      after = key;
    }
    if (rows.size() < kLoadBatch) return ok_status();
  }
}

Result<Catalog::ImagePtr> Catalog::live(const ImageId& id) {
  std::shared_lock lock(table_mutex_);
  const auto found = images_.find(id);
  if (found != images_.end()) return found->second;
  return make_error(ErrorCode::kNotFound, "no image has the id " + id.hex(), "see 'rdim image ls'");
}

Status Catalog::save(LiveImage& image, ImageRecord next) {
  DIMS_ASSIGN(const std::uint64_t revision,
              refs_.put(image_key(next.id), encode_image(next), image.revision));
  image.record = std::move(next);
  image.revision = revision;
  return ok_status();
}

contract::HolderInfo Catalog::holder_of(const LiveImage& image) {
  contract::HolderInfo holder;
  holder.machine = image.record.lease.machine;
  holder.machine_name = image.record.lease.machine_name;
  holder.session = image.record.lease.session;
  holder.unsent_bytes = image.unsent_bytes;
  const auto left = image.lease_ends - clock_.boottime();
  if (left.count() > 0) {
    // Rounded up: 0 means expired.
    holder.expires_in = std::chrono::ceil<std::chrono::milliseconds>(left);
  }
  return holder;
}

contract::ImageInfo Catalog::info_of(const LiveImage& image) {
  const ImageRecord& record = image.record;
  contract::ImageInfo info;
  info.id = record.id;
  info.name = record.name;
  info.image_bytes = record.image_bytes;
  info.tree = record.tree;
  info.domain = record.domain;
  info.key_check = record.key_check;
  info.head = record.head;
  info.head_sequence = record.head_sequence;
  info.origin = record.origin;
  info.created_unix_ns = record.created_unix_ns;
  info.conflict_of = record.conflict_of;
  if (record.lease.held()) info.holder = holder_of(image);
  for (const UnsentRecord& machine : record.unsent) {
    info.unsent.push_back(
        {machine.machine, machine.machine_name, machine.session, {}, machine.unsent_bytes});
  }
  return info;
}

bool may_use_domain(const ImageRecord& image, const DomainId& domain) {
  return domain == image.domain || std::find(image.base_domains.begin(), image.base_domains.end(),
                                             domain) != image.base_domains.end();
}

Status Catalog::check_access(const ImageId& id, std::span<const ObjectKey> keys, Access access) {
  DIMS_ASSIGN(const ImagePtr image, live(id));
  std::lock_guard lock(image->mutex);
  for (const ObjectKey& key : keys) {
    if (access == Access::kRead ? may_use_domain(image->record, key.domain)
                                : image->record.domain == key.domain) {
      continue;
    }
    return make_error(
        ErrorCode::kPermissionDenied,
        "image '" + image->record.name + "' has nothing in the domain " + key.domain.short_hex(),
        "name the image that the object belongs to");
  }
  return ok_status();
}

}  // namespace dims::catalog
