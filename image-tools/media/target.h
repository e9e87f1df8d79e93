// Target: where an image is exported to: raw file, block device, a file of another format, NBD
// export, stdout.
//
// Threads: write_at() and zero_at() are thread-safe unless in_order(). Ownership: as Source. Units:
// bytes. Errors: kAlreadyExists (a file is not overwritten unasked), kNoSpace, kIo, kUnavailable. A
// file appears under its name only when finish() succeeds; before that it is a temporary file
// beside it, which goes away with the target. Durable on return of finish(): everything (files,
// devices; NBD as far as its flush goes).
#pragma once

#include <memory>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/base/units.h"

namespace dims::media {

class Target {
 public:
  virtual ~Target() = default;
  // Bytes must arrive one after another, zeros included.
  virtual bool in_order() const { return false; }
  // What is never written reads as zeros already.
  virtual bool starts_zeroed() const = 0;
  virtual Status write_at(std::uint64_t offset, ByteView data) = 0;
  virtual Status zero_at(ByteRange range) = 0;
  virtual Status finish() = 0;
};

struct TargetOptions {
  std::uint64_t image_bytes = 0;
  std::string format;  // empty: by suffix, else raw
  bool force = false;  // overwrite an existing file
  unsigned connections = 4;
};
// `what`: a path, "-" for stdout, or an NBD URI.
Result<std::unique_ptr<Target>> open_target(const std::string& what, const TargetOptions& options);

Result<std::unique_ptr<Target>> open_file_target(const std::string& path,
                                                 const TargetOptions& options);
Result<std::unique_ptr<Target>> open_device_target(const std::string& path,
                                                   const TargetOptions& options);
std::unique_ptr<Target> open_stream_target(int descriptor);
Result<std::unique_ptr<Target>> open_nbd_target(const std::string& uri,
                                                const TargetOptions& options);
// A file of another format, written through a qemu-nbd of our own.
Result<std::unique_ptr<Target>> open_qemu_target(const std::string& path,
                                                 const TargetOptions& options);

// A file that appears under its name only when complete.
class PendingFile {
 public:
  // Chooses a temporary name beside `path`. kAlreadyExists unless `force`. keep_name: the same name
  // in a temporary folder (some formats write their own name into the file).
  static Result<PendingFile> reserve(const std::string& path, bool force, bool keep_name = false);
  PendingFile(PendingFile&& other) noexcept;
  PendingFile& operator=(PendingFile&&) = delete;
  ~PendingFile();  // removes the temporary file unless published
  const std::string& temporary() const { return temporary_; }
  // Syncs the file, gives it its name, syncs the folder.
  Status publish();

 private:
  PendingFile(std::string path, std::string temporary, std::string folder, bool force)
      : path_(std::move(path)),
        temporary_(std::move(temporary)),
        folder_(std::move(folder)),
        force_(force) {}
  std::string path_;
  std::string temporary_;
  std::string folder_;  // to be removed; may be empty
  bool force_;
};

}  // namespace dims::media
