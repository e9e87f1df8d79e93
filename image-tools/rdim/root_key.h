// rdim org rescue, and the root key's file in the configuration folder.
#pragma once

#include "image-tools/rdim/session.h"

namespace dims::rdim {

// Sealed under words of its own, which are shown.
Status keep_root_key(const Output& output, const client::OrgFolder& folder,
                     const crypto::SecretSigner& root, Json& json);
// A file of before, which opens with that user's own key: sealed anew, before he gets another one.
Status reseal_root_key(const Output& output, const client::OrgFolder& folder,
                       const trust::UserSecrets& secrets, Json& json);

void add_rescue_command(CLI::App& org, Command& run);

}  // namespace dims::rdim
