// What `rdim login` leaves for the commands after it: the user's open keys, sealed with a key that
// lies in memory only (the user's runtime folder, else /dev/shm) and so ends with the host's run.
// A stolen disk has the sealed file and nothing that opens it.
//
// Threads: one. Errors: kNotFound: nobody is logged in, or not any more; kCorrupt. Durable: nothing
// on purpose.
#pragma once

#include "common/client/member.h"

namespace dims::rdim {

struct LoginFile {
  std::string name;
  trust::UserSecrets secrets;
  crypto::SecretSigner login;  // logs in again when the server's token has ended
  std::uint64_t ends_unix_s = 0;
  trust::SessionToken token;  // the server's, so that not every command is a login; zero: none
  std::string token_server;   // which server's, as it was named
};

// $DIMS_CONFIG, $XDG_CONFIG_HOME/dims, ~/.config/dims; made (0700) when missing.
Result<std::string> config_folder();

Status save_login(const std::string& folder, const LoginFile& login, Random& random);
Result<LoginFile> load_login(const std::string& folder, Clock& clock);
Status remove_login(const std::string& folder);
bool has_login(const std::string& folder);

}  // namespace dims::rdim
