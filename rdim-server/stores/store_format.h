// The file FORMAT of a store's folder: says what the folder is before any engine touches it
// (docs/formats/store.md). Three text lines: format, generation, state.
//
// Threads: free functions. Errors: kNotFound (no such file), kUnsupported (another format, or no
// store of ours), kCorrupt. Durable on return of write_format().
#pragma once

#include <string>

#include "common/base/bytes.h"
#include "common/io/file.h"

namespace dims::stores {

inline constexpr unsigned kStoreFormat = 1;

enum class StoreState {
  kCreating,  // the engine's files may be missing or half made; nothing was ever answered from them
  kReady,
};

struct StoreFormat {
  GenerationId generation;
  StoreState state = StoreState::kCreating;
};

std::string encode_format(const StoreFormat& format);
Result<StoreFormat> parse_format(std::string_view text);

Result<StoreFormat> read_format(io::FileSystem& fs, const std::string& folder);
Status write_format(io::FileSystem& fs, const std::string& folder, const StoreFormat& format);

}  // namespace dims::stores
