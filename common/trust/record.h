// One signed record of the organisation's log (docs/formats/org-log.md).
//
// A record names its organisation, its number and the hash of the record before it; its signature
// covers all of that, so it is good in one place of one log only. That its signer may say what it
// says is OrgState's question (org_state.h).
// Threads: values. Errors: kCorrupt, kUnsupported; kUntrusted for a wrong signature.
#pragma once

#include "common/trust/bodies.h"

namespace dims::trust {

inline constexpr std::size_t kRecordHeadBytes = 128;
inline constexpr std::size_t kRecordBytesMax = 1024;

struct LogRecord {
  OrgId org;
  std::uint64_t seq = 0;
  Digest previous;                // zero for the first
  std::uint64_t time_unix_s = 0;  // for people, and for the expiry of join keys
  PublicKey signer;
  Body body;
  Bytes bytes;  // as encoded and signed
  Digest hash;  // SHA-256 of bytes

  RecordKind kind() const { return kind_of(body); }
};

// The record that follows `after` (nullptr: the first), signed.
LogRecord make_record(const OrgId& org, const Position* after, std::uint64_t time_unix_s,
                      const Body& body, const crypto::SecretSigner& signer);
// Checks form and signature, nothing else.
Result<LogRecord> decode_record(ByteView bytes);

OrgId org_of(const PublicKey& root_key);

}  // namespace dims::trust
