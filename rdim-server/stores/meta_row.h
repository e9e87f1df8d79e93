// What the store knows of an object without its bytes: the row of the family "meta" and the key of
// both object families (docs/formats/store.md). Threads: values. Errors: nullopt for a row of
// another shape.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/contract/object_store.h"

namespace dims::stores {

using format::ObjectKey;

struct MetaRow {
  format::ObjectKind kind = format::ObjectKind::kChunk;
  std::uint8_t level = 0;
  std::uint32_t object_bytes = 0;
  std::uint64_t touched_s = 0;  // seconds since 1970: must mean the same after a restart
};
inline constexpr std::size_t kMetaRowBytes = 16;
inline constexpr std::size_t kRowKeyBytes = DomainId::kBytes + ObjectId::kBytes;

// An object is touched anew when its row is older: spares a write for each repeated put.
inline constexpr std::uint64_t kTouchStepSeconds = 3600;

// Too old, older than the mark of a collection, or of a clock that was wrong.
bool must_touch(const MetaRow& row, std::uint64_t now_s, std::uint64_t floor_s);

std::string row_key(const ObjectKey& key);
// The shortest key behind it; nullopt: the first of all.
std::string row_key_after(const std::optional<ObjectKey>& key);
std::optional<ObjectKey> parse_row_key(std::string_view key);
std::string encode_meta(const MetaRow& row);
std::optional<MetaRow> decode_meta(std::string_view row);

// Checks id, structure and domain of every object before anything is stored.
Result<std::vector<MetaRow>> check_objects(std::span<const contract::ObjectStore::PutItem> items,
                                           std::uint64_t now_s);
contract::ObjectRow object_row(const ObjectKey& key, const MetaRow& row);
// What is wrong with an object and its row; nullopt: nothing.
std::optional<contract::StoreFinding> audit_object(const ObjectKey& key, const MetaRow& row,
                                                   ByteView object);
Error absent_error(const ObjectKey& key);

}  // namespace dims::stores
