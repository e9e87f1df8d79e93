#include "rdim-server/catalog/retention.h"

#include <charconv>

#include "common/base/wire.h"

namespace dims::catalog {
namespace {

constexpr std::uint32_t kMagic = 0x31544552;  // "RET1"
constexpr std::uint32_t kRetentionFormat = 1;
constexpr std::uint64_t kHourNs = 3'600'000'000'000;
constexpr const char* kHint = "'all', or parts such as last=10,hourly=24,daily=14,weekly=8";

}  // namespace

Result<RetentionPolicy> parse_retention(const std::string& text) {
  RetentionPolicy policy{true, 0, 0, 0, 0};
  if (text == "all") return policy;
  policy.all = false;
  const Error wrong =
      make_error(ErrorCode::kInvalidArgument, "'" + text + "' is no retention", kHint);
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(part.size() == rest.size() ? part.size() : part.size() + 1);
    const std::size_t equals = part.find('=');
    if (equals == std::string_view::npos) return wrong;
    const std::string_view name = part.substr(0, equals), number = part.substr(equals + 1);
    std::uint32_t* const field = name == "last"     ? &policy.last
                                 : name == "hourly" ? &policy.hourly
                                 : name == "daily"  ? &policy.daily
                                 : name == "weekly" ? &policy.weekly
                                                    : nullptr;
    if (field == nullptr || number.empty()) return wrong;
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), *field);
    if (parsed.ec != std::errc() || parsed.ptr != number.data() + number.size()) return wrong;
  }
  if (text.empty() || text.back() == ',') return wrong;
  return policy;
}

std::string text_of(const RetentionPolicy& policy) {
  if (policy.all) return "all";
  return "last=" + std::to_string(policy.last) + ",hourly=" + std::to_string(policy.hourly) +
         ",daily=" + std::to_string(policy.daily) + ",weekly=" + std::to_string(policy.weekly);
}

Bytes encode_retention(const RetentionPolicy& policy) {
  Bytes out;
  Writer w(out);
  w.u32(kMagic);
  w.u32(kRetentionFormat);
  w.u32(policy.all ? 1 : 0);
  w.u32(policy.last);
  w.u32(policy.hourly);
  w.u32(policy.daily);
  w.u32(policy.weekly);
  return out;
}

Result<RetentionPolicy> decode_retention(ByteView bytes) {
  Reader r(bytes);
  const bool ours = r.u32() == kMagic;
  if (!ours) return make_error(ErrorCode::kCorrupt, "a retention record is damaged");
  if (r.u32() != kRetentionFormat) {
    return make_error(ErrorCode::kUnsupported, "a retention record of an unknown format",
                      "use the version of rdim-server that wrote it");
  }
  RetentionPolicy policy;
  policy.all = r.u32() != 0;
  policy.last = r.u32();
  policy.hourly = r.u32();
  policy.daily = r.u32();
  policy.weekly = r.u32();
  if (!r.at_end()) return make_error(ErrorCode::kCorrupt, "a retention record is damaged");
  return policy;
}

bool RetentionChooser::take(Every& every, std::uint64_t period, std::uint32_t max) {
  if (every.kept >= max || every.period == period) return false;
  every.period = period;
  ++every.kept;
  return true;
}

bool RetentionChooser::keep(std::uint64_t time_unix_ns) {
  time_ = std::min(time_, time_unix_ns);
  const std::uint64_t hour = time_ / kHourNs;
  // Every one is asked: one version may be the first of its hour, day and week.
  const bool first_of_hour = take(hour_, hour, policy_.hourly);
  const bool first_of_day = take(day_, hour / 24, policy_.daily);
  const bool first_of_week = take(week_, (hour / 24 + 3) / 7, policy_.weekly);  // from Monday on
  const bool one_of_last = seen_++ < policy_.last;
  return policy_.all || one_of_last || first_of_hour || first_of_day || first_of_week;
}

}  // namespace dims::catalog
