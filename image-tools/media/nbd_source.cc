// Sources behind NBD: an export of somebody else's, or a qemu-nbd of our own for formats other than
// raw.
#include "image-tools/media/nbd_pool.h"
#include "image-tools/media/process.h"
#include "image-tools/media/source.h"

namespace dims::media {
namespace {

class NbdSource : public Source {
 public:
  NbdSource(std::unique_ptr<NbdChild> child, std::unique_ptr<NbdPool> pool, std::string description)
      : child_(std::move(child)), pool_(std::move(pool)), description_(std::move(description)) {}

  std::uint64_t bytes() const override { return pool_->bytes(); }
  const std::string& description() const override { return description_; }
  Status read_at(std::uint64_t offset, MutByteView out) override {
    return pool_->read_at(offset, out);
  }
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override {
    return pool_->next_data(from);
  }

 private:
  std::unique_ptr<NbdChild> child_;  // ends after the connections to it
  std::unique_ptr<NbdPool> pool_;
  std::string description_;
};

}  // namespace

Result<std::unique_ptr<Source>> open_nbd_source(const std::string& uri, unsigned connections) {
  DIMS_ASSIGN(auto pool, NbdPool::connect_uri(uri, {connections, false}));
  return std::unique_ptr<Source>(
      std::make_unique<NbdSource>(nullptr, std::move(pool), "NBD export"));
}

Result<std::unique_ptr<Source>> open_qemu_source(const std::string& path, const std::string& format,
                                                 unsigned connections) {
  DIMS_ASSIGN(auto child, NbdChild::start({"qemu-nbd", "--read-only", "--format=" + format,
                                           "--shared=" + std::to_string(connections + 1),
                                           "--discard=ignore", "--", qemu_path(path)}));
  auto pool = NbdPool::connect_socket(child->socket_path(), {connections, false}, path);
  if (!pool.ok()) return child->explain(pool.error());
  return std::unique_ptr<Source>(std::make_unique<NbdSource>(
      std::move(child), std::move(pool).value(), format + " through qemu-nbd"));
}

}  // namespace dims::media
