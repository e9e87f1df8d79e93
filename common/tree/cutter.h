// Cutter: where chunks end. A page ends a chunk when a keyed hash of that page's two ends says so
// (its first and last 512 bytes), hence a rewrite moves only the boundaries it touches. Zero pages
// belong to no chunk.
//
// Threads: const, thread-safe. Units: pages of 4 KiB. Errors: none.
#pragma once

#include <vector>

#include "common/base/bytes.h"
#include "common/base/units.h"
#include "common/format/node.h"

namespace dims::tree {

// How pages are put together into chunks; kFixed exists for measurements.
enum class CutMode { kContent, kFixed };

class Cutter {
 public:
  Cutter(const format::DomainKey& key, std::uint32_t mean_bytes, CutMode mode = CutMode::kContent);

  // Splits `pages` (a multiple of 4 KiB) into chunks; ranges are relative to its start. What lies
  // between them is zero.
  std::vector<PageRange> cut(ByteView pages) const;

 private:
  bool ends_chunk(ByteView page) const;

  crypto::ShortKey key_;
  std::uint64_t threshold_;  // a hash below it ends the chunk
  std::uint64_t max_pages_;
};

}  // namespace dims::tree
