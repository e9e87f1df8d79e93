// Source: a disk to import from: raw file, block device, any format that qemu-img knows, NBD
// export.
//
// Threads: read_at() is thread-safe and blocks; next_data() has one caller at a time. Ownership: a
// source owns its descriptors, connections and child processes and ends them with itself. Units:
// bytes. Errors: kNotFound, kPermissionDenied, kUnavailable (NBD server away), kUnsupported (no
// program for a format), kIo.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/base/units.h"

namespace dims::media {

class Source {
 public:
  virtual ~Source() = default;
  virtual std::uint64_t bytes() const = 0;
  // For people: "raw file", "qcow2 through qemu-nbd", ...
  virtual const std::string& description() const = 0;
  // Reads exactly out.size() bytes inside [0, bytes()).
  virtual Status read_at(std::uint64_t offset, MutByteView out) = 0;
  // The first stretch at or after `from` that may hold data; nullopt: zeros up to the end.
  virtual Result<std::optional<ByteRange>> next_data(std::uint64_t from) = 0;
  // Refused when it is shorter by now than bytes(): what is gone looks like holes. Asked after the
  // last read, before anybody believes what was read.
  virtual Status still_whole() const { return ok_status(); }
};

struct SourceOptions {
  std::string format;        // empty: found out; else as qemu-img calls it
  unsigned connections = 4;  // to an NBD server
};
// `what`: a path, or nbd://, nbds://, nbd+unix://, nbds+unix:// with libnbd's URI syntax.
Result<std::unique_ptr<Source>> open_source(const std::string& what, const SourceOptions& options);

bool is_nbd_uri(const std::string& what);
// The formats other than raw, by a file name's ending; empty: none of them.
std::string format_of_suffix(const std::string& path);

// The kinds, for open_source() and tests.
Result<std::unique_ptr<Source>> open_raw_source(const std::string& path);
Result<std::unique_ptr<Source>> open_nbd_source(const std::string& uri, unsigned connections);
Result<std::unique_ptr<Source>> open_qemu_source(const std::string& path, const std::string& format,
                                                 unsigned connections);

}  // namespace dims::media
