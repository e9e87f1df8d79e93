#include "image-tools/transfer/exporter.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "common/tree/node_source.h"
#include "image-tools/transfer/importer.h"

namespace dims::transfer {
namespace {

using format::Leaf;
using format::Reference;

constexpr std::uint64_t kGroupPages = 4 * kMiB / kPageBytes;
constexpr int kFetchTriesMax = 3;

struct PlacedLeaf {
  std::uint64_t first_page = 0;
  Leaf leaf;
};

// Leaves next to each other on the disk; what is between and after them, up to `end_page`, is
// zeros.
struct Group {
  std::uint64_t number = 0;
  std::uint64_t from_page = 0;
  std::uint64_t end_page = 0;
  std::vector<PlacedLeaf> leaves;
};

class Export {
 public:
  Export(contract::Remote& remote, const ImageId& image, const tree::TreeShape& shape,
         media::Target& target, const ExportOptions& options, Progress& progress)
      : remote_(remote),
        image_(image),
        shape_(shape),
        pages_(pages_for(shape.image_bytes)),
        target_(target),
        options_(options),
        progress_(progress) {}

  Status run();
  ExportReport report() const {
    return {shape_.image_bytes, data_bytes_.load(), chunks_.load(), fetched_bytes_.load(), 0};
  }

 private:
  Status walk();
  Status give(Group group);
  void work();
  Status copy(const Group& group, Bytes& buffer);
  Status fetch(const Group& group, Bytes& buffer, std::vector<bool>& mapped);
  Status write(const Group& group, const Bytes& buffer, const std::vector<bool>& mapped);
  void fail(const Error& error);

  contract::Remote& remote_;
  const ImageId image_;
  const tree::TreeShape shape_;
  const std::uint64_t pages_;
  media::Target& target_;
  const ExportOptions options_;
  Progress& progress_;
  std::atomic<std::uint64_t> data_bytes_{0}, chunks_{0}, fetched_bytes_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Group> queue_;
  bool walked_ = false;
  std::uint64_t written_ = 0;  // groups, for targets that want order
  std::optional<Error> failure_;
};

void Export::fail(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = error;
  }
  changed_.notify_all();
}

Status Export::run() {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1U, options_.threads); ++i)
    threads.emplace_back([this] { work(); });
  const Status walked = walk();
  if (!walked.ok()) fail(walked.error());
  {
    const std::lock_guard lock(mutex_);
    walked_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads) thread.join();
  if (failure_) return *failure_;
  return ok_status();
}

// Makes groups that follow each other without gaps, so that every page of the disk is in exactly
// one.
Status Export::walk() {
  tree::RemoteNodeSource nodes(remote_, image_, contract::Priority::kPrefetch);
  Group group;
  const auto close = [&](std::uint64_t end_page) -> Status {
    if (end_page == group.from_page) return ok_status();
    group.end_page = end_page;
    Group next;
    next.number = group.number + 1;
    next.from_page = end_page;
    DIMS_TRY(give(std::move(group)));
    group = std::move(next);
    return ok_status();
  };
  const auto on_leaf = [&](std::uint64_t first_page, const Reference&, Leaf leaf) -> Status {
    const std::uint64_t leaf_end = std::min(first_page + shape_.parameters.leaf_pages, pages_);
    const bool fits =
        !group.leaves.empty() && leaf_end - group.leaves.front().first_page <= kGroupPages;
    if (!fits) DIMS_TRY(close(first_page));
    group.leaves.push_back({first_page, std::move(leaf)});
    return ok_status();
  };
  DIMS_TRY(tree::visit_leaves(shape_, {0, pages_}, nodes, on_leaf));
  return close(pages_);
}

Status Export::give(Group group) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failure_ || queue_.size() < 2 * options_.threads; });
  if (failure_) return *failure_;
  queue_.push_back(std::move(group));
  lock.unlock();
  changed_.notify_all();
  return ok_status();
}

void Export::work() {
  Bytes buffer;
  for (;;) {
    Group group;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return failure_ || walked_ || !queue_.empty(); });
      if (failure_ || queue_.empty()) return;
      group = std::move(queue_.front());
      queue_.pop_front();
    }
    changed_.notify_all();
    if (progress_.cancel) return fail(cancelled());
    const Status status = copy(group, buffer);
    if (!status.ok()) return fail(status.error());
    progress_.disk_bytes_done += (group.end_page - group.from_page) * kPageBytes;
  }
}

Status Export::copy(const Group& group, Bytes& buffer) {
  std::vector<bool> mapped;
  if (!group.leaves.empty()) DIMS_TRY(fetch(group, buffer, mapped));
  if (target_.in_order()) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failure_ || written_ == group.number; });
    if (failure_) return *failure_;
  }
  DIMS_TRY(write(group, buffer, mapped));
  if (target_.in_order()) {
    {
      const std::lock_guard lock(mutex_);
      ++written_;
    }
    changed_.notify_all();
  }
  return ok_status();
}

// Fills buffer with the pages from the first leaf on, and marks those that hold something.
Status Export::fetch(const Group& group, Bytes& buffer, std::vector<bool>& mapped) {
  struct Place {
    std::uint64_t page;  // in the buffer
    std::uint16_t count;
    std::uint16_t first_in_chunk;
  };
  std::unordered_map<ObjectId, std::size_t, IdHash> index;
  std::vector<Reference> refs;
  std::vector<std::vector<Place>> places;
  const std::uint64_t first = group.leaves.front().first_page;
  const std::uint64_t count = group.leaves.back().first_page + shape_.parameters.leaf_pages - first;
  mapped.assign(static_cast<std::size_t>(count), false);
  buffer.resize(static_cast<std::size_t>(count * kPageBytes));
  for (const PlacedLeaf& placed : group.leaves) {
    for (const format::Extent& e : placed.leaf.extents) {
      const auto [at, fresh] = index.try_emplace(e.ref.id, refs.size());
      if (fresh) {
        refs.push_back(e.ref);
        places.emplace_back();
      }
      places[at->second].push_back(
          {placed.first_page - first + e.first_page, e.page_count, e.first_in_chunk});
    }
  }
  const auto place_chunk = [&](std::size_t i, ByteView object) -> Status {
    DIMS_ASSIGN(const Bytes chunk, format::open_object(refs[i], object, /*verify_id=*/false));
    for (const Place& place : places[i]) {
      const std::size_t from = place.first_in_chunk * kPageBytes;
      const std::size_t bytes = place.count * kPageBytes;
      if (from + bytes > chunk.size()) {
        return make_error(ErrorCode::kCorrupt,
                          "chunk " + refs[i].id.short_hex() + " is shorter than its leaf says");
      }
      std::memcpy(buffer.data() + place.page * kPageBytes, chunk.data() + from, bytes);
      std::fill_n(mapped.begin() + static_cast<std::ptrdiff_t>(place.page), place.count, true);
    }
    ++chunks_;
    fetched_bytes_ += object.size();
    return ok_status();
  };
  std::vector<std::size_t> wanted(refs.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] = i;
  for (int attempt = 1; !wanted.empty(); ++attempt) {
    std::vector<format::ObjectKey> keys;
    for (const std::size_t i : wanted) keys.push_back(refs[i].object_key());
    std::vector<std::size_t> again;
    std::optional<Error> problem;
    DIMS_TRY(remote_.get(
        image_, keys, contract::Priority::kPrefetch, [&](std::size_t i, Result<Bytes> object) {
          const Status status =
              object.ok() ? place_chunk(wanted[i], *object) : Status(object.error());
          if (status.ok()) return;
          again.push_back(wanted[i]);
          problem = status.error();
        }));
    if (problem && (problem->code != ErrorCode::kCorrupt || attempt == kFetchTriesMax)) {
      return problem->with_context("chunk " + refs[again.back()].id.hex());
    }
    wanted = std::move(again);
  }
  return ok_status();
}

Status Export::write(const Group& group, const Bytes& buffer, const std::vector<bool>& mapped) {
  const std::uint64_t first =
      group.leaves.empty() ? group.end_page : group.leaves.front().first_page;
  const bool zeros_too = target_.in_order() || !target_.starts_zeroed();
  const auto put = [&](std::uint64_t page, std::uint64_t end, bool data) -> Status {
    const std::uint64_t offset = page * kPageBytes;
    const std::uint64_t bytes = std::min(end * kPageBytes, shape_.image_bytes) - offset;
    if (!data) return zeros_too ? target_.zero_at({offset, bytes}) : ok_status();
    data_bytes_ += bytes;
    progress_.data_bytes += bytes;
    return target_.write_at(offset, ByteView(buffer).subspan((page - first) * kPageBytes, bytes));
  };
  if (first > group.from_page) DIMS_TRY(put(group.from_page, first, false));
  for (std::uint64_t page = first; page < group.end_page;) {
    const auto is_data = [&](std::uint64_t p) {
      return p - first < mapped.size() && mapped[p - first];
    };
    const bool data = is_data(page);
    std::uint64_t end = page + 1;
    while (end < group.end_page && is_data(end) == data) ++end;
    DIMS_TRY(put(page, end, data));
    page = end;
  }
  return ok_status();
}

// That an older version is one that the head came from. Of one person's versions his signature says
// enough; in an organisation a session of a former member may have signed one that never was.
Status check_in_history(contract::Remote& remote, const format::KeyFile& key, const ImageId& id,
                        const contract::VersionInfo& version) {
  constexpr std::uint64_t kNewer = 16;  // the head may move on while it is asked for
  DIMS_ASSIGN(const contract::ImageInfo image, remote.get_image(id));
  if (!key.member || version.id == image.head) return check_record(key, image, version);
  DIMS_ASSIGN(const contract::VersionInfo head, remote.get_version(id, image.head, 0));
  DIMS_TRY(check_record(key, image, head));
  const auto refuse = [&] {
    return make_error(ErrorCode::kUntrusted,
                      "version " + std::to_string(version.record.sequence) + " of '" + image.name +
                          "' is none that its newest version came from",
                      "do not use it; ask whoever runs the server");
  };
  if (version.record.sequence >= head.record.sequence) return refuse();
  const std::uint64_t steps = head.record.sequence - version.record.sequence + kNewer;
  const auto limit = steps > UINT32_MAX ? 0 : static_cast<std::uint32_t>(steps);
  DIMS_ASSIGN(const std::vector<contract::VersionInfo> all, remote.list_versions(id, limit));
  VersionId next = head.id;
  for (const contract::VersionInfo& listed : all) {
    if (!(listed.id == next)) {
      if (next == head.id) continue;
      break;
    }
    next = listed.record.parent;
    if (next == version.id) return ok_status();
  }
  return refuse();
}

}  // namespace

Result<ExportReport> export_version(contract::Remote& remote, const format::KeyFile& key,
                                    const contract::ImageInfo& image,
                                    const contract::VersionInfo& version, media::Target& target,
                                    const ExportOptions& options, Progress& progress) {
  const auto started = std::chrono::steady_clock::now();
  DIMS_TRY(check_key(key, image));
  DIMS_TRY(check_record(key, image, version));
  DIMS_TRY(check_in_history(remote, key, image.id, version));
  DIMS_ASSIGN(const Reference root,
              format::open_root(version.record, key.image_key(version.record)));
  progress.disk_bytes = version.record.image_bytes;
  Export run(remote, image.id, {version.record.tree, version.record.image_bytes, root}, target,
             options, progress);
  DIMS_TRY(run.run());
  if (progress.cancel) return cancelled();
  DIMS_TRY(target.finish());
  ExportReport report = run.report();
  report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return report;
}

Result<contract::VersionInfo> find_version(contract::Remote& remote,
                                           const contract::ImageInfo& image,
                                           const std::string& text) {
  const bool digits = !text.empty() && text.size() <= 9 &&
                      text.find_first_not_of("0123456789") == std::string::npos;
  const auto none = [&] {
    return make_error(ErrorCode::kNotFound, "image '" + image.name + "' has no version " + text,
                      "see 'rdim version ls " + image.name + "'");
  };
  if (image.head.is_zero()) {
    return make_error(ErrorCode::kNotFound, "image '" + image.name + "' has no version yet",
                      "its import did not end: run it again");
  }
  if (text.empty()) return remote.get_version(image.id, image.head, 0);
  if (digits) {
    const std::uint64_t sequence = std::stoull(text);
    if (sequence == 0) return none();
    return remote.get_version(image.id, {}, sequence);
  }
  if (text.size() == 2 * VersionId::kBytes) {
    const auto id = VersionId::from_hex_text(text);
    if (!id) return none();
    return remote.get_version(image.id, *id, 0);
  }
  DIMS_ASSIGN(const std::vector<contract::VersionInfo> all, remote.list_versions(image.id, 0));
  const contract::VersionInfo* found = nullptr;
  for (const contract::VersionInfo& version : all) {
    if (!version.id.hex().starts_with(text)) continue;
    if (found != nullptr) {
      return make_error(ErrorCode::kInvalidArgument,
                        "several versions of '" + image.name + "' start with " + text,
                        "give more digits");
    }
    found = &version;
  }
  if (found == nullptr) return none();
  return *found;
}

}  // namespace dims::transfer
