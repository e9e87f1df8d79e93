#include <algorithm>

#include "rdim-server/catalog/catalog.h"

namespace dims::catalog {
namespace {

using contract::CommitAnswer;
using format::VersionRecord;

std::string text_of(const VersionId& id) { return id.is_zero() ? "none" : id.short_hex(); }

Error bad_record(const ImageRecord& image, const std::string& what) {
  return make_error(ErrorCode::kInvalidArgument,
                    "the version record does not fit image '" + image.name + "': " + what);
}

void note_commit(ImageRecord& image, const VersionRecord& record, const VersionId& id) {
  image.head = id;
  image.head_sequence = record.sequence;
  if (record.commit.journal.is_zero()) return;
  std::erase_if(image.journals, [&](const JournalRecord& journal) {
    return journal.newest.journal == record.commit.journal;
  });
  image.journals.push_back({record.commit, id, record.sequence});
  if (image.journals.size() > kJournalsMax) image.journals.erase(image.journals.begin());
}

}  // namespace

std::optional<Result<CommitAnswer>> Catalog::answer_again(const ImageRecord& image,
                                                          const VersionRecord& record,
                                                          const VersionId& id) {
  if (record.commit.journal.is_zero()) {
    // Not from a journal: only the very same record is the same commit.
    if (!(image.head == id)) return std::nullopt;
    return Result<CommitAnswer>(CommitAnswer{id, image.head_sequence, true, {}});
  }
  const auto found =
      std::find_if(image.journals.begin(), image.journals.end(), [&](const JournalRecord& journal) {
        return journal.newest.journal == record.commit.journal;
      });
  if (found == image.journals.end()) return std::nullopt;
  if (found->newest == record.commit) {
    return Result<CommitAnswer>(CommitAnswer{found->version, found->sequence, true, {}});
  }
  if (record.commit.epoch > found->newest.epoch) return std::nullopt;
  return Result<CommitAnswer>(make_error(
      ErrorCode::kOtherHistory,
      "image '" + image.name + "' has epoch " + std::to_string(found->newest.epoch) +
          " of this journal, and epoch " + std::to_string(record.commit.epoch) + " is another one",
      "the journal is a restored copy: store its unsent writes as a branch"));
}

Status Catalog::check_parent(const LiveImage& image, const VersionId& parent) {
  // The head of a branch without a commit of its own is its origin.
  if (parent == image.record.head) return ok_status();
  return make_error(ErrorCode::kConflict,
                    "the head of image '" + image.record.name + "' is version " +
                        text_of(image.record.head) + " (sequence " +
                        std::to_string(image.record.head_sequence) + "), not " + text_of(parent),
                    "store the writes as a branch, or start again from the head");
}

Status Catalog::check_record(const ImageRecord& image, const contract::CommitOrder& order,
                             const VersionRecord& record) {
  if (!(record.image == image.id)) return bad_record(image, "it is of another image");
  if (!(record.parent == order.parent)) return bad_record(image, "it has another parent");
  if (record.image_bytes != image.image_bytes) return bad_record(image, "it has another size");
  if (!(record.tree == image.tree)) return bad_record(image, "it has other tree parameters");
  if (record.sequence != image.head_sequence + 1) {
    return bad_record(image, "its sequence number is " + std::to_string(record.sequence) +
                                 " after " + std::to_string(image.head_sequence));
  }
  return ok_status();
}

Result<CommitAnswer> Catalog::commit(const contract::CommitOrder& order) {
  DIMS_ASSIGN(const VersionRecord record, format::decode_version(order.record));
  const VersionId id = format::version_id(order.record);
  DIMS_ASSIGN(const ImagePtr image, live(order.image));
  // A collection knows of it from before the first look at the store until the answer.
  const VersionGate::Flight flight(gate_, id, record.root);
  ImageRecord seen;
  {
    std::lock_guard lock(image->mutex);
    if (auto again = answer_again(image->record, record, id)) return *again;
    DIMS_TRY(check_lease(*image, order.lease, order.token, false));
    DIMS_TRY(check_parent(*image, order.parent));
    DIMS_TRY(check_record(image->record, order, record));
    seen = image->record;
  }
  // The walk may take long: the image is free meanwhile, and everything is checked again below. A
  // refusal is rare, so the disk may begin to write.
  objects_.expect_barrier();
  DIMS_ASSIGN(const ObjectKey old_root, root_of(seen.head));
  DIMS_ASSIGN(Presence presence,
              check_presence(objects_, old_root, record.root, options_.missing_max,
                             [&](const DomainId& domain) { return may_use_domain(seen, domain); }));
  if (presence.foreign_domain) {
    return make_error(ErrorCode::kPermissionDenied,
                      "the version names objects of the domain " +
                          presence.foreign_domain->short_hex() + ", which is not image '" +
                          seen.name + "'s",
                      "send the objects sealed for the image's own domain");
  }
  if (!presence.missing.empty()) {
    CommitAnswer answer;
    answer.missing = std::move(presence.missing);
    return answer;
  }
  DIMS_TRY(objects_.barrier());
  DIMS_TRY(store_version(id, order.record));

  std::unique_lock lock(image->mutex);
  if (image->removed) return make_error(ErrorCode::kNotFound, "the image was removed");
  if (auto again = answer_again(image->record, record, id)) return *again;
  // It was current when the commit came; what matters now is that nobody has taken it.
  DIMS_TRY(check_lease(*image, order.lease, order.token, true));
  DIMS_TRY(check_parent(*image, order.parent));
  // It may have been let go once; its tree is whole again, and a head that is marked as gone would
  // stop every collection.
  DIMS_TRY(forget_gone(id));
  ImageRecord next = image->record;
  note_commit(next, record, id);
  DIMS_TRY(save(*image, std::move(next)));

  contract::ServerEvent event;
  event.kind = contract::ServerEvent::Kind::kNewVersion;
  event.image = order.image;
  event.version = id;
  event.sequence = record.sequence;
  event.who = holder_of(*image);
  events_.announce(event);
  const std::string conflict_of = image->record.conflict_of;
  const MachineId machine = image->record.lease.machine;
  lock.unlock();
  if (!conflict_of.empty()) note_branch_commit(conflict_of, machine);
  return CommitAnswer{id, record.sequence, false, {}};
}

}  // namespace dims::catalog
