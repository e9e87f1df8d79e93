#include "image-tools/transfer/resolver.h"

#include <memory>

#include "image-tools/transfer/importer.h"
#include "image-tools/transfer/lease_keeper.h"

namespace dims::transfer {
namespace {

struct Side {
  contract::ImageInfo image;
  std::unique_ptr<LeaseKeeper> lease;
  contract::VersionInfo head;
  format::Reference root;
};

class Resolve {
 public:
  Resolve(contract::Remote& remote, const format::KeyFile& key, const Who& who, Clock& clock,
          Random& random)
      : remote_(remote), key_(key), who_(who), clock_(clock), random_(random) {}

  Result<ResolveReport> run(const std::string& name, const std::string& keep) {
    DIMS_TRY(find_sides(name, keep));
    DIMS_ASSIGN(const contract::ServerInfo server, remote_.hello());
    generation_ = server.generation;
    ResolveReport report;
    report.kept = keep;
    const Side& kept = sides_[kept_];
    // The image's own content is a version already, and so is what a branch that has no commit of
    // its own began as.
    for (std::size_t i = 1; i < sides_.size(); ++i) {
      if (i == kept_) continue;
      DIMS_TRY(commit(sides_[i]));
      report.put_aside.push_back({sides_[i].image.name, sides_[0].image.head_sequence});
    }
    if (kept_ != 0) report.put_aside.push_back({name, sides_[0].head.record.sequence});
    DIMS_TRY(commit(kept));
    report.version = sides_[0].image.head;
    report.sequence = sides_[0].image.head_sequence;
    for (std::size_t i = 1; i < sides_.size(); ++i) {
      // Under its lease, and with the content that was put aside: its machine may be back.
      contract::ImageRemoval removal(sides_[i].image.id);
      removal.head = sides_[i].image.head;
      removal.lease = sides_[i].lease->grant().lease;
      removal.token = sides_[i].lease->grant().token;
      DIMS_TRY(remote_.remove_image(removal));
      report.removed.push_back(sides_[i].image.name);
    }
    return report;
  }

 private:
  // The image first, then its branches, all under a lease.
  Status find_sides(const std::string& name, const std::string& keep) {
    DIMS_ASSIGN(const contract::ImageInfo image, remote_.find_image(name));
    DIMS_ASSIGN(const std::vector<contract::ImageInfo> all, remote_.list_images());
    sides_.push_back({image, nullptr, {}, {}});
    bool found = keep == name;
    for (const contract::ImageInfo& other : all) {
      if (other.conflict_of != name) continue;
      if (other.name == keep) {
        kept_ = sides_.size();
        found = true;
      }
      sides_.push_back({other, nullptr, {}, {}});
    }
    if (sides_.size() == 1) {
      return make_error(ErrorCode::kNotFound, "image '" + name + "' has no conflict branch",
                        "see 'rdim image ls'");
    }
    if (!found) {
      return make_error(ErrorCode::kNotFound,
                        "'" + keep + "' is neither '" + name + "' nor a conflict branch of it",
                        "see 'rdim image ls' for the branches");
    }
    for (Side& side : sides_) {
      DIMS_TRY(check_key(key_, side.image));
      auto lease = LeaseKeeper::acquire(remote_, side.image.id, who_);
      if (!lease.ok()) return lease.error();
      side.lease = std::move(lease).value();
      // Under the lease the head stands still.
      DIMS_ASSIGN(side.image, remote_.get_image(side.image.id));
      DIMS_ASSIGN(side.head, remote_.get_version(side.image.id, side.image.head, 0));
      if (!key_.check_signer(side.head.record).ok()) {
        return make_error(ErrorCode::kCorrupt,
                          "the newest version of '" + side.image.name +
                              "' is not signed by the owner of the key file",
                          "do not use it; ask whoever runs the server");
      }
      // A branch without a version of its own shows that of the image which it branched from.
      if (!(side.image.head == side.image.origin))
        DIMS_TRY(check_record(key_, side.image, side.head));
      DIMS_ASSIGN(side.root, format::open_root(side.head.record, key_.image_key(side.head.record)));
    }
    return ok_status();
  }

  // One more version of the image, with that side's content.
  Status commit(const Side& side) {
    contract::ImageInfo& image = sides_[0].image;
    format::VersionRecord record;
    record.org = key_.org;
    record.parent = image.head;
    record.image = image.id;
    record.root = side.root.object_key();
    record.image_bytes = image.image_bytes;
    record.tree = image.tree;
    record.generation = generation_;
    record.sequence = image.head_sequence + 1;
    record.domain_epoch = side.head.record.domain_epoch;
    record.image_epoch = key_.image_epoch();
    record.time_unix_ns = static_cast<std::uint64_t>(clock_.wall().count());
    record.machine = key_.machine_of_record(who_.machine);
    format::seal_root_key(record, key_.image_key(image.id), side.root.key, random_);
    contract::CommitOrder order;
    order.image = image.id;
    order.lease = sides_[0].lease->grant().lease;
    order.token = sides_[0].lease->grant().token;
    order.parent = image.head;
    order.record = format::encode_version(record, key_.signing);
    DIMS_ASSIGN(const contract::CommitAnswer answer, remote_.commit(order));
    if (!answer.missing.empty()) {
      return make_error(ErrorCode::kMissingObjects,
                        "the server lacks " + std::to_string(answer.missing.size()) +
                            " objects of '" + side.image.name + "'",
                        "run 'rdim check'");
    }
    image.head = answer.version;
    image.head_sequence = record.sequence;
    return ok_status();
  }

  contract::Remote& remote_;
  const format::KeyFile& key_;
  const Who& who_;
  Clock& clock_;
  Random& random_;
  GenerationId generation_;
  std::vector<Side> sides_;
  std::size_t kept_ = 0;
};

}  // namespace

Result<ResolveReport> resolve_conflict(contract::Remote& remote, const format::KeyFile& key,
                                       const Who& who, Clock& clock, Random& random,
                                       const std::string& name, const std::string& keep) {
  return Resolve(remote, key, who, clock, random).run(name, keep);
}

}  // namespace dims::transfer
