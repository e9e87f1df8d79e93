// A session's certificate: a fresh key, certified by a user's key, for one machine, some images and
// a span of time. With it the user's own keys can be wiped from memory while the disk works on.
//
// Both keys sign: the user says whom he trusts, the session's key that it is nobody else's (so that
// nobody certifies another's key as his own). The certificate names the position of the log at
// which its user stood.
// Threads: thread-safe. Ownership: values. Units: seconds since 1970 UTC.
// Errors: kCorrupt, kUnsupported (form); kUntrusted (signatures, another organisation, a user or
// machine that the log does not vouch for, another machine or image); kDeadlineExceeded (out of
// time); kPermissionDenied (rights that are gone by now); kOtherHistory (another log).
#pragma once

#include "common/trust/org_state.h"

namespace dims::trust {

struct SessionImage {
  ImageId image;
  Access access = Access::kRead;  // kRead or kWrite
  friend bool operator==(const SessionImage&, const SessionImage&) = default;
};

struct SessionCertificate {
  OrgId org;
  UserId user;
  MachineId machine;
  PublicKey session_key;
  std::uint64_t from_unix_s = 0, to_unix_s = 0;
  Position position;
  std::vector<SessionImage> images;  // 1 to kSessionImagesMax
  Signature proof;                   // by session_key, type "session-proof"
  Signature signature;               // by the user's key, type "session"
};

inline constexpr std::size_t kSessionImagesMax = 64;
inline constexpr std::size_t kSessionBytesMax = 192 + kSessionImagesMax * 20 + 128;
// A clock may be this much ahead or behind.
inline constexpr std::uint64_t kClockSkew_s = 600;

// Signs with both keys. The length is cut to the policy's.
SessionCertificate make_session(const OrgState& org, const UserId& user, const MachineId& machine,
                                std::vector<SessionImage> images, std::uint64_t from_unix_s,
                                std::uint64_t to_unix_s, const crypto::SecretSigner& session_key,
                                const crypto::SecretSigner& user_key);
Bytes encode_session(const SessionCertificate& certificate);
// Form only.
Result<SessionCertificate> decode_session(ByteView bytes);

// Whoever made it might: signatures, keys and rights as of its position of the log. For versions
// that were written in the past.
Status check_session(const OrgState& org, const SessionCertificate& certificate);

struct SessionUse {
  MachineId machine;
  ImageId image;
  Access need = Access::kRead;
  std::uint64_t now_unix_s = 0;
};
// check_session(), and that it is good for this now: machine, image, time, and the rights of today.
Status check_session_use(const OrgState& org, const SessionCertificate& certificate,
                         const SessionUse& use);

}  // namespace dims::trust
