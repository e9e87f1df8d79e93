// The words in which OrgState refuses a record. Private to common/trust.
#pragma once

#include "common/trust/record.h"

namespace dims::trust {

inline Error untrusted(const LogRecord& record, const std::string& why) {
  return make_error(ErrorCode::kUntrusted, "log record " + std::to_string(record.seq) + " (" +
                                               std::string(record_kind_name(record.kind())) +
                                               "): " + why);
}
inline Error senseless(ErrorCode code, const std::string& why) {
  return make_error(code, "log: " + why);
}
inline Error invalid(const std::string& why) { return senseless(ErrorCode::kInvalidArgument, why); }

}  // namespace dims::trust
