// Login of a user on an enrolled machine, with the server or without it.
//
// Online: the machine first asks for itself whether it is to be wiped; then the user logs in, the
// log and his grants are read, checked and kept, and he certifies a fresh session key for one
// image. Offline: the offline store instead of the server, the copies of this folder instead of its
// answers. Either way the user's own keys are gone when the function returns.
//
// Threads: free functions; log_in() uses gRPC: in a process that forks later, run it in a child
// (log_in_child). Ownership: values. Errors: kPermissionDenied (wrong name or passphrase, no
// access, revoked, wiped), kResourceExhausted (wait), kUnavailable (away, and offline login is not
// possible), those of the parts. Durable on return: what the next login without the server needs.
#pragma once

#include "nbdkit-ldim/login/session_keys.h"

namespace dims::ldim {

struct LoginWish {
  std::string machine_folder;
  std::string user;
  std::string image;
  trust::Access access = trust::Access::kRead;
  std::string cache_folder;  // noted for a wipe; empty: none
};

Result<SessionKeys> log_in(const LoginWish& wish, ByteView passphrase);
Result<SessionKeys> log_in_child(const LoginWish& wish, ByteView passphrase);

struct UserImage {
  std::string name;
  std::uint64_t image_bytes = 0;
  std::uint64_t sequence = 0;
  trust::Access access = trust::Access::kRead;
};
struct ImageList {
  std::string user;
  bool escrow = false;   // administrators hold the keys of all images
  bool offline = false;  // then without sizes: those that this user's offline login could open
  std::vector<UserImage> images;
};
// Checks the passphrase; keeps what an offline login to each of the images needs.
Result<ImageList> list_images(const std::string& machine_folder, const std::string& user,
                              ByteView passphrase);

// The machine for itself: reads the log, obeys a wipe and reports it. kPermissionDenied after one,
// and if the machine is revoked. Done at the beginning of each login, too.
Status contact(MachineFolder& folder);

}  // namespace dims::ldim
