// rdim user passwd, recover: another passphrase, other keys.
#pragma once

#include "image-tools/rdim/session.h"

namespace dims::rdim {

void add_user_key_commands(CLI::App& user, Command& run);

}  // namespace dims::rdim
