// Targets behind NBD: an export of somebody else's, or a file of another format through a qemu-nbd
// of our own.
#include <algorithm>

#include "image-tools/media/nbd_pool.h"
#include "image-tools/media/process.h"
#include "image-tools/media/target.h"

namespace dims::media {
namespace {

// Formats of other programs count sectors.
constexpr std::uint64_t kSectorBytes = 512;

class NbdTarget : public Target {
 public:
  NbdTarget(std::unique_ptr<NbdPool> pool, bool zeroed) : pool_(std::move(pool)), zeroed_(zeroed) {}
  bool starts_zeroed() const override { return zeroed_; }
  Status write_at(std::uint64_t offset, ByteView data) override {
    const std::uint64_t whole = data.size() / pool_->alignment() * pool_->alignment();
    DIMS_TRY(pool_->write_at(offset, data.first(static_cast<std::size_t>(whole))));
    if (whole == data.size()) return ok_status();
    // The last piece of an image of odd size: the rest of the block is beyond the image.
    Bytes block(static_cast<std::size_t>(pool_->alignment()), 0);
    std::copy(data.begin() + static_cast<std::ptrdiff_t>(whole), data.end(), block.begin());
    return pool_->write_at(offset + whole, block);
  }
  Status zero_at(ByteRange range) override {
    range.count =
        std::min(round_up(range.count, pool_->alignment()), pool_->bytes() - range.offset);
    return pool_->zero_at(range);
  }
  Status finish() override { return pool_->flush(); }

 private:
  std::unique_ptr<NbdPool> pool_;
  bool zeroed_;
};

class QemuTarget : public Target {
 public:
  QemuTarget(PendingFile file, std::unique_ptr<NbdChild> child, std::unique_ptr<NbdTarget> disk)
      : file_(std::move(file)), child_(std::move(child)), disk_(std::move(disk)) {}
  bool starts_zeroed() const override { return true; }
  Status write_at(std::uint64_t offset, ByteView data) override {
    return disk_->write_at(offset, data);
  }
  Status zero_at(ByteRange) override { return ok_status(); }
  Status finish() override {
    DIMS_TRY(disk_->finish());
    disk_.reset();
    DIMS_TRY(child_->stop());  // it writes the format's own tables at the end
    return file_.publish();
  }

 private:
  PendingFile file_;
  std::unique_ptr<NbdChild> child_;
  std::unique_ptr<NbdTarget> disk_;
};

Error too_small(const std::string& what, std::uint64_t has, std::uint64_t needs) {
  return make_error(
      ErrorCode::kNoSpace,
      what + " has " + std::to_string(has) + " bytes, the image " + std::to_string(needs),
      "use a larger target");
}

}  // namespace

Result<std::unique_ptr<Target>> open_nbd_target(const std::string& uri,
                                                const TargetOptions& options) {
  DIMS_ASSIGN(auto pool, NbdPool::connect_uri(uri, {options.connections, true}));
  if (pool->bytes() < options.image_bytes)
    return too_small(uri, pool->bytes(), options.image_bytes);
  return std::unique_ptr<Target>(std::make_unique<NbdTarget>(std::move(pool), false));
}

Result<std::unique_ptr<Target>> open_qemu_target(const std::string& path,
                                                 const TargetOptions& options) {
  DIMS_ASSIGN(PendingFile file, PendingFile::reserve(path, options.force, true));
  const std::uint64_t bytes = round_up(options.image_bytes, kSectorBytes);
  const std::string name = qemu_path(file.temporary());
  std::vector<std::string> create = {"qemu-img", "create", "-q", "-f", options.format};
  // Without it the size is rounded up to what cylinders, heads and sectors can say.
  if (options.format == "vpc") create.insert(create.end(), {"-o", "force_size=on"});
  create.insert(create.end(), {"--", name, std::to_string(bytes)});
  DIMS_ASSIGN(const Output made, run(create));
  if (made.exit_code != 0) {
    return make_error(
        ErrorCode::kIo,
        "qemu-img cannot make " + path + ": " + made.err.substr(0, made.err.find('\n')),
        "see 'qemu-img create --help' for the formats");
  }
  DIMS_ASSIGN(auto child,
              NbdChild::start({"qemu-nbd", "--format=" + options.format, "--cache=writeback",
                               "--discard=unmap",
                               "--shared=" + std::to_string(options.connections + 1), "--", name}));
  auto pool = NbdPool::connect_socket(child->socket_path(), {options.connections, true}, path);
  if (!pool.ok()) return child->explain(pool.error());
  if ((*pool)->bytes() < options.image_bytes)
    return too_small(path, (*pool)->bytes(), options.image_bytes);
  auto disk = std::make_unique<NbdTarget>(std::move(pool).value(), true);
  return std::unique_ptr<Target>(
      std::make_unique<QemuTarget>(std::move(file), std::move(child), std::move(disk)));
}

}  // namespace dims::media
