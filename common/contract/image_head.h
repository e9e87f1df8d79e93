// Whether a version is what a server says that it is: the head of this image.
//
// A server's facts of an image are signed by nobody; its versions are. So size, tree, domain and
// number are taken from it only as far as the version says the same, and a version of another image
// is never this one's head, whoever may open both. Threads: free function. Errors: kUntrusted;
// those of KeyFile::check_signer(). Whether it descends from what is known is the caller's to see.
#pragma once

#include "common/contract/remote.h"
#include "common/format/key_file.h"

namespace dims::contract {

// Whether a version of that number can be the newest: new keys name the last one under the old ones
// in the organisation's log. 0: there is no version.
inline Status check_head_number(const ImageInfo& image, std::uint64_t sequence,
                                const format::KeyFile& key) {
  const std::uint64_t floor = key.head_floor(image.id);
  if (sequence >= floor) return ok_status();
  return make_error(ErrorCode::kUntrusted,
                    "the newest version of '" + image.name + "' is number " +
                        std::to_string(sequence) +
                        ", says the server; the organisation's log "
                        "knows number " +
                        std::to_string(floor),
                    "try again; if this stays, the server gives out an old state: ask whoever runs "
                    "it");
}

inline Status check_head(const ImageInfo& image, const VersionInfo& head,
                         const format::KeyFile& key) {
  const auto refuse = [&](const std::string& what) {
    return make_error(
        ErrorCode::kUntrusted,
        "version " + std::to_string(head.record.sequence) + " of '" + image.name + "' " + what,
        "do not use it; ask whoever runs the server");
  };
  const format::VersionRecord& record = head.record;
  if (!(record.image == image.id)) {
    return refuse(image.head == image.origin ? "is that of the image which it branched from: it "
                                               "has none of its own yet"
                                             : "belongs to another image");
  }
  DIMS_TRY(key.check_signer(record));
  DIMS_TRY(check_head_number(image, record.sequence, key));
  if (record.image_bytes != image.image_bytes || !(record.tree == image.tree))
    return refuse("has another size or tree than the server says");
  const bool sealed_here = record.root.id.is_zero() || record.root.domain == image.domain;
  if (!sealed_here || !(image.domain == key.domain))
    return refuse("is of another domain than the server says");
  if (head.id == image.head && record.sequence != image.head_sequence)
    return refuse("has another number than the server says");
  return ok_status();
}

}  // namespace dims::contract
