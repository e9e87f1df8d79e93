#include "rdim-server/access/audit.h"

#include <spdlog/spdlog.h>

#include <charconv>
#include <cstdio>

#include "common/base/wire.h"

namespace dims::access {
namespace {

constexpr const char* kPrefix = "org/audit/";
constexpr std::size_t kRowsAtOnce = 1024;
constexpr std::size_t kTextMax = 512;

std::string row_key(std::uint64_t number) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(number));
  return std::string(kPrefix) + digits;
}

std::uint64_t number_of(const std::string& key) {
  std::uint64_t number = 0;
  const std::size_t begin = std::string_view(kPrefix).size();
  std::from_chars(key.data() + begin, key.data() + key.size(), number, 16);
  return number;
}

Bytes encode(const AuditEntry& entry) {
  Bytes out;
  Writer w(out);
  w.u16(1);
  w.u64(entry.time_unix_s);
  w.id(entry.user);
  w.id(entry.machine);
  w.id(entry.image);
  for (const std::string* text : {&entry.what, &entry.detail, &entry.address}) {
    w.string(as_bytes(std::string_view(*text).substr(0, kTextMax)));
  }
  return out;
}

Result<AuditEntry> decode(std::uint64_t number, ByteView bytes) {
  Reader r(bytes);
  AuditEntry entry;
  entry.number = number;
  const std::uint16_t format = r.u16();
  entry.time_unix_s = r.u64();
  entry.user = r.id<trust::UserId>();
  entry.machine = r.id<MachineId>();
  entry.image = r.id<ImageId>();
  for (std::string* text : {&entry.what, &entry.detail, &entry.address}) {
    *text = std::string(as_text(r.string()));
  }
  if (r.ok() && format == 1) return entry;
  return make_error(ErrorCode::kCorrupt, "audit entry " + std::to_string(number) + " is damaged");
}

}  // namespace

Result<std::unique_ptr<Audit>> Audit::open(contract::RefStore& refs, Clock& clock) {
  std::unique_ptr<Audit> audit(new Audit(refs, clock));
  std::string after;
  bool first = true;
  for (;;) {
    DIMS_ASSIGN(const auto rows, refs.list(kPrefix, after, kRowsAtOnce));
    if (rows.empty()) return audit;
    if (first) audit->first_ = number_of(rows.front().first);
    first = false;
    after = rows.back().first;
    audit->next_ = number_of(after) + 1;
  }
}

void Audit::add(AuditEntry entry) {
  entry.time_unix_s = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
  const std::lock_guard lock(mutex_);
  const auto put = refs_.put(row_key(next_), encode(entry), 0);
  if (!put.ok()) {
    // What is done is done; that nobody wrote it down must be seen.
    spdlog::error("audit: {} was not written: {}", entry.what, put.error().to_string());
    return;
  }
  ++next_;
  if (next_ - first_ <= kKept) return;
  const auto row = refs_.get(row_key(first_));
  if (row.ok() && *row) (void)refs_.remove(row_key(first_), (*row)->revision);
  ++first_;
}

void Audit::add(const Caller& caller, std::string what, const ImageId& image, std::string detail) {
  if (caller.kind == Caller::Kind::kOwner) return;  // nobody to name
  AuditEntry entry;
  entry.what = std::move(what);
  entry.user = caller.user;
  entry.machine = caller.machine;
  entry.image = image;
  entry.detail = std::move(detail);
  entry.address = caller.address;
  add(std::move(entry));
}

Result<std::vector<AuditEntry>> Audit::read(std::uint64_t before, std::size_t limit) {
  std::uint64_t first = 1, next = 1;
  {
    const std::lock_guard lock(mutex_);
    first = first_;
    next = next_;
  }
  if (before != 0) next = std::min(next, before);
  std::vector<AuditEntry> out;
  for (std::uint64_t number = next - 1; number >= first && number > 0 && out.size() < limit;
       --number) {
    DIMS_ASSIGN(const auto row, refs_.get(row_key(number)));
    if (!row) continue;
    DIMS_ASSIGN(out.emplace_back(), decode(number, row->value));
  }
  return out;
}

}  // namespace dims::access
