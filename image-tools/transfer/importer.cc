#include "image-tools/transfer/importer.h"

#include <thread>

#include <spdlog/spdlog.h>

#include "common/base/parse.h"
#include "common/contract/image_head.h"
#include "image-tools/transfer/lease_keeper.h"
#include "image-tools/transfer/node_prefetch.h"
#include "image-tools/transfer/stretch_reader.h"

namespace dims::transfer {
namespace {

using contract::ImageInfo;
using format::Reference;

// A commit that names missing objects is followed by another pass, which sends only what the server
// lacks.
constexpr int kPassesMax = 3;
constexpr int kCommitTriesMax = 5;

class Import {
 public:
  Import(const ImportDevices& devices, const format::KeyFile& key, const Who& who,
         const ImportOptions& options, Progress& progress)
      : remote_(devices.remote),
        source_(devices.source),
        clock_(devices.clock),
        random_(devices.random),
        key_(key),
        domain_key_(key.domain_key()),
        who_(who),
        options_(options),
        progress_(progress) {}

  Result<ImportReport> run();

 private:
  Status find_or_create();
  Result<ImageInfo> create();
  Status acquire();
  Status load_parent();
  Result<Reference> pass();
  Status commit(const Reference& root, std::vector<format::ObjectKey>& missing);
  Bytes make_record(const Reference& root);
  Result<contract::CommitAnswer> send_commit(const contract::CommitOrder& order);

  contract::Remote& remote_;
  media::Source& source_;
  Clock& clock_;
  Random& random_;
  const format::KeyFile& key_;
  const format::DomainKey domain_key_;
  const Who& who_;
  const ImportOptions& options_;
  Progress& progress_;

  GenerationId generation_;
  ImageInfo image_;
  Reference parent_root_;
  std::unique_ptr<LeaseKeeper> lease_;
  ImportReport report_;
};

Status Import::find_or_create() {
  if (!options_.new_image.is_zero()) {
    DIMS_ASSIGN(image_, create());
    return ok_status();
  }
  auto found = remote_.find_image(options_.name);
  if (!found.ok() && found.error().code != ErrorCode::kNotFound) return found.error();
  if (!found.ok()) {
    if (options_.update) {
      return make_error(ErrorCode::kNotFound, "there is no image '" + options_.name + "' to update",
                        "leave --update away to make it");
    }
    DIMS_ASSIGN(image_, create());
    return ok_status();
  }
  image_ = std::move(found).value();
  DIMS_TRY(check_key(key_, image_));
  const bool same_size = image_.image_bytes == source_.bytes();
  if (image_.head.is_zero() && !options_.update) {
    if (!same_size || image_.tree.chunk_mean_bytes != options_.chunk_mean_bytes) {
      return make_error(
          ErrorCode::kAlreadyExists,
          "an unfinished import of another disk has the name '" + options_.name + "'",
          "remove it with 'rdim image rm " + options_.name + "', or choose another name");
    }
    report_.resumed = true;
    return ok_status();
  }
  if (!options_.update) {
    return make_error(ErrorCode::kAlreadyExists, "image '" + options_.name + "' exists already",
                      "choose another name, or use --update to make a new version of it");
  }
  if (!same_size) {
    return make_error(ErrorCode::kInvalidArgument,
                      "image '" + options_.name + "' has " + std::to_string(image_.image_bytes) +
                          " bytes, the source " + std::to_string(source_.bytes()),
                      "an update keeps the size: import under another name");
  }
  return ok_status();
}

Result<ImageInfo> Import::create() {
  ImageInfo wanted;
  wanted.id = options_.new_image.is_zero() ? random_.id<ImageId>() : options_.new_image;
  wanted.name = options_.name;
  wanted.image_bytes = source_.bytes();
  wanted.tree.chunk_mean_bytes = options_.chunk_mean_bytes;
  wanted.domain = key_.domain;
  wanted.key_check = key_.key_check(wanted.id);
  return remote_.create_image(wanted);
}

// An import of this machine that was killed leaves a lease that nobody renews: its end is waited
// for, once. A lease that lives on is somebody's.
Status Import::acquire() {
  constexpr std::chrono::milliseconds kPause{200};
  std::chrono::milliseconds left{-1};
  for (;;) {
    auto lease = LeaseKeeper::acquire(remote_, image_.id, who_);
    if (lease.ok()) {
      lease_ = std::move(lease).value();
      return ok_status();
    }
    if (lease.error().code != ErrorCode::kLeaseHeld || left.count() == 0) return lease.error();
    DIMS_ASSIGN(const ImageInfo now, remote_.get_image(image_.id));
    if (now.holder && !(now.holder->machine == who_.machine)) return lease.error();
    if (left.count() < 0) {
      left = (now.holder ? now.holder->expires_in : kPause) + 2 * kPause;
      spdlog::warn("another import of this machine has or had the image; waiting {} s for its end",
                   std::chrono::ceil<std::chrono::seconds>(left).count());
    }
    if (progress_.cancel) return cancelled();
    std::this_thread::sleep_for(std::min(kPause, left));
    left -= std::min(kPause, left);
  }
}

Status Import::load_parent() {
  if (image_.head.is_zero()) return contract::check_head_number(image_, 0, key_);
  DIMS_ASSIGN(const contract::VersionInfo head, remote_.get_version(image_.id, image_.head, 0));
  DIMS_TRY(check_record(key_, image_, head));
  DIMS_ASSIGN(parent_root_, format::open_root(head.record, key_.image_key(head.record)));
  return ok_status();
}

// Reads the source once and brings the server what it lacks; returns the new tree's root.
Result<Reference> Import::pass() {
  tree::UploadOptions upload;
  upload.priority = contract::Priority::kWriteBack;
  upload.threads = options_.upload_threads;
  tree::Uploader uploader(remote_, image_.id, upload);
  PrefetchingNodes nodes(remote_, image_.id);
  const tree::TreeShape parent{image_.tree, image_.image_bytes, parent_root_};
  tree::TreeEditor editor(parent, domain_key_, nodes,
                          [&](format::SealedObject node) { return uploader.add(std::move(node)); });
  const tree::Cutter cutter(domain_key_, image_.tree.chunk_mean_bytes, options_.cut_mode);
  StretchReader reader(source_, domain_key_, cutter, uploader,
                       {options_.threads, options_.compress}, progress_);

  std::uint64_t next_page = 0;
  const std::uint64_t pages = pages_for(image_.image_bytes);
  const auto holes_until = [&](std::uint64_t page) -> Status {
    if (page > next_page) DIMS_TRY(editor.replace({next_page, page - next_page}, {}));
    next_page = page;
    return ok_status();
  };
  const Status read_all = reader.run([&](const StretchReader::Stretch& stretch) -> Status {
    DIMS_TRY(lease_->status());
    DIMS_TRY(holes_until(stretch.pages.first));
    next_page = stretch.pages.end();
    return editor.replace(stretch.pages, stretch.extents);
  });
  DIMS_TRY(read_all);
  DIMS_TRY(source_.still_whole());
  DIMS_TRY(holes_until(pages));
  DIMS_ASSIGN(const Reference root, editor.finish());
  DIMS_TRY(uploader.finish());
  progress_.disk_bytes_done = image_.image_bytes;

  const tree::UploadCounts sent = uploader.counts();
  const StretchCounts& read = reader.counts();
  report_.read_bytes = read.read_bytes;
  report_.data_bytes = read.data_bytes;
  report_.chunks = read.chunks;
  report_.sealed_bytes = read.sealed_bytes;
  report_.repeated_objects = sent.repeated;
  report_.present_objects = sent.present;
  report_.new_chunks += sent.sent - sent.sent_nodes;
  report_.new_chunk_bytes += sent.sent_bytes - sent.sent_node_bytes;
  report_.new_nodes += sent.sent_nodes;
  report_.new_node_bytes += sent.sent_node_bytes;
  return root;
}

Bytes Import::make_record(const Reference& root) {
  format::VersionRecord record;
  record.org = key_.org;
  record.parent = image_.head;
  record.image = image_.id;
  record.root = root.object_key();
  record.image_bytes = image_.image_bytes;
  record.tree = image_.tree;
  record.generation = generation_;
  record.sequence = image_.head_sequence + 1;
  record.domain_epoch = domain_key_.epoch();
  record.image_epoch = key_.image_epoch();
  record.time_unix_ns = static_cast<std::uint64_t>(clock_.wall().count());
  record.machine = key_.machine_of_record(who_.machine);
  format::seal_root_key(record, key_.image_key(image_.id), root.key, random_);
  return format::encode_version(record, key_.signing);
}

// The same record again is the same commit, so a lost answer is asked for anew.
Result<contract::CommitAnswer> Import::send_commit(const contract::CommitOrder& order) {
  for (int attempt = 1;; ++attempt) {
    auto answer = remote_.commit(order);
    if (answer.ok() || answer.error().code != ErrorCode::kUnavailable ||
        attempt == kCommitTriesMax || progress_.cancel) {
      return answer;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50 << attempt));
  }
}

Status Import::commit(const Reference& root, std::vector<format::ObjectKey>& missing) {
  if (progress_.cancel) return cancelled();
  contract::CommitOrder order;
  order.image = image_.id;
  order.lease = lease_->grant().lease;
  order.token = lease_->grant().token;
  order.parent = image_.head;
  order.record = make_record(root);
  DIMS_ASSIGN(contract::CommitAnswer answer, send_commit(order));
  missing = std::move(answer.missing);
  if (!missing.empty()) return ok_status();
  report_.version = format::version_id(order.record);
  report_.sequence = image_.head_sequence + 1;
  if (!(answer.version == report_.version)) {
    return make_error(ErrorCode::kInternal, "the server made version " +
                                                answer.version.short_hex() + " of our " +
                                                report_.version.short_hex());
  }
  return ok_status();
}

Result<ImportReport> Import::run() {
  const auto started = clock_.boottime();
  if (source_.bytes() == 0) {
    return make_error(ErrorCode::kInvalidArgument, "the source is empty",
                      "give a disk of at least one byte");
  }
  if (source_.bytes() > kMaxImageBytes) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the source is larger than " + format_size(kMaxImageBytes));
  }
  progress_.disk_bytes = source_.bytes();
  DIMS_ASSIGN(const contract::ServerInfo server, remote_.hello());
  generation_ = server.generation;
  DIMS_TRY(find_or_create());
  DIMS_TRY(acquire());
  // Under the lease the head stands still; it may have moved before.
  DIMS_ASSIGN(const ImageInfo now, remote_.get_image(image_.id));
  if (!(now.head == image_.head) && !options_.update) {
    return make_error(ErrorCode::kConflict,
                      "another import of '" + options_.name + "' has just ended",
                      "use --update to make a new version of it");
  }
  image_ = now;
  DIMS_TRY(load_parent());
  report_.image = image_.id;
  report_.image_bytes = image_.image_bytes;
  const auto seconds = [&] {
    return std::chrono::duration<double>(clock_.boottime() - started).count();
  };
  for (int round = 1;; ++round) {
    DIMS_ASSIGN(const Reference root, pass());
    if (!image_.head.is_zero() && root == parent_root_) {
      report_.unchanged = true;
      report_.version = image_.head;
      report_.sequence = image_.head_sequence;
      break;
    }
    std::vector<format::ObjectKey> missing;
    DIMS_TRY(commit(root, missing));
    if (missing.empty()) break;
    if (round == kPassesMax) {
      return make_error(ErrorCode::kMissingObjects,
                        "the server still lacks " + std::to_string(missing.size()) +
                            " objects, the first is " + missing.front().id.hex(),
                        "its store may be damaged; see the server's log");
    }
  }
  report_.seconds = seconds();
  return report_;
}

}  // namespace

Status check_key(const format::KeyFile& key, const contract::ImageInfo& image) {
  if (key.key_check(image.id) == image.key_check) return ok_status();
  return make_error(ErrorCode::kWrongKey,
                    "image '" + image.name + "' was made with another key file",
                    "use the key file that it was imported with");
}

Status check_record(const format::KeyFile& key, const contract::ImageInfo& image,
                    const contract::VersionInfo& version) {
  const auto refuse = [&](const std::string& what) {
    return make_error(
        ErrorCode::kCorrupt,
        "version " + std::to_string(version.record.sequence) + " of '" + image.name + "' " + what,
        "do not use it; ask whoever runs the server");
  };
  if (!(version.record.image == image.id)) return refuse("belongs to another image");
  if (version.record.image_bytes != image.image_bytes || !(version.record.tree == image.tree))
    return refuse("has another size or tree than the server says of the image");
  if (version.id == image.head && version.record.sequence != image.head_sequence)
    return refuse("has another number than the server says of the head");
  if (version.id == image.head)
    DIMS_TRY(contract::check_head_number(image, version.record.sequence, key));
  // An import would seal the disk for whoever has the keys of the domain that the server names.
  const bool sealed_here =
      version.record.root.id.is_zero() || version.record.root.domain == image.domain;
  if (!sealed_here || !(image.domain == key.domain))
    return refuse("is of another domain than the server says");
  if (key.member) return key.check_signer(version.record);
  if (!key.check_signer(version.record).ok()) {
    return refuse("is signed by " + version.record.signer.short_hex() +
                  ", not by the owner of the key file");
  }
  return ok_status();
}

Result<ImportReport> import_image(const ImportDevices& devices, const format::KeyFile& key,
                                  const Who& who, const ImportOptions& options,
                                  Progress& progress) {
  return Import(devices, key, who, options, progress).run();
}

}  // namespace dims::transfer
