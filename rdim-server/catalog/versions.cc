#include "common/base/wire.h"
#include "rdim-server/catalog/catalog.h"

namespace dims::catalog {

Result<Catalog::StoredVersion> Catalog::load_version(const VersionId& id) {
  DIMS_ASSIGN(const auto row, refs_.get(version_key(id)));
  if (!row) {
    return make_error(ErrorCode::kNotFound, "version " + id.short_hex() + " is not known here",
                      "see 'rdim version ls'");
  }
  // Its signature was verified when it came; its id binds every byte since.
  if (!(format::version_id(row->value) == id)) {
    return make_error(ErrorCode::kCorrupt,
                      "the record of version " + id.short_hex() + " is damaged",
                      "restore the store from its backup");
  }
  DIMS_ASSIGN(format::VersionRecord record, format::decode_version(row->value, false));
  return StoredVersion{row->value, record};
}

Status Catalog::store_version(const VersionId& id, ByteView record) {
  const auto put = refs_.put(version_key(id), record, 0);
  // There already: a commit that was cut short after this step. The same id means the same bytes.
  if (put.ok() || put.error().code == ErrorCode::kConflict) return ok_status();
  return put.error();
}

Result<ObjectKey> Catalog::root_of(const VersionId& version) {
  if (version.is_zero()) return ObjectKey{};
  DIMS_ASSIGN(const StoredVersion stored, load_version(version));
  return stored.record.root;
}

Result<bool> Catalog::is_gone(const VersionId& version) {
  DIMS_ASSIGN(const auto row, refs_.get(gone_key(version)));
  return row.has_value();
}

Result<VersionGate::Hold> Catalog::hold_version(const VersionId& version) {
  VersionGate::Hold hold = gate_.hold(version);
  if (version.is_zero()) return hold;
  DIMS_ASSIGN(const bool gone, is_gone(version));
  if (!gone) return hold;
  return make_error(
      ErrorCode::kNotFound,
      "the data of version " + version.short_hex() + " was let go, as its image's retention says",
      "see 'rdim version ls' for those that are kept");
}

Status Catalog::mark_gone(const VersionId& version) {
  Bytes when;
  Writer(when).u64(static_cast<std::uint64_t>(clock_.wall().count()));
  const auto put = refs_.put(gone_key(version), when, 0);
  if (put.ok() || put.error().code == ErrorCode::kConflict) return ok_status();
  return put.error();
}

Status Catalog::forget_gone(const VersionId& version) {
  const std::string key = gone_key(version);
  DIMS_ASSIGN(const auto row, refs_.get(key));
  return row ? refs_.remove(key, row->revision) : ok_status();
}

Result<RetentionPolicy> Catalog::retention_of(const ImageId& image) {
  DIMS_ASSIGN(const auto row, refs_.get(retention_key(image)));
  return row ? decode_retention(row->value) : options_.retention;
}

Result<bool> Catalog::has_own_retention(const ImageId& image) {
  DIMS_ASSIGN(const auto row, refs_.get(retention_key(image)));
  return row.has_value();
}

Status Catalog::set_retention(const ImageId& image, const std::optional<RetentionPolicy>& policy) {
  const auto found = live(image);
  if (!found.ok()) return found.error();
  std::lock_guard lock((*found)->mutex);
  if ((*found)->removed) return make_error(ErrorCode::kNotFound, "the image was removed");
  const std::string key = retention_key(image);
  DIMS_ASSIGN(const auto row, refs_.get(key));
  if (!policy) return row ? refs_.remove(key, row->revision) : ok_status();
  DIMS_TRY(refs_.put(key, encode_retention(*policy), row ? row->revision : 0));
  return ok_status();
}

Result<contract::VersionInfo> Catalog::get_version(const ImageId& id, const VersionId& version,
                                                   std::uint64_t sequence) {
  VersionId at = version;
  std::string name;
  {
    DIMS_ASSIGN(const ImagePtr image, live(id));
    std::lock_guard lock(image->mutex);
    if (at.is_zero()) at = image->record.head;
    name = image->record.name;
  }
  const bool by_sequence = version.is_zero() && sequence != 0;
  while (!at.is_zero()) {
    DIMS_ASSIGN(StoredVersion stored, load_version(at));
    if (!by_sequence || stored.record.sequence == sequence) {
      return contract::VersionInfo{at, std::move(stored.bytes), stored.record};
    }
    if (stored.record.sequence < sequence) break;  // they fall on the way to the first
    at = stored.record.parent;
  }
  return make_error(ErrorCode::kNotFound,
                    by_sequence ? "image '" + name + "' has no version " + std::to_string(sequence)
                                : "image '" + name + "' has no version yet",
                    "see 'rdim version ls'");
}

Result<ImageId> Catalog::image_of_version(const VersionId& version) {
  DIMS_ASSIGN(const StoredVersion stored, load_version(version));
  return stored.record.image;
}

Result<bool> Catalog::is_version_of(const ImageId& id, const VersionId& version) {
  const auto stored = load_version(version);
  if (!stored.ok() && stored.error().code == ErrorCode::kNotFound) return true;
  if (!stored.ok()) return stored.error();
  if (stored->record.image == id) return true;
  VersionId at;
  {
    DIMS_ASSIGN(const ImagePtr image, live(id));
    std::lock_guard lock(image->mutex);
    at = image->record.origin;
  }
  while (!at.is_zero()) {
    if (at == version) return true;
    const auto earlier = load_version(at);
    if (!earlier.ok())
      return earlier.error().code == ErrorCode::kNotFound ? Result<bool>(false) : earlier.error();
    if (earlier->record.sequence <= stored->record.sequence) return false;
    at = earlier->record.parent;
  }
  return false;
}

Result<std::unique_ptr<TreeDiff>> Catalog::diff(const ImageId& image, const VersionId& old_version,
                                                const VersionId& new_version) {
  DIMS_TRY(live(image));
  const auto new_root = root_of(new_version);
  if (!new_root.ok()) {
    Error error = new_root.error();
    if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kOtherHistory;
    return error;
  }
  DIMS_ASSIGN(const bool gone, is_gone(new_version));
  if (gone) return hold_version(new_version).error();
  DIMS_TRY(check_access(
      image, new_root->id.is_zero() ? std::span<const ObjectKey>() : std::span(&*new_root, 1),
      Access::kRead));
  ObjectKey old_root;
  const auto known = root_of(old_version);
  if (known.ok()) {
    old_root = *known;
  } else if (known.error().code != ErrorCode::kNotFound) {
    return known.error();
  }
  return std::make_unique<TreeDiff>(objects_, old_root, *new_root);
}

}  // namespace dims::catalog
