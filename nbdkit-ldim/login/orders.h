// What the organisation's log orders a machine, and doing it.
//
// Nothing here comes from the server's word: the log was checked against what this machine had
// pinned, and a wipe or revocation in it is signed by who may say so.
// Threads: free functions; carry_out() takes the folder's lock. Errors: kConflict (a login holds
// the folder), those of the parts; what could not be removed is logged. Durable on return of
// carry_out(): that it was done.
#pragma once

#include "nbdkit-ldim/login/machine_folder.h"

namespace dims::ldim {

struct Orders {
  std::optional<trust::Wipe> wipe;  // beyond the one that was obeyed
  bool revoked = false;
  bool any() const { return wipe.has_value() || revoked; }
};
Orders orders_of(const trust::OrgState& org, const MachineId& machine, std::uint64_t obeyed_seq);

// For the user: what happened and what to do.
Error explain(const Orders& orders, const std::string& machine_name);

// By a process that serves `cache_folder` (empty: none) and has stopped to: another one may have
// obeyed for the machine already; then this folder alone is left to erase.
Status carry_out(const Orders& orders, const std::string& machine_folder,
                 const std::string& cache_folder);

}  // namespace dims::ldim
