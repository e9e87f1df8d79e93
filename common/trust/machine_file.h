// What makes a machine a machine: its id and name, its signing key, its secret S, and the server
// and organisation that it belongs to (docs/formats/machine-file.md). One file, mode 0600, sealed
// when somebody holds a key for it (a TPM, a service's credential).
//
// Threads: values. Ownership: secrets are moved. Errors: kCorrupt, kUnsupported, kWrongKey (sealed
// and no key, or another one), kPermissionDenied (others may read the file). Durable:
// save_machine() on return.
#pragma once

#include "common/base/clock.h"
#include "common/trust/org_state.h"

namespace dims::trust {

struct MachineFile {
  OrgId org;
  MachineId machine;
  std::string name;
  std::string server_address;  // HOST:PORT or unix:PATH
  Digest server;               // fingerprint of its certificate
  crypto::SecretSigner sign;
  crypto::SecretKey secret;           // S: wraps what is kept here for users
  std::uint64_t obeyed_wipe_seq = 0;  // log record of the last wipe that was done; 0: none

  // The log's certificate of this machine, with its proof.
  MachineCert certificate() const;
};

MachineFile make_machine(const OrgId& org, const std::string& name, Random& random);
// `seal` nullptr: not sealed.
crypto::SecretBytes encode_machine(const MachineFile& machine, const Secret32* seal,
                                   Random& random);
Result<MachineFile> decode_machine(ByteView bytes, const Secret32* seal);

Status save_machine(const std::string& path, const MachineFile& machine, const Secret32* seal,
                    Random& random);
Result<MachineFile> load_machine(const std::string& path, const Secret32* seal);

// The wipe that this machine has yet to obey, if there is one.
std::optional<Wipe> wipe_due(const OrgState& org, const MachineFile& machine);

}  // namespace dims::trust
