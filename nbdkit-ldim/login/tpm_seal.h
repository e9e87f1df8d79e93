// A key that only this machine's TPM gives out: it seals the machine's file, so that the folder is
// of no use on another machine (docs/formats/machine-folder.md, `machine-tpm`).
//
// tpm2-tools do the work (programs of Debian's package): a key under the owner hierarchy's primary
// key, no password, no PCRs: what a thief of the disk lacks, not what a thief of the machine lacks.
// Threads: thread-safe. Errors: kNotFound (no TPM, or no tpm2-tools), kWrongKey (another TPM, or
// one that was cleared), kCorrupt. Units: bytes. Durable on return: the file. The key stays in
// locked memory for the life of the process: a TPM is slow.
#pragma once

#include <string>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/crypto/held_key.h"

namespace dims::ldim {

// A device (/dev/tpmrm0), or TPM2TOOLS_TCTI says where one is; and the tools are installed.
bool has_tpm();
// Makes FOLDER/machine-tpm.
Result<crypto::HeldKey> make_tpm_seal(const std::string& folder, Random& random);
Result<bool> has_tpm_seal(const std::string& folder);
Result<crypto::HeldKey> open_tpm_seal(const std::string& folder);

}  // namespace dims::ldim
