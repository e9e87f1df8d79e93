// resolve_conflict(): ends the conflict of an image and its branches.
//
// One side is kept: its content is the image's newest version afterwards. Every other side's
// content becomes a version before it, so that nothing is lost; then the branches are removed. No
// content moves: versions are made of roots that the server has. Order: leases on all sides (nobody
// may be at work there), commits, removals; cut short, it can be run again. Threads: blocks its
// caller. Ownership: everything outlives the call. Errors: kNotFound (no conflict, or no such
// side), kLeaseHeld with the holder, kWrongKey, kCorrupt, those of the server. Durable on return of
// ok: the versions.
#pragma once

#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/contract/remote.h"
#include "common/format/key_file.h"
#include "image-tools/transfer/who.h"

namespace dims::transfer {

struct ResolveReport {
  std::string kept;
  VersionId version;  // the image's head now
  std::uint64_t sequence = 0;
  struct Side {
    std::string name;
    std::uint64_t sequence = 0;  // of the image's version that holds its content
  };
  std::vector<Side> put_aside;       // and where to find them
  std::vector<std::string> removed;  // branches
};

Result<ResolveReport> resolve_conflict(contract::Remote& remote, const format::KeyFile& key,
                                       const Who& who, Clock& clock, Random& random,
                                       const std::string& name, const std::string& keep);

}  // namespace dims::transfer
