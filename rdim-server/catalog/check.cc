#include "rdim-server/catalog/check.h"

#include <array>

namespace dims::catalog {
namespace {

using contract::Severity;
using contract::StoreFinding;

constexpr std::size_t kRowsABatch = 256;
constexpr std::array<const char*, 4> kPrefixes = {"name/", "session/", "retention/", "gone/"};

struct Words {
  const char* code;
  Severity severity;
  const char* hint;
};

Words words_of(StoreFinding::Kind kind) {
  constexpr const char* kRepair = "run 'rdim check --repair'";
  switch (kind) {
    case StoreFinding::Kind::kDamagedObject:
      return {"damaged-object", Severity::kError,
              "--repair drops it; a machine that still has it puts it again. Look at the disk"};
    case StoreFinding::Kind::kMissingObject:
      return {"missing-bytes", Severity::kError,
              "--repair drops its row, so that it can be put again. Look at the disk"};
    case StoreFinding::Kind::kStrayBytes:
      return {"stray-bytes", Severity::kWarning, kRepair};
    case StoreFinding::Kind::kWrongRow:
      return {"wrong-row", Severity::kError, kRepair};
    case StoreFinding::Kind::kDamagedRow:
      return {"damaged-row", Severity::kError, kRepair};
  }
  return {"damaged-object", Severity::kError, kRepair};
}

std::string object_text(const ObjectKey& key) {
  return "object " + key.id.hex() + " of domain " + key.domain.hex();
}

}  // namespace

Check::Check(Catalog& catalog, contract::ObjectStore& store, contract::RefStore& refs,
             const CheckOptions& options)
    : catalog_(catalog),
      store_(store),
      refs_(refs),
      options_(options),
      marker_(store, options.space, [this](const ObjectKey& node, const Error& why) -> Status {
        missing(node, why.message);
        return ok_status();
      }) {
  progress_.phase = "objects";
}

void Check::found(const char* code, Severity severity, std::string what, std::string where,
                  std::string hint, bool repaired) {
  findings_.push_back(
      {code, severity, std::move(what), std::move(where), std::move(hint), repaired});
}

void Check::missing(const ObjectKey& key, const std::string& why) {
  found("incomplete-tree", Severity::kError, "a version that is kept needs it: " + why,
        object_text(key),
        "start a machine that has the version cached, or remove what needs it; see 'rdim version "
        "ls'");
}

Status Check::step_objects() {
  DIMS_ASSIGN(const contract::AuditPage page, store_.audit(after_, options_.objects_a_step,
                                                           options_.bytes_a_step, options_.repair));
  progress_.objects += page.objects;
  progress_.bytes += page.bytes;
  for (const StoreFinding& finding : page.findings) {
    const Words words = words_of(finding.kind);
    found(words.code, words.severity, finding.what, object_text(finding.key), words.hint,
          finding.mended);
  }
  after_ = page.last;
  if (after_) return ok_status();
  phase_ = Phase::kRecords;
  progress_.phase = "records";
  return check_images();
}

// What is in memory is what is stored, and every name leads to its image.
Status Check::check_images() {
  std::vector<Catalog::ImagePtr> images;
  std::lock_guard naming(catalog_.naming_mutex_);
  {
    std::shared_lock lock(catalog_.table_mutex_);
    for (const auto& [id, image] : catalog_.images_) images.push_back(image);
  }
  progress_.images = images.size();
  for (const Catalog::ImagePtr& image : images) {
    std::lock_guard lock(image->mutex);
    if (image->removed) continue;
    const std::string where = "image '" + image->record.name + "'";
    DIMS_ASSIGN(const auto row, refs_.get(image_key(image->record.id)));
    if (!row || row->revision != image->revision) {
      if (options_.repair) {
        DIMS_ASSIGN(image->revision,
                    refs_.put(image_key(image->record.id), encode_image(image->record),
                              row ? row->revision : 0));
      }
      found("image-record", Severity::kError, "its record is missing or another one", where,
            "--repair writes what the server knows; do not restart it before", options_.repair);
    }
    const std::string name = name_key(image->record.name);
    DIMS_ASSIGN(const auto named, refs_.get(name));
    const ByteView id = image->record.id.view();
    if (named && std::equal(named->value.begin(), named->value.end(), id.begin(), id.end())) {
      continue;
    }
    if (options_.repair) DIMS_TRY(refs_.put(name, id, named ? named->revision : 0));
    found("wrong-name", Severity::kError, "its name does not lead to it", where,
          "run 'rdim check --repair'", options_.repair);
  }
  return ok_status();
}

Status Check::check_name(const std::string& key, const contract::RefValue& row) {
  const auto id = ImageId::from_view(row.value);
  if (id && catalog_.live(*id).ok()) return ok_status();
  // A creation writes the name first: it holds this lock.
  std::lock_guard naming(catalog_.naming_mutex_);
  const auto again = refs_.get(key);
  if (!again.ok()) return again.error();
  if (!*again || (*again)->revision != row.revision || (id && catalog_.live(*id).ok())) {
    return ok_status();
  }
  if (options_.repair) DIMS_TRY(refs_.remove(key, row.revision));
  found("stray-name", Severity::kNote, "a name that leads to no image", key,
        "nothing depends on it", options_.repair);
  return ok_status();
}

Status Check::check_owned(const std::string& key, const contract::RefValue& row) {
  const bool session = key.starts_with("session/"), gone = key.starts_with("gone/");
  if (session && !decode_session(row.value).ok()) {
    found("damaged-record", Severity::kError, "the record of a session cannot be read", key,
          "end the session, or restore the store from its backup");
    return ok_status();
  }
  bool owned = false;
  if (gone) {
    const auto id = VersionId::from_hex_text(key.substr(5));
    DIMS_ASSIGN(const auto version, refs_.get(id ? version_key(*id) : std::string("version/")));
    owned = version.has_value();
  } else {
    const std::string text = key.substr(key.find('/') + 1, 2 * ImageId::kBytes);
    const auto id = ImageId::from_hex_text(text);
    owned = id && catalog_.live(*id).ok();
  }
  if (owned) return ok_status();
  const Status removed = options_.repair ? refs_.remove(key, row.revision) : ok_status();
  if (!removed.ok() && removed.error().code != ErrorCode::kConflict) return removed;
  found("stray-record", Severity::kNote, "a record of what is not there any more", key,
        "nothing depends on it", options_.repair);
  return ok_status();
}

Status Check::step_records() {
  if (prefix_ == kPrefixes.size()) {
    phase_ = Phase::kRoots;
    progress_.phase = "versions";
    return ok_status();
  }
  DIMS_ASSIGN(const auto rows, refs_.list(kPrefixes[prefix_], record_after_, kRowsABatch));
  for (const auto& [key, row] : rows) {
    record_after_ = key;
    DIMS_TRY(prefix_ == 0 ? check_name(key, row) : check_owned(key, row));
  }
  if (rows.size() < kRowsABatch) {
    ++prefix_;
    record_after_.clear();
  }
  return ok_status();
}

Status Check::trouble(const RootTrouble& trouble) {
  using Kind = RootTrouble::Kind;
  const std::string where = "version " + trouble.version.hex() + ", " + trouble.where;
  constexpr const char* kBackup =
      "restore the store from its backup, or remove the image; no collection runs until then";
  switch (trouble.kind) {
    case Kind::kDanglingHead:
      found("dangling-head", Severity::kError, "its record is missing", where, kBackup);
      break;
    case Kind::kMissingParent:
      found("missing-parent", Severity::kError, "the record of an older version is missing", where,
            kBackup);
      break;
    case Kind::kDamagedVersion:
      found("damaged-version", Severity::kError, "its record is damaged", where, kBackup);
      break;
    case Kind::kDroppedHead:
      found("dropped-head", Severity::kError, "it is needed and marked as let go", where, kBackup);
      break;
    case Kind::kUnknownBase:
      found("unknown-base", Severity::kWarning, "a session stands on a version that is not known",
            where, "its machine stores its unsent writes as a branch");
      break;
    case Kind::kDamagedSession:
      break;  // told as a damaged record
    case Kind::kUnlinkedVersion: {
      bool removed = false;
      if (options_.repair) {
        DIMS_ASSIGN(removed, catalog_.gate_.drop(trouble.version, [&]() -> Status {
          DIMS_ASSIGN(const auto row, refs_.get(version_key(trouble.version)));
          if (row) DIMS_TRY(refs_.remove(version_key(trouble.version), row->revision));
          return catalog_.forget_gone(trouble.version);
        }));
        if (!removed) return ok_status();  // somebody came to rely on it
      }
      found("unlinked-version", Severity::kNote, "no image leads to it", where,
            "the next collection removes it", removed);
      break;
    }
  }
  return ok_status();
}

Status Check::step_roots() {
  if (!roots_) {
    RootWalk::Options walk;
    walk.mode = RootWalk::Mode::kAll;
    walk.guard = options_.repair;
    walk.space = options_.space;
    roots_ = std::make_unique<RootWalk>(
        catalog_, walk,
        [this](const ObjectKey& root, bool strict) { return marker_.add_root(root, strict); },
        [this](const RootTrouble& what) { return trouble(what); });
  }
  DIMS_ASSIGN(const bool more, roots_->step());
  progress_.versions = roots_->figures().versions_kept;
  if (more) return ok_status();
  roots_.reset();
  phase_ = Phase::kTrees;
  progress_.phase = "trees";
  return ok_status();
}

Status Check::step_trees() {
  DIMS_ASSIGN(const bool more, marker_.step(64));
  progress_.nodes = marker_.nodes();
  if (more) return ok_status();
  marked_ = std::make_unique<KeyCursor>(marker_.marked());
  DIMS_ASSIGN(marked_at_, marked_->next());
  after_.reset();
  phase_ = Phase::kPresence;
  progress_.phase = "presence";
  return ok_status();
}

Status Check::step_presence() {
  DIMS_ASSIGN(const auto rows, store_.list_rows(after_, kRowsABatch));
  // What is marked before a row, and is not a row, is missing. Chunks only: nodes were read.
  const auto skip_to = [&](const ObjectKey* row) -> Status {
    while (marked_at_ && (row == nullptr || marked_at_->key < *row)) {
      const auto there = store_.has(std::span(&marked_at_->key, 1));
      if (!there.ok()) return there.error();
      if (!there->front() && (marked_at_->flags & Marker::kNode) == 0) {
        missing(marked_at_->key, "it is not in the store");
      }
      DIMS_ASSIGN(marked_at_, marked_->next());
    }
    return ok_status();
  };
  for (const contract::ObjectRow& row : rows) {
    after_ = row.key;
    DIMS_TRY(skip_to(&row.key));
    if (marked_at_ && marked_at_->key == row.key) {
      DIMS_ASSIGN(marked_at_, marked_->next());
      continue;
    }
    ++progress_.garbage;
    progress_.garbage_bytes += row.object_bytes;
  }
  if (rows.size() == kRowsABatch) return ok_status();
  DIMS_TRY(skip_to(nullptr));
  phase_ = Phase::kDone;
  progress_.phase = "done";
  return ok_status();
}

Result<bool> Check::step() {
  switch (phase_) {
    case Phase::kObjects:
      DIMS_TRY(step_objects());
      return true;
    case Phase::kRecords:
      DIMS_TRY(step_records());
      return true;
    case Phase::kRoots:
      DIMS_TRY(step_roots());
      return true;
    case Phase::kTrees:
      DIMS_TRY(step_trees());
      return true;
    case Phase::kPresence:
      DIMS_TRY(step_presence());
      return phase_ != Phase::kDone;
    case Phase::kDone:
      return false;
  }
  return false;
}

}  // namespace dims::catalog
