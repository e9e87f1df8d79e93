// What rdim prints: people's text or JSON, errors included, and what its exit codes mean.
// Threads: the main thread only. Errors go to stderr as text, or to stdout as {"error": ...}.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/base/result.h"

namespace dims::rdim {

using Json = nlohmann::ordered_json;

// The one table of exit codes (docs/man/rdim.1.md).
enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitNotFound = 3,
  kExitRefused = 4,
  kExitUnreachable = 5,
  kExitKey = 6,
  kExitDamaged = 7,
  kExitNoSpace = 8,
  kExitRepaired = 9,  // damage was found, and all of it mended
  kExitInterrupted = 130,
};
ExitCode exit_code_of(ErrorCode code);

class Output {
 public:
  void use_json(bool json) { json_ = json; }
  // Nothing may be mixed into standard output: it carries a disk.
  void use_stderr() { to_stderr_ = true; }
  bool json() const { return json_; }

  void text(const std::string& line) const;  // ignored with JSON
  // What must be seen even if the command never ends: with JSON on stderr.
  void note(const std::string& line) const;
  void document(const Json& json) const;     // ignored without
  ExitCode error(const Error& error) const;  // prints it
  // Columns aligned; the first row is the heading.
  void table(const std::vector<std::vector<std::string>>& rows) const;

 private:
  bool json_ = false;
  bool to_stderr_ = false;
};

Json json_of(const Error& error);
// "2026-01-31 13:00:05 UTC", and the same as ISO 8601 for JSON; "-" and null for 0.
std::string text_of_time(std::uint64_t unix_ns);
Json json_of_time(std::uint64_t unix_ns);
// "1.53"; "-" if the divisor is 0.
std::string text_of_ratio(std::uint64_t dividend, std::uint64_t divisor);
Json json_of_ratio(std::uint64_t dividend, std::uint64_t divisor);

}  // namespace dims::rdim
