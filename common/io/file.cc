#include "common/io/file.h"

namespace dims::io {

std::string parent_folder(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<Bytes> read_file(FileSystem& fs, const std::string& path, std::size_t max_bytes) {
  DIMS_ASSIGN(auto file, fs.open(path, OpenMode::kReadOnly));
  DIMS_ASSIGN(const std::uint64_t size, file->size());
  if (size > max_bytes) {
    return make_error(ErrorCode::kCorrupt, path + " is " + std::to_string(size) +
                                               " bytes, more than the " +
                                               std::to_string(max_bytes) + " allowed");
  }
  Bytes data(static_cast<std::size_t>(size));
  DIMS_TRY(file->read_at(0, data));
  return data;
}

Status replace_file(FileSystem& fs, const std::string& path, ByteView data) {
  const std::string temporary = path + ".new";
  {
    DIMS_ASSIGN(auto file, fs.open(temporary, OpenMode::kCreate));
    DIMS_TRY(file->truncate(0));
    DIMS_TRY(file->write_at(0, data));
    DIMS_TRY(file->sync_data());
  }
  DIMS_TRY(fs.rename(temporary, path));
  return fs.sync_folder(parent_folder(path));
}

}  // namespace dims::io
