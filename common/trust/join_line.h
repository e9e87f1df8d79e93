// A join line: what an administrator hands to a new machine or user, as one word of ASCII.
//
//   dims-join:ADDRESS#PAYLOAD     (docs/formats/join-line.md)
//
// It pins everything that a newcomer must not believe the server: the server's certificate, the
// organisation, a position of its log. The 128-bit token in it makes a one-time key (join_key());
// that key's public half stands in the log with what it is good for, and signs the newcomer's own
// certificate. So the server learns no token and can certify nobody.
// Threads: values. Errors: kInvalidArgument saying what is wrong with the line; kUnsupported.
#pragma once

#include "common/base/clock.h"
#include "common/trust/org_state.h"

namespace dims::trust {

inline constexpr std::size_t kJoinTokenBytes = 16;
inline constexpr std::size_t kJoinAddressBytesMax = 255;

struct JoinLine {
  std::string address;  // HOST:PORT or unix:PATH
  Digest server;        // fingerprint: SHA-256 of the certificate; zeros: a UNIX socket
  OrgId org;
  Position position;  // of the log when the line was made
  bool for_machine = false;
  crypto::SecretBytes token;  // kJoinTokenBytes, secret

  crypto::SecretSigner join_key() const;
};

crypto::SecretBytes make_join_token(Random& random);
std::string encode_join_line(const JoinLine& line);
Result<JoinLine> parse_join_line(std::string_view text);

}  // namespace dims::trust
