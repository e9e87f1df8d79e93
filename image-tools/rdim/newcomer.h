// A user who makes himself: by the key of a join line, or an administrator by the root key.
// Threads: the main thread. Durable on return: the user, on the server.
#pragma once

#include "common/client/member.h"

namespace dims::rdim {

struct Newcomer {
  trust::UserId user;
  std::string name;
  trust::Role role = trust::Role::kUser;
};
// With new keys under that passphrase; `log` goes on to the record that says so. Errors:
// kAlreadyExists (the name), those of the call.
Result<trust::NewUser> enroll_user(client::AccessClient& access, trust::OrgLog& log,
                                   const Newcomer& who, ByteView passphrase,
                                   const crypto::SecretSigner& key);

}  // namespace dims::rdim
