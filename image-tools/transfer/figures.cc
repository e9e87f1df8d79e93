#include "image-tools/transfer/figures.h"

#include <algorithm>
#include <unordered_map>

#include "common/tree/node_source.h"
#include "image-tools/transfer/importer.h"

namespace dims::transfer {
namespace {

struct Chunk {
  Secret32 secret;
  std::uint32_t pages = 0;  // as far as any extent reaches into it
};

}  // namespace

Result<VersionFigures> measure_version(contract::Remote& remote, const format::KeyFile& key,
                                       const contract::ImageInfo& image,
                                       const contract::VersionInfo& version,
                                       std::uint64_t sample_max, Progress& progress) {
  DIMS_TRY(check_key(key, image));
  DIMS_TRY(check_record(key, image, version));
  DIMS_ASSIGN(const format::Reference root,
              format::open_root(version.record, key.image_key(version.record)));
  const tree::TreeShape shape{version.record.tree, version.record.image_bytes, root};
  progress.disk_bytes = shape.image_bytes;
  VersionFigures figures;
  figures.image_bytes = shape.image_bytes;
  std::unordered_map<format::ObjectKey, Chunk, format::ObjectKeyHash> chunks;
  tree::RemoteNodeSource nodes(remote, image.id, contract::Priority::kPrefetch);
  DIMS_TRY(tree::visit_leaves(
      shape, {0, pages_for(shape.image_bytes)}, nodes,
      [&](std::uint64_t first, const format::Reference&, const format::Leaf& leaf) -> Status {
        if (progress.cancel) return cancelled();
        ++figures.leaves;
        figures.extents += leaf.extents.size();
        for (const format::Extent& e : leaf.extents) {
          figures.mapped_bytes += e.page_count * kPageBytes;
          Chunk& chunk = chunks[e.ref.object_key()];
          chunk.secret = e.ref.key;
          chunk.pages = std::max<std::uint32_t>(chunk.pages, e.first_in_chunk + e.page_count);
        }
        progress.disk_bytes_done = first * kPageBytes;
        return ok_status();
      }));
  figures.distinct_chunks = chunks.size();
  // The map's order is that of hashes: as good as random, and the same every time.
  const std::uint64_t step = sample_max == 0 || chunks.size() <= sample_max
                                 ? 1
                                 : (chunks.size() + sample_max - 1) / sample_max;
  std::vector<format::Reference> sample;
  std::uint64_t position = 0;
  for (const auto& [object, chunk] : chunks) {
    figures.chunk_bytes += chunk.pages * kPageBytes;
    if (position++ % step == 0) sample.push_back({object.domain, object.id, chunk.secret});
  }
  figures.exact = step == 1;
  std::uint64_t sample_bytes = 0;
  constexpr std::size_t kBatch = 256;
  for (std::size_t at = 0; at < sample.size(); at += kBatch) {
    if (progress.cancel) return cancelled();
    std::vector<format::ObjectKey> keys;
    for (std::size_t i = at; i < std::min(at + kBatch, sample.size()); ++i)
      keys.push_back(sample[i].object_key());
    Status problem;
    DIMS_TRY(remote.get(
        image.id, keys, contract::Priority::kPrefetch, [&](std::size_t i, Result<Bytes> object) {
          Result<Bytes> pages =
              object.ok() ? format::open_object(sample[at + i], *object, false) : object;
          if (!pages.ok()) {
            problem = pages.error();
            return;
          }
          ++figures.sampled_chunks;
          sample_bytes += pages->size();
          figures.sealed_bytes += object->size();
        }));
    DIMS_TRY(problem);
  }
  if (!figures.exact && sample_bytes > 0) {
    const double scale =
        static_cast<double>(figures.chunk_bytes) / static_cast<double>(sample_bytes);
    figures.sealed_bytes =
        static_cast<std::uint64_t>(static_cast<double>(figures.sealed_bytes) * scale);
  }
  return figures;
}

}  // namespace dims::transfer
