// One thing that a check found: what, where, how bad, what to do. The code is an enum of the part
// that was checked, so that tests and repairs need not read text.
//
// Threads: values. Units: bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dims {

enum class Severity {
  kNote,     // as a crash leaves it; the next start clears it away
  kWarning,  // damaged, and nothing is lost by it
  kDamage,   // something that was promised is not there, or cannot be reached
};

inline std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kWarning:
      return "warning";
    case Severity::kDamage:
      return "damage";
  }
  return "?";
}

template <typename Code>
struct Finding {
  Code code{};
  Severity severity = Severity::kDamage;
  std::string where;         // a path
  std::uint64_t offset = 0;  // in it, if that says anything
  std::string text;          // what is wrong
  std::string todo;          // what to do
};

}  // namespace dims
