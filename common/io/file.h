// Files and folders as DIMS needs them, behind one interface: the kernel's (posix_file_system),
// memory (MemoryFileSystem; for cache=none and tests) and the simulated, tearing disk of the tests.
//
// Threads: all methods are thread-safe; overlapping concurrent writes to one range are the caller's
// bug. Ownership: File is shared_ptr; a file that was removed stays readable through it.
// Units: bytes. Errors: kIo, kNoSpace, kNotFound, kAlreadyExists, kPermissionDenied, naming the
// path. Durable on return: only sync_data(), sync_all() and sync_folder(); everything else may be
// lost or torn by a power cut, in any subset. write_at() that returned ok is in the kernel's hands
// and survives the death of this process.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/base/units.h"

namespace dims::io {

class File {
 public:
  virtual ~File() = default;

  // Reads exactly out.size() bytes; a read past the end is kCorrupt ("short").
  virtual Status read_at(std::uint64_t offset, MutByteView out) = 0;
  // Reads up to out.size() bytes, fewer only at the end of the file.
  virtual Result<std::size_t> read_some(std::uint64_t offset, MutByteView out) = 0;
  virtual Status write_at(std::uint64_t offset, ByteView data) = 0;
  // Writes the parts one after another from `offset`, as one gather write.
  virtual Status write_gather(std::uint64_t offset, std::span<const ByteView> parts) = 0;
  // fdatasync: data and the size needed to read it back are durable on return. What failed once
  // fails for as long as the file is open: nobody knows what of it is on the disk.
  virtual Status sync_data() = 0;
  // Reserves space so that later writes inside [0, size) do not fail with kNoSpace.
  // Sets the file's size. kNoSpace leaves the file as it was.
  virtual Status preallocate(std::uint64_t size) = 0;
  virtual Status truncate(std::uint64_t size) = 0;
  virtual Result<std::uint64_t> size() = 0;
  virtual const std::string& path() const = 0;
};

enum class OpenMode {
  kReadOnly,
  kReadWrite,        // must exist
  kCreateExclusive,  // must not exist; mode 0600
  kCreate,           // create if absent; mode 0600
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual Result<std::shared_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  virtual Status remove(const std::string& path) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // Creates one folder (0700); ok if it exists.
  virtual Status make_folder(const std::string& path) = 0;
  // Names (not paths) in a folder, sorted.
  virtual Result<std::vector<std::string>> list(const std::string& folder) = 0;
  virtual Result<bool> exists(const std::string& path) = 0;
  // Makes creations, renames and removals in the folder durable.
  virtual Status sync_folder(const std::string& folder) = 0;
  // Bytes free for us on the file system that holds `path`.
  virtual Result<std::uint64_t> free_bytes(const std::string& path) = 0;
};

FileSystem& posix_file_system();

// Reads a whole small file; kCorrupt if it is larger than max_bytes.
Result<Bytes> read_file(FileSystem& fs, const std::string& path, std::size_t max_bytes);
// Writes `path` so that after a crash it holds either the old or the new bytes, never a mixture:
// temporary file, sync, rename, sync of the folder. Durable on return.
Status replace_file(FileSystem& fs, const std::string& path, ByteView data);
// The folder part of a path ("." if none).
std::string parent_folder(const std::string& path);

}  // namespace dims::io
