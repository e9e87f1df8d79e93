#include "common/base/parse.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace dims {
namespace {

// Splits "12.5MiB" into its number and its suffix.
bool split_number(std::string_view text, double& number, std::string_view& suffix) {
  if (text.empty() || !(std::isdigit(static_cast<unsigned char>(text[0])) != 0)) return false;
  const auto [end, ec] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (ec != std::errc()) return false;
  suffix = text.substr(static_cast<std::size_t>(end - text.data()));
  return true;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  const auto bad = [&] {
    return make_error(ErrorCode::kInvalidArgument, "'" + std::string(text) + "' is not a size",
                      "write a number of bytes with an optional K, M, G or T, e.g. 512M");
  };
  double number = 0;
  std::string_view suffix;
  if (!split_number(text, number, suffix)) return bad();
  double scale = 1;
  if (!suffix.empty()) {
    static constexpr std::string_view kUnits = "KMGTP";
    const char first = static_cast<char>(std::toupper(static_cast<unsigned char>(suffix[0])));
    const auto at = kUnits.find(first);
    if (at != std::string_view::npos) {
      scale = std::pow(1024.0, static_cast<double>(at + 1));
      suffix.remove_prefix(1);
    }
    if (!suffix.empty() && suffix != "iB" && suffix != "B" && suffix != "b") return bad();
  }
  const double bytes = number * scale;
  if (!(bytes >= 0) || bytes > 9.0e18) return bad();
  return static_cast<std::uint64_t>(bytes);
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const auto bad = [&] {
    return make_error(ErrorCode::kInvalidArgument, "'" + std::string(text) + "' is not a duration",
                      "write e.g. 250ms, 30s, 5m or 2h");
  };
  double number = 0;
  std::string_view suffix;
  if (!split_number(text, number, suffix)) return bad();
  double ms = 0;
  if (suffix == "ms")
    ms = number;
  else if (suffix.empty() || suffix == "s")
    ms = number * 1e3;
  else if (suffix == "m" || suffix == "min")
    ms = number * 6e4;
  else if (suffix == "h")
    ms = number * 3.6e6;
  else if (suffix == "d")
    ms = number * 8.64e7;
  else
    return bad();
  if (ms > 9.0e14) return bad();
  return std::chrono::milliseconds(static_cast<std::int64_t>(ms));
}

std::string format_size(std::uint64_t bytes) {
  static constexpr std::array<const char*, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

Result<HostPort> parse_host_port(std::string_view text) {
  const auto bad = [&] {
    return make_error(ErrorCode::kInvalidArgument, "'" + std::string(text) + "' is not HOST:PORT",
                      "write e.g. 127.0.0.1:7440 or [::1]:7440");
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad();
  HostPort out;
  std::string_view host = text.substr(0, colon);
  if (host.front() == '[') {
    if (host.size() < 3 || host.back() != ']') return bad();
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad();
  }
  out.host = std::string(host);
  const std::string_view port = text.substr(colon + 1);
  unsigned value = 0;
  const auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), value);
  if (ec != std::errc() || end != port.data() + port.size() || value > 65535) return bad();
  out.port = static_cast<std::uint16_t>(value);
  return out;
}

Result<ServerAddress> parse_server(std::string_view text) {
  ServerAddress out;
  out.address = std::string(text);
  if (out.is_unix()) return out;
  const std::size_t mark = text.find('#');
  out.address = std::string(text.substr(0, mark));
  DIMS_TRY(parse_host_port(out.address));
  if (mark == std::string_view::npos) return out;
  std::string digits(text.substr(mark + 1));
  std::erase(digits, ':');
  out.fingerprint = Digest::from_hex_text(digits);
  if (!out.fingerprint) {
    return make_error(ErrorCode::kInvalidArgument,
                      "'" + std::string(text.substr(mark + 1)) + "' is no fingerprint",
                      "write HOST:PORT#FINGERPRINT with the 64 hex digits that 'rdim-server "
                      "fingerprint' prints");
  }
  return out;
}

std::string printable_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = [&](std::size_t i) -> std::uint32_t {
      return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
    };
    const std::uint32_t first = byte(at);
    const std::size_t length = first < 0x80             ? 1
                               : (first & 0xe0) == 0xc0 ? 2
                               : (first & 0xf0) == 0xe0 ? 3
                               : (first & 0xf8) == 0xf0 ? 4
                                                        : 0;
    static constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    std::uint32_t value = length <= 1 ? first : first & (0x7fU >> length);
    bool good = length != 0;
    for (std::size_t i = 1; good && i < length; ++i) {
      good = (byte(at + i) & 0xc0) == 0x80;
      value = value << 6 | (byte(at + i) & 0x3f);
    }
    good = good && value >= kSmallest[length] && value <= 0x10ffff &&
           !(value >= 0xd800 && value <= 0xdfff);
    if (good)
      out.append(text.substr(at, length));
    else
      out += '?';
    at += good ? length : 1;
  }
  return out;
}

}  // namespace dims
