// Where a passphrase comes from: a prompt, a file, an open file descriptor; never the command line,
// where everybody on the machine can read it.
//
//   (nothing) or "-"  asked on the terminal     +FILE  that file's first line     -FD  that
//   descriptor's first line
//
// Threads: the main thread. Errors: kInvalidArgument (form, an empty passphrase, no terminal), kIo.
#pragma once

#include <string>

#include "common/base/result.h"
#include "common/crypto/secret.h"

namespace dims::client {

// `what` is said at the prompt, e.g. "Passphrase of ann". twice: ask again, for new ones.
Result<crypto::SecretBytes> read_passphrase(const std::string& source, const std::string& what,
                                            bool twice);
// The same for other secrets of one line; an empty `source` is a prompt.
Result<crypto::SecretBytes> read_line_of(const std::string& source, const std::string& what);

}  // namespace dims::client
