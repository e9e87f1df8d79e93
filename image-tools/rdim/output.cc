#include "image-tools/rdim/output.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

namespace dims::rdim {
namespace {

std::string format_time(std::uint64_t unix_ns, const char* format) {
  const auto seconds = static_cast<std::time_t>(unix_ns / 1000000000U);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  const std::size_t length = std::strftime(text, sizeof text, format, &parts);
  return std::string(text, length);
}

}  // namespace

ExitCode exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kNotFound:
      return kExitNotFound;
    case ErrorCode::kAlreadyExists:
    case ErrorCode::kConflict:
    case ErrorCode::kLeaseHeld:
    case ErrorCode::kStaleLease:
    case ErrorCode::kOtherHistory:
      return kExitRefused;
    case ErrorCode::kUnavailable:
    case ErrorCode::kDeadlineExceeded:
      return kExitUnreachable;
    case ErrorCode::kPermissionDenied:
    case ErrorCode::kWrongKey:
    case ErrorCode::kUntrusted:
      return kExitKey;
    case ErrorCode::kCorrupt:
    case ErrorCode::kMissingObjects:
      return kExitDamaged;
    case ErrorCode::kNoSpace:
      return kExitNoSpace;
    case ErrorCode::kCancelled:
      return kExitInterrupted;
    case ErrorCode::kIo:
    case ErrorCode::kUnsupported:
    case ErrorCode::kResourceExhausted:
    case ErrorCode::kInternal:
      return kExitFailed;
  }
  return kExitFailed;
}

Json json_of(const Error& error) {
  Json inner;
  inner["code"] = error_code_name(error.code);
  inner["message"] = error.message;
  inner["hint"] = error.hint;
  inner["holder"] = error.holder;
  return Json{{"error", inner}};
}

void Output::text(const std::string& line) const {
  if (json_) return;
  std::fprintf(to_stderr_ ? stderr : stdout, "%s\n", line.c_str());
}

void Output::note(const std::string& line) const {
  std::FILE* const out = json_ || to_stderr_ ? stderr : stdout;
  std::fprintf(out, "%s\n", line.c_str());
  std::fflush(out);
}

void Output::document(const Json& json) const {
  if (!json_) return;
  // A name may hold bytes that are no UTF-8; JSON must not fail for that.
  const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace);
  std::fprintf(to_stderr_ ? stderr : stdout, "%s\n", text.c_str());
}

ExitCode Output::error(const Error& error) const {
  if (json_) {
    document(json_of(error));
  } else {
    std::fprintf(stderr, "rdim: %s\n", error.message.c_str());
    if (!error.holder.empty()) std::fprintf(stderr, "      held by: %s\n", error.holder.c_str());
    if (!error.hint.empty()) std::fprintf(stderr, "      to do: %s\n", error.hint.c_str());
  }
  return exit_code_of(error.code);
}

void Output::table(const std::vector<std::vector<std::string>>& rows) const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
    }
    text(line);
  }
}

std::string text_of_time(std::uint64_t unix_ns) {
  return unix_ns == 0 ? std::string("-") : format_time(unix_ns, "%Y-%m-%d %H:%M:%S UTC");
}

Json json_of_time(std::uint64_t unix_ns) {
  return unix_ns == 0 ? Json(nullptr) : Json(format_time(unix_ns, "%Y-%m-%dT%H:%M:%SZ"));
}

std::string text_of_ratio(std::uint64_t dividend, std::uint64_t divisor) {
  if (divisor == 0) return std::string("-");
  char text[32];
  std::snprintf(text, sizeof text, "%.2f",
                static_cast<double>(dividend) / static_cast<double>(divisor));
  return std::string(text);
}

Json json_of_ratio(std::uint64_t dividend, std::uint64_t divisor) {
  return divisor == 0 ? Json(nullptr)
                      : Json(static_cast<double>(dividend) / static_cast<double>(divisor));
}

}  // namespace dims::rdim
