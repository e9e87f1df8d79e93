#include "common/trust/types.h"

#include <algorithm>

namespace dims::trust {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kUser:
      return "user";
    case Role::kOperator:
      return "operator";
    case Role::kAdministrator:
      return "administrator";
  }
  return "?";
}

std::string_view status_name(UserStatus status) {
  switch (status) {
    case UserStatus::kActive:
      return "active";
    case UserStatus::kDisabled:
      return "disabled";
    case UserStatus::kRemoved:
      return "removed";
  }
  return "?";
}

std::string_view access_name(Access access) {
  switch (access) {
    case Access::kNone:
      return "none";
    case Access::kRead:
      return "read";
    case Access::kWrite:
      return "write";
    case Access::kAdmin:
      return "admin";
  }
  return "?";
}

Result<Role> parse_role(std::string_view text) {
  for (const Role role : {Role::kUser, Role::kOperator, Role::kAdministrator})
    if (role_name(role) == text) return role;
  return make_error(ErrorCode::kInvalidArgument, "unknown role '" + std::string(text) + "'",
                    "one of user, operator, administrator");
}

Result<Access> parse_access(std::string_view text) {
  for (const Access access : {Access::kNone, Access::kRead, Access::kWrite, Access::kAdmin})
    if (access_name(access) == text) return access;
  return make_error(ErrorCode::kInvalidArgument, "unknown access '" + std::string(text) + "'",
                    "one of none, read, write, admin");
}

bool is_valid_name(std::string_view name) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '@';
  };
  return !name.empty() && name.size() <= kNameBytesMax && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), fits);
}

Status check_name(std::string_view what, std::string_view name) {
  if (is_valid_name(name)) return ok_status();
  return make_error(ErrorCode::kInvalidArgument, std::string(what) + " is not a valid name",
                    "1 to 64 letters, digits, '.', '_', '-' or '@', not beginning with '-'");
}

}  // namespace dims::trust
