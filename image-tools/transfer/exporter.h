// export_version(): writes one version of an image to a target, every object verified on the way.
//
// Threads: blocks its caller; workers of its own end before it returns. Memory: one group of leaves
// (4 MiB) and its objects a worker, and a bounded queue. Errors: kWrongKey, kCorrupt (an object
// does not open, also after asking again), kCancelled, and those of server and target; the target
// is not finished then. Durable: as the target says.
#pragma once

#include "common/contract/remote.h"
#include "common/format/key_file.h"
#include "image-tools/media/target.h"
#include "image-tools/transfer/progress.h"

namespace dims::transfer {

struct ExportOptions {
  unsigned threads = 4;
};

struct ExportReport {
  std::uint64_t image_bytes = 0;
  std::uint64_t data_bytes = 0;     // written; the rest is zeros
  std::uint64_t chunks = 0;         // fetched
  std::uint64_t fetched_bytes = 0;  // sealed
  double seconds = 0;
};

Result<ExportReport> export_version(contract::Remote& remote, const format::KeyFile& key,
                                    const contract::ImageInfo& image,
                                    const contract::VersionInfo& version, media::Target& target,
                                    const ExportOptions& options, Progress& progress);

// The version that `text` names: empty = head, digits = sequence number, else a version id or the
// start of one. kNotFound, kInvalidArgument (the start of several).
Result<contract::VersionInfo> find_version(contract::Remote& remote,
                                           const contract::ImageInfo& image,
                                           const std::string& text);

}  // namespace dims::transfer
