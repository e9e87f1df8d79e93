// Tree nodes: leaves list extents of one stretch of the disk, inner nodes list children
// (docs/formats/node.md).
//
// A leaf covers leaf_pages pages (default 256 = 1 MiB); an inner node has fanout slots (default
// 32). Threads: values. Units: pages. Errors: decode returns kCorrupt; every bound is checked.
#pragma once

#include <vector>

#include "common/format/object.h"

namespace dims::format {

struct TreeParameters {
  std::uint16_t leaf_pages = 256;
  std::uint16_t fanout = 32;
  std::uint32_t chunk_mean_bytes = 64 * 1024;  // for cutting; a chunk never passes kMaxChunkPages
  friend bool operator==(const TreeParameters&, const TreeParameters&) = default;
};
Status check_parameters(const TreeParameters& parameters);
// The level of the root for a disk of this size: 1 = the root is a leaf.
std::uint8_t root_level(const TreeParameters& parameters, std::uint64_t image_bytes);
// Pages below one node of this level.
std::uint64_t pages_below(const TreeParameters& parameters, std::uint8_t level);

// A run of pages inside a leaf's stretch that lies, in order, in one chunk.
struct Extent {
  std::uint16_t first_page = 0;  // relative to the stretch
  std::uint16_t page_count = 0;
  std::uint16_t first_in_chunk = 0;  // page within the chunk
  Reference ref;
  std::uint32_t end_page() const { return std::uint32_t{first_page} + page_count; }
};

// Extents ascend and do not overlap. What no extent covers is zero.
struct Leaf {
  std::vector<Extent> extents;
  // Replaces [first, first+count) by `with` (which may be empty: zeros), splitting what it cuts.
  void replace(std::uint16_t first, std::uint16_t count, const std::vector<Extent>& with);
  // The extent that covers a page, or nullptr.
  const Extent* find(std::uint16_t page) const;
};

struct Inner {
  std::vector<Reference> slots;  // fanout of them; zero reference = zeros
};

SealedObject encode_leaf(const DomainKey& key, const Leaf& leaf);
SealedObject encode_inner(const DomainKey& key, std::uint8_t level, const Inner& inner);

Result<Leaf> decode_leaf(const TreeParameters& parameters, const Reference& ref, ByteView object);
Result<Inner> decode_inner(const TreeParameters& parameters, std::uint8_t level,
                           const Reference& ref, ByteView object);

}  // namespace dims::format
