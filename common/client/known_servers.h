// Who a server is: the fingerprint of its certificate, given by the user, remembered from the first
// contact, or learned at this one.
//
// A known-servers file has one line a server, "HOST:PORT FINGERPRINT"; the last line of an address
// counts. What is no such line is skipped: a power cut may leave half a line, which is a contact
// that did not happen. Names and issuers of certificates mean nothing.
//
// Threads: thread-safe. Ownership: shared by the channels of one client, and by its maker if he
// wants to ask it. Errors of check():
// kPermissionDenied (another certificate, an expired one), kCorrupt (no certificate), kIo (the file
// cannot be read). Durable on return of check(): the new line, as well as the file system can; a
// file that cannot be written is a warning in the log.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/parse.h"

namespace dims::client {

struct KnownServers {
  std::string path;      // empty: known as long as the client lives
  bool remember = true;  // false: read the file, never write it
  // Not empty: write only while this file exists; the next handshake, or settle(), tries again.
  std::string not_before;
};

// $DIMS_CONFIG/known-servers, or that of $XDG_CONFIG_HOME/dims or ~/.config/dims; empty without
// any.
std::string user_known_servers();

class ServerPin {
 public:
  ServerPin(ServerAddress server, KnownServers known, Clock& clock = system_clock());
  // Whether a server with this certificate may be spoken to. The first one seen is remembered.
  Status check(const std::string& certificate_pem);
  // Writes down what was accepted and is not in the file yet.
  void settle();
  // The certificate that was accepted last.
  std::optional<Digest> accepted() const;

 private:
  Result<std::optional<Digest>> remembered() const;  // under mutex_, as remember()
  void remember(const Digest& fingerprint);

  const ServerAddress server_;
  const KnownServers known_;
  Clock& clock_;
  mutable std::mutex mutex_;
  std::optional<Digest> accepted_;
};

}  // namespace dims::client
