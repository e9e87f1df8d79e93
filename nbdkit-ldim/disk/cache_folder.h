// The cache folder of one image on one machine: who it belongs to, its keys and its lock
// (docs/formats/cache-folder.md).
//
//   identity         plain text: format, machine id, image id, key check
//   machine-secret   32 random bytes (0600)
//   keys             J and P, wrapped under the user's key and the machine's secret
//   state            base record and session (writeback/state_file.h)
//   journal/ cache/  segments
//   journal-salvaged a note: what the journal holds becomes a branch before anything else
//   lock             held by the process that serves the folder
//   control.sock     for ldim
//
// Threads: open() once; then values. Errors: kWrongKey before anything is written; kInvalidArgument
// for a folder of another image; kConflict if another process serves the folder; kCorrupt naming
// the file. Durable on return: everything that open() made.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/format/key_file.h"
#include "common/io/file.h"

namespace dims::ldim {

// Beside the state: the journal was salvaged, and its content is to become a branch.
inline constexpr const char* kSalvageNote = "journal-salvaged";
// While a restored journal is being replaced: the image that its session was on before, and a byte:
// 1 when all that it holds was sent.
inline constexpr const char* kRestoredNote = "journal-restored";
inline constexpr const char* kSalvageFolder = "journal.salvaged";  // while it is being made

// The control socket's path must fit into what the kernel takes (sun_path, 107 bytes and a zero).
inline constexpr std::string_view kControlSocket = "/control.sock";
inline constexpr std::size_t kMaxFolderPathBytes = 107 - kControlSocket.size();

struct FolderIdentity {
  MachineId machine;
  ImageId image;
  Digest key_check;
};

// What is known without the keys; nullopt for a folder that LDIM has not used yet.
Result<std::optional<FolderIdentity>> read_identity(io::FileSystem& fs, const std::string& folder);

// kInvalidArgument if a folder without an identity holds what is not LDIM's.
Status check_unused(io::FileSystem& fs, const std::string& folder);

struct FolderKeys {
  crypto::HeldKey journal;  // J
  crypto::HeldKey pages;    // P
  crypto::HeldKey state;
};

// What the ids of its sessions end with (lease_keeper.h). Says nothing of the keys.
std::array<std::uint8_t, 8> folder_tag(const FolderKeys& keys);

// True if it exists and something is in it.
Result<bool> holds_files(io::FileSystem& fs, const std::string& folder);
// Removes the files in it, or makes it; durable on return.
Status empty_folder(io::FileSystem& fs, const std::string& folder);
// Makes what is missing (folder, identity, keys) and opens the keys. No new keys over a journal
// that has files: kCorrupt.
Result<FolderIdentity> prepare_folder(io::FileSystem& fs, const std::string& folder,
                                      const ImageId& image, const format::KeyFile& key,
                                      Random& random);
Result<FolderKeys> open_folder_keys(io::FileSystem& fs, const std::string& folder,
                                    const FolderIdentity& identity, const format::KeyFile& key,
                                    Random& random);

// Held for the life of the object; kConflict if another process has it.
class FolderLock {
 public:
  // Whether some process holds it.
  static bool held(const std::string& folder);
  static Result<std::unique_ptr<FolderLock>> take(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

// Changes whenever the host boots; empty if the kernel does not tell.
std::string host_boot_id();

}  // namespace dims::ldim
