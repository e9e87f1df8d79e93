// import_image(): brings a disk to the server as a version of an image.
//
// Order: key check, lease, chunks, nodes (children first), one commit. Nothing of it can be seen
// under the image's name before the commit, and everything that was sent before an interruption is
// found again by its content: the same call goes on where the last one ended. Threads: blocks its
// caller; uses threads of its own, which end before it returns. Ownership: everything outlives the
// call. Errors: kAlreadyExists (the image has versions and update is off, or an unfinished import
// differs), kWrongKey, kLeaseHeld, kConflict, kInvalidArgument (size), kCancelled, and those of
// source and server. Durable on return of ok: the version, as far as the server promises it.
#pragma once

#include "common/base/clock.h"
#include "common/contract/remote.h"
#include "common/format/key_file.h"
#include "common/tree/cutter.h"
#include "image-tools/media/source.h"
#include "image-tools/transfer/progress.h"
#include "image-tools/transfer/who.h"

namespace dims::transfer {

struct ImportOptions {
  std::string name;
  ImageId new_image;    // of this id, and there is none of the name; zero: look first
  bool update = false;  // commit on top of the head of an image that exists
  bool compress = true;
  tree::CutMode cut_mode = tree::CutMode::kContent;
  std::uint32_t chunk_mean_bytes = 64 * 1024;  // of a new image; an update keeps the image's
  unsigned threads = 3;                        // that read, cut and seal
  unsigned upload_threads = 4;                 // batches on their way at a time
};

struct ImportReport {
  ImageId image;
  VersionId version;
  std::uint64_t sequence = 0;
  bool resumed = false;    // an unfinished import of the same image was found
  bool unchanged = false;  // an update that changed nothing: no version was made
  std::uint64_t image_bytes = 0;
  std::uint64_t read_bytes = 0;        // from the source; the rest was holes
  std::uint64_t data_bytes = 0;        // in pages that are not zero
  std::uint64_t chunks = 0;            // repeats included
  std::uint64_t sealed_bytes = 0;      // of all these chunks
  std::uint64_t repeated_objects = 0;  // equal to an earlier one of this import
  std::uint64_t present_objects = 0;   // that the server had already
  std::uint64_t new_chunks = 0;
  std::uint64_t new_chunk_bytes = 0;  // sealed
  std::uint64_t new_nodes = 0;
  std::uint64_t new_node_bytes = 0;
  double seconds = 0;
};

struct ImportDevices {
  contract::Remote& remote;
  media::Source& source;
  Clock& clock;
  Random& random;
};

Result<ImportReport> import_image(const ImportDevices& devices, const format::KeyFile& key,
                                  const Who& who, const ImportOptions& options, Progress& progress);

// kWrongKey unless the key file is the one that this image was made with.
Status check_key(const format::KeyFile& key, const contract::ImageInfo& image);

// kCorrupt unless the record is this image's and signed by the owner of the key file.
Status check_record(const format::KeyFile& key, const contract::ImageInfo& image,
                    const contract::VersionInfo& version);

}  // namespace dims::transfer
