#include "rdim-server/stores/store_format.h"

#include <charconv>

namespace dims::stores {
namespace {

constexpr std::string_view kFile = "/FORMAT";
constexpr std::string_view kFormatLine = "dims-store ";
constexpr std::string_view kGenerationLine = "generation ";
constexpr std::string_view kStateLine = "state ";
constexpr std::size_t kMaxBytes = 4096;

Error damaged(const char* what) {
  return make_error(ErrorCode::kCorrupt, std::string("the store's FORMAT file is damaged: ") + what,
                    "restore the store from its backup");
}

// The rest of the next line if it begins with `name`.
std::optional<std::string_view> take_line(std::string_view& text, std::string_view name) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos || !text.starts_with(name)) return std::nullopt;
  const std::string_view value = text.substr(name.size(), end - name.size());
  text.remove_prefix(end + 1);
  return value;
}

}  // namespace

std::string encode_format(const StoreFormat& format) {
  std::string text(kFormatLine);
  text += std::to_string(kStoreFormat) + "\n";
  text += std::string(kGenerationLine) + format.generation.hex() + "\n";
  text += std::string(kStateLine) + (format.state == StoreState::kReady ? "ready\n" : "creating\n");
  return text;
}

Result<StoreFormat> parse_format(std::string_view text) {
  const auto version = take_line(text, kFormatLine);
  if (!version) {
    return make_error(ErrorCode::kUnsupported, "its FORMAT file is not that of a DIMS store",
                      "give the folder of a store, or an empty one");
  }
  unsigned number = 0;
  const auto parsed = std::from_chars(version->data(), version->data() + version->size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != version->data() + version->size()) {
    return damaged("format number");
  }
  if (number != kStoreFormat) {
    return make_error(ErrorCode::kUnsupported,
                      "the store has format " + std::to_string(number) + ", this program knows " +
                          std::to_string(kStoreFormat),
                      "use the version of rdim-server that wrote it; nothing was changed");
  }
  StoreFormat format;
  const auto generation = take_line(text, kGenerationLine);
  if (!generation) return damaged("generation");
  const auto id = GenerationId::from_hex_text(*generation);
  if (!id) return damaged("generation");
  format.generation = *id;
  const auto state = take_line(text, kStateLine);
  if (!state || (*state != "ready" && *state != "creating") || !text.empty()) {
    return damaged("state");
  }
  format.state = *state == "ready" ? StoreState::kReady : StoreState::kCreating;
  return format;
}

Result<StoreFormat> read_format(io::FileSystem& fs, const std::string& folder) {
  const std::string path = folder + std::string(kFile);
  DIMS_ASSIGN(const Bytes bytes, io::read_file(fs, path, kMaxBytes));
  Result<StoreFormat> format = parse_format(as_text(bytes));
  if (!format.ok()) return format.error().with_context(folder);
  return format;
}

Status write_format(io::FileSystem& fs, const std::string& folder, const StoreFormat& format) {
  return io::replace_file(fs, folder + std::string(kFile), as_bytes(encode_format(format)));
}

}  // namespace dims::stores
