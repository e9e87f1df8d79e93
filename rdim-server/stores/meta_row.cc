#include "rdim-server/stores/meta_row.h"

#include <algorithm>

#include "common/base/wire.h"

namespace dims::stores {
namespace {

constexpr std::uint8_t kRowVersion = 1;

std::string to_string(const Bytes& bytes) { return std::string(as_text(bytes)); }

}  // namespace

bool must_touch(const MetaRow& row, std::uint64_t now_s, std::uint64_t floor_s) {
  const std::uint64_t now = std::max(now_s, floor_s);
  return row.touched_s < floor_s || row.touched_s + kTouchStepSeconds <= now_s ||
         row.touched_s > now + contract::kTouchAheadMaxSeconds;
}

std::string row_key(const ObjectKey& key) {
  std::string out;
  out.reserve(kRowKeyBytes);
  out.append(as_text(key.domain.view()));
  out.append(as_text(key.id.view()));
  return out;
}

std::string row_key_after(const std::optional<ObjectKey>& key) {
  return key ? row_key(*key) + '\0' : std::string();
}

std::optional<ObjectKey> parse_row_key(std::string_view key) {
  if (key.size() != kRowKeyBytes) return std::nullopt;
  Reader r(as_bytes(key));
  ObjectKey out;
  out.domain = r.id<DomainId>();
  out.id = r.id<ObjectId>();
  return out;
}

std::string encode_meta(const MetaRow& row) {
  Bytes out;
  Writer w(out);
  w.u8(kRowVersion);
  w.u8(static_cast<std::uint8_t>(row.kind));
  w.u8(row.level);
  w.u8(0);
  w.u32(row.object_bytes);
  w.u64(row.touched_s);
  return to_string(out);
}

std::optional<MetaRow> decode_meta(std::string_view bytes) {
  if (bytes.size() != kMetaRowBytes) return std::nullopt;
  Reader r(as_bytes(bytes));
  if (r.u8() != kRowVersion) return std::nullopt;
  MetaRow row;
  row.kind = static_cast<format::ObjectKind>(r.u8());
  row.level = r.u8();
  r.u8();
  row.object_bytes = r.u32();
  row.touched_s = r.u64();
  return row;
}

Result<std::vector<MetaRow>> check_objects(std::span<const contract::ObjectStore::PutItem> items,
                                           std::uint64_t now_s) {
  std::vector<MetaRow> rows;
  rows.reserve(items.size());
  for (const auto& item : items) {
    if (item.object.size() > format::kMaxObjectBytes) {
      return make_error(ErrorCode::kInvalidArgument,
                        "object " + item.key.id.short_hex() + " is too large");
    }
    const auto head = format::parse_head(item.object);
    if (!head.ok()) return head.error().with_context("object " + item.key.id.short_hex());
    if (!(head->domain == item.key.domain) || !(format::object_id(item.object) == item.key.id)) {
      return make_error(ErrorCode::kCorrupt,
                        "object " + item.key.id.short_hex() + " does not have the id it came under",
                        "it was damaged on its way: send it again");
    }
    rows.push_back(
        {head->kind, head->level, static_cast<std::uint32_t>(item.object.size()), now_s});
  }
  return rows;
}

contract::ObjectRow object_row(const ObjectKey& key, const MetaRow& row) {
  return {key, row.kind, row.level, row.object_bytes, row.touched_s};
}

std::optional<contract::StoreFinding> audit_object(const ObjectKey& key, const MetaRow& row,
                                                   ByteView object) {
  using Kind = contract::StoreFinding::Kind;
  contract::StoreFinding finding;
  finding.key = key;
  const auto head = format::parse_head(object);
  if (!(format::object_id(object) == key.id) || !head.ok() || !(head->domain == key.domain)) {
    finding.kind = Kind::kDamagedObject;
    finding.what = "its bytes do not have its id";
    return finding;
  }
  if (head->kind != row.kind || head->level != row.level || row.object_bytes != object.size()) {
    finding.kind = Kind::kWrongRow;
    finding.what = "its row says another kind, level or length";
    return finding;
  }
  return std::nullopt;
}

Error absent_error(const ObjectKey& key) {
  return make_error(ErrorCode::kNotFound, "object " + key.id.short_hex() + " is not in the store");
}

}  // namespace dims::stores
