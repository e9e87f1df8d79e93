// measure_version(): what a version is made of: mapped pages, chunks, and how well they are stored.
// Threads: blocks its caller. Errors: as export_version(). Memory: 40 bytes a distinct chunk.
#pragma once

#include "common/contract/remote.h"
#include "common/format/key_file.h"
#include "image-tools/transfer/progress.h"

namespace dims::transfer {

struct VersionFigures {
  std::uint64_t image_bytes = 0;
  std::uint64_t mapped_bytes = 0;  // in pages that are not zero
  std::uint64_t leaves = 0;
  std::uint64_t extents = 0;
  std::uint64_t distinct_chunks = 0;
  std::uint64_t sampled_chunks = 0;  // whose sizes were looked at
  std::uint64_t chunk_bytes = 0;     // of the distinct chunks, unpacked
  std::uint64_t sealed_bytes =
      0;               // of the distinct chunks, stored; from the sample if that is smaller
  bool exact = false;  // the sample is everything
};

// sample_max: chunks to fetch for the sizes, taken evenly; 0 = all.
Result<VersionFigures> measure_version(contract::Remote& remote, const format::KeyFile& key,
                                       const contract::ImageInfo& image,
                                       const contract::VersionInfo& version,
                                       std::uint64_t sample_max, Progress& progress);

}  // namespace dims::transfer
