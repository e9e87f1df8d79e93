// What a login leaves when the user's own keys are gone again: the keys of one image and a session
// that he has certified.
//
// Threads: values. Ownership: secrets are in the value; wiped when it goes. Errors: kCorrupt of
// decode. Durable: nothing; encode is for the pipe from the process that logged in.
#pragma once

#include "common/format/key_file.h"
#include "nbdkit-ldim/login/machine_folder.h"

namespace dims::ldim {

struct SessionKeys {
  format::KeyFile keys;  // without check_signer, until standing_keys()
  ImageId image;
  Bytes certificate;
  bool offline = false;
};

Bytes encode_session_keys(const SessionKeys& keys);
Result<SessionKeys> decode_session_keys(ByteView bytes);

// The token of a machine that works for that session's user; logs in at its first use.
std::shared_ptr<client::LoginToken> session_token(const MachineFolder& folder,
                                                  const SessionKeys& keys);
// Adds what decides whether a version was made by a writer: the log that this machine knows, read
// again when a version is from beyond it; certificates of this folder or of the server. The folder
// outlives the keys.
Result<format::KeyFile> standing_keys(MachineFolder& folder, const SessionKeys& session,
                                      std::shared_ptr<client::LoginToken> token);

}  // namespace dims::ldim
