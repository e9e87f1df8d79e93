// The state file: the base record and the session of one cache folder (docs/formats/ldim-state.md).
//
// It says on which version the session stands and through which epoch the journal has been
// committed. Written by the write-back after the cache is durable and before the page map and the
// journal let go of anything. Threads: thread-safe. Errors: kWrongKey if the key does not open it;
// kCorrupt; kIo, kNoSpace. Durable on return: store() (temporary file, sync, rename, sync of the
// folder).
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/contract/remote.h"
#include "common/crypto/held_key.h"
#include "common/io/file.h"

namespace dims::ldim {

struct LdimState {
  std::string image_name;   // as the user named it
  ImageId home_image;       // that image
  ImageId image;            // where commits go: home_image, or the session's conflict branch
  std::string branch_name;  // set when image is a branch
  ImageId planned_branch;   // id of a branch that is about to be made; zero: none
  std::string planned_name;
  SessionId session;
  std::string mode;  // personal, shared, readonly
  bool session_open = false;
  std::string boot_id;  // of the host when the session began
  VersionId base;       // zero: the empty image
  Bytes base_record;    // of `base`; empty if zero
  VersionId home_base;  // the newest version of the home image that was seen; zero: unknown
  std::uint64_t home_sequence = 0;
  std::uint64_t image_bytes = 0;
  format::TreeParameters tree;
  format::CommitPoint committed;  // our journal's newest epoch that the base contains
};

Bytes encode_state(const LdimState& state);
Result<LdimState> decode_state(ByteView bytes);

class StateFile {
 public:
  StateFile(io::FileSystem& fs, std::string path, const Secret32& key, const MachineId& machine,
            Random& random);
  // nullopt if there is no state file yet.
  Result<std::optional<LdimState>> load();
  Status store(const LdimState& state);
  // Changes the state under the file's lock: the session's start and end and the write-back each
  // change their own part, and must not put back what the other wrote.
  Status update(const std::function<void(LdimState&)>& change);
  // The state as last loaded or stored.
  LdimState current() const;

 private:
  Status store_locked(const LdimState& state) DIMS_REQUIRES(mutex_);
  io::FileSystem& fs_;
  std::string path_;
  crypto::HeldKey key_;
  Bytes ad_;
  Random& random_;
  mutable Mutex mutex_;
  LdimState current_ DIMS_GUARDED_BY(mutex_);
};

}  // namespace dims::ldim
