// Who may sign what: one table, and nothing else decides it.
//
// A signer is what the log says of his key just before the record. OrgState::apply() asks here
// first; what must hold whoever signs (ids are new, epochs count up ...) is checked there.
// Threads: constants.
#pragma once

#include "common/trust/bodies.h"

namespace dims::trust {

enum class SignerRole : std::uint8_t {
  kRoot,
  kAdministrator,
  kOperator,
  kUser,
  kMachine,
  kMachineJoin,  // a join key for a machine
  kUserJoin,     // a join key for a user
  kStranger,     // unknown, replaced, spent, disabled, removed, revoked
};
inline constexpr SignerRole kAllSignerRoles[] = {
    SignerRole::kRoot,    SignerRole::kAdministrator, SignerRole::kOperator, SignerRole::kUser,
    SignerRole::kMachine, SignerRole::kMachineJoin,   SignerRole::kUserJoin, SignerRole::kStranger};
std::string_view signer_role_name(SignerRole role);

enum class Rule : std::uint8_t {
  kNever,
  kAlways,
  kFirst,     // as the first record of the log only
  kSelf,      // about himself only
  kMachines,  // about machines' join keys only
  kToken,     // what the join key says, once
  kImage,     // images that he administers, or a new image of his own
  kScope,     // administrators: the organisation's domain and all images; others: images that
              // they administer; everyone: his own private domain
};

Rule rule_of(RecordKind kind, SignerRole role);

}  // namespace dims::trust
