#include "nbdkit-ldim/writeback/rescue.h"

#include <unordered_set>

namespace dims::ldim {

using format::Reference;

namespace {

class Rescue {
 public:
  Rescue(const RescueParts& parts, const tree::TreeShape& shape) : parts_(parts), shape_(shape) {}

  // Children before parents; `refs` are of one level.
  Status nodes(const std::vector<Reference>& refs, std::uint8_t level) {
    DIMS_ASSIGN(const std::vector<Reference> absent, lacking(refs));
    for (const Reference& ref : absent) {
      auto object = parts_.fetcher.cached_node(ref);
      if (!object) {
        return make_error(
            ErrorCode::kNotFound,
            "tree node " + ref.id.short_hex() + " is neither on the server nor in the cache",
            "restore the server from a newer copy");
      }
      std::vector<Reference> below;
      if (level > 1) {
        DIMS_ASSIGN(const format::Inner inner,
                    format::decode_inner(shape_.parameters, level, ref, *object));
        for (const Reference& child : inner.slots)
          if (!child.is_zero()) below.push_back(child);
        DIMS_TRY(nodes(below, static_cast<std::uint8_t>(level - 1)));
      } else {
        DIMS_ASSIGN(const format::Leaf leaf, format::decode_leaf(shape_.parameters, ref, *object));
        for (const format::Extent& extent : leaf.extents) below.push_back(extent.ref);
        DIMS_TRY(chunks(below));
      }
      if (lost_chunks_ == 0) DIMS_TRY(parts_.uploader.add({ref, std::move(*object)}));
    }
    return ok_status();
  }

  Status result() const {
    if (lost_chunks_ == 0) return ok_status();
    return make_error(ErrorCode::kNotFound,
                      std::to_string(lost_chunks_) +
                          " chunks of this machine's version are neither on the server nor in the "
                          "cache",
                      "restore the server from a newer copy");
  }

 private:
  Result<std::vector<Reference>> lacking(const std::vector<Reference>& refs) {
    std::vector<format::ObjectKey> keys;
    std::vector<Reference> out;
    for (const Reference& ref : refs) {
      if (!seen_.insert(ref.id).second) continue;
      keys.push_back(ref.object_key());
      out.push_back(ref);
    }
    if (out.empty()) return out;
    DIMS_ASSIGN(const std::vector<bool> present, parts_.remote.has(parts_.image, keys));
    std::size_t kept = 0;
    for (std::size_t i = 0; i < out.size(); ++i)
      if (!present[i]) out[kept++] = out[i];
    out.resize(kept);
    return out;
  }

  Status chunks(const std::vector<Reference>& refs) {
    DIMS_ASSIGN(const std::vector<Reference> absent, lacking(refs));
    for (const Reference& ref : absent) {
      const auto pages = parts_.fetcher.cached_pages(ref.id);
      // Packed again it is the same object only if it was packed the same way.
      format::SealedObject sealed;
      bool same = false;
      for (const bool compress : {true, false}) {
        if (!pages || same) break;
        sealed = format::seal_chunk(parts_.domain_key, *pages, compress);
        same = sealed.ref.id == ref.id;
      }
      if (!same) {
        ++lost_chunks_;
        continue;
      }
      DIMS_TRY(parts_.uploader.add(std::move(sealed)));
    }
    return ok_status();
  }

  const RescueParts& parts_;
  const tree::TreeShape& shape_;
  std::unordered_set<ObjectId, IdHash> seen_;
  std::uint64_t lost_chunks_ = 0;
};

}  // namespace

Status upload_tree(const RescueParts& parts, const tree::TreeShape& shape) {
  if (shape.root.is_zero()) return ok_status();
  Rescue rescue(parts, shape);
  DIMS_TRY(rescue.nodes({shape.root}, format::root_level(shape.parameters, shape.image_bytes)));
  return rescue.result();
}

}  // namespace dims::ldim
