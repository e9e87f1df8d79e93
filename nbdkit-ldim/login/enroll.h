// Enrolling a machine with a join line: it makes its own keys, and the line's one-time key signs
// its certificate. One whose answer was lost is finished by the same call again.
// Threads: one. Errors: kAlreadyExists (a machine is enrolled there), kPermissionDenied (the line
// was used), kOtherHistory, kUnavailable. Durable on return: the machine's folder.
#pragma once

#include "nbdkit-ldim/login/machine_folder.h"

namespace dims::ldim {

struct Enrolled {
  std::string name;
  MachineId machine;
  std::string organisation, server;
  bool sealed = false;  // the machine's file, by a credential or the TPM
  bool tpm = false;
};
// kAuto: if there is one that works, and no credential.
enum class UseTpm { kNo, kAuto, kYes };
// `name` empty: what the line says, else the host's.
Result<Enrolled> enroll(const std::string& folder, const std::string& join_line,
                        const std::string& name, UseTpm tpm);

}  // namespace dims::ldim
