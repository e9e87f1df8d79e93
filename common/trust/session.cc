#include "common/trust/session.h"

#include <algorithm>

#include "common/base/wire.h"
#include "common/crypto/hash.h"

namespace dims::trust {
namespace {

constexpr std::uint32_t kMagic = 0x31534553;  // "SES1"

Bytes encode_unproved(const SessionCertificate& c) {
  Bytes out;
  Writer w(out);
  w.u32(kMagic);
  w.u16(1);
  w.u16(static_cast<std::uint16_t>(c.images.size()));
  w.id(c.org);
  w.id(c.user);
  w.id(c.machine);
  w.id(c.session_key);
  w.u64(c.from_unix_s);
  w.u64(c.to_unix_s);
  w.u64(c.position.seq);
  w.id(c.position.hash);
  for (const SessionImage& image : c.images) {
    w.id(image.image);
    w.u32(static_cast<std::uint32_t>(image.access));
  }
  return out;
}

Bytes encode_unsigned(const SessionCertificate& c) {
  Bytes out = encode_unproved(c);
  Writer(out).id(c.proof);
  return out;
}

Error corrupt(const std::string& what) {
  return make_error(ErrorCode::kCorrupt, "session certificate: " + what);
}
Error untrusted(const std::string& what) {
  return make_error(ErrorCode::kUntrusted, "session certificate: " + what, "log in again");
}

const SessionImage* find_image(const SessionCertificate& c, const ImageId& image) {
  const auto found = std::find_if(c.images.begin(), c.images.end(),
                                  [&](const SessionImage& i) { return i.image == image; });
  return found == c.images.end() ? nullptr : &*found;
}

}  // namespace

SessionCertificate make_session(const OrgState& org, const UserId& user, const MachineId& machine,
                                std::vector<SessionImage> images, std::uint64_t from_unix_s,
                                std::uint64_t to_unix_s, const crypto::SecretSigner& session_key,
                                const crypto::SecretSigner& user_key) {
  SessionCertificate c;
  c.org = org.org();
  c.user = user;
  c.machine = machine;
  c.session_key = session_key.public_key;
  c.from_unix_s = from_unix_s;
  c.to_unix_s = std::min(to_unix_s, from_unix_s + org.policy().session_max_s);
  c.position = org.position();
  c.images = std::move(images);
  c.proof = session_key.sign("session-proof", c.org, encode_unproved(c));
  c.signature = user_key.sign("session", c.org, encode_unsigned(c));
  return c;
}

Bytes encode_session(const SessionCertificate& certificate) {
  Bytes out = encode_unsigned(certificate);
  Writer(out).id(certificate.signature);
  return out;
}

Result<SessionCertificate> decode_session(ByteView bytes) {
  Reader r(bytes);
  if (bytes.size() > kSessionBytesMax || r.u32() != kMagic) return corrupt("not a certificate");
  if (r.u16() != 1)
    return make_error(ErrorCode::kUnsupported, "session certificate of an unknown format",
                      "update this program");
  SessionCertificate c;
  const std::size_t count = r.u16();
  c.org = r.id<OrgId>();
  c.user = r.id<UserId>();
  c.machine = r.id<MachineId>();
  c.session_key = r.id<PublicKey>();
  c.from_unix_s = r.u64();
  c.to_unix_s = r.u64();
  c.position.seq = r.u64();
  c.position.hash = r.id<Digest>();
  if (count == 0 || count > kSessionImagesMax) return corrupt("for no image, or for too many");
  for (std::size_t i = 0; i < count && r.ok(); ++i) {
    SessionImage image;
    image.image = r.id<ImageId>();
    const std::uint32_t access = r.u32();
    if (access != 1 && access != 2) return corrupt("of an unknown access");
    image.access = static_cast<Access>(access);
    if (find_image(c, image.image) != nullptr) return corrupt("names an image twice");
    c.images.push_back(image);
  }
  c.proof = r.id<Signature>();
  c.signature = r.id<Signature>();
  if (!r.at_end()) return corrupt("of a wrong length");
  return c;
}

Status check_session(const OrgState& org, const SessionCertificate& c) {
  if (c.org != org.org()) return untrusted("it is another organisation's");
  if (c.position.seq > org.position().seq)
    return make_error(ErrorCode::kOtherHistory,
                      "session certificate: made on a log that is ahead of this one",
                      "read the log and try again");
  if (org.hash_at(c.position.seq) != c.position.hash)
    return make_error(ErrorCode::kOtherHistory,
                      "session certificate: made on another log than this one",
                      "the server shows two histories; ask your administrator");
  if (c.from_unix_s >= c.to_unix_s) return untrusted("its times make no sense");
  if (c.to_unix_s - c.from_unix_s > org.policy_at(c.position.seq).session_max_s)
    return untrusted("it lasts longer than the policy allows");
  if (!org.was_active(c.user, c.position.seq)) return untrusted("its user was not active");
  const auto keys = org.keys_at(c.user, c.position.seq);
  if (!keys || !crypto::verify(keys->sign_key, "session", c.org, encode_unsigned(c), c.signature))
    return untrusted("its user did not sign it");
  if (!crypto::verify(c.session_key, "session-proof", c.org, encode_unproved(c), c.proof))
    return untrusted("its key is not proved");
  if (!c.machine.is_zero() && org.machine(c.machine) == nullptr)
    return untrusted("its machine is unknown");
  for (const SessionImage& image : c.images)
    if (org.access_at(c.user, image.image, c.position.seq) < image.access)
      return untrusted("it claims more than its user had");
  return ok_status();
}

Status check_session_use(const OrgState& org, const SessionCertificate& c, const SessionUse& use) {
  DIMS_TRY(check_session(org, c));
  if (c.machine != use.machine) return untrusted("it is for another machine");
  const SessionImage* const image = find_image(c, use.image);
  if (image == nullptr) return untrusted("it is for other images");
  if (image->access < use.need) return untrusted("it allows reading only");
  if (use.now_unix_s + kClockSkew_s < c.from_unix_s || use.now_unix_s > c.to_unix_s + kClockSkew_s)
    return make_error(ErrorCode::kDeadlineExceeded, "session certificate: its time is over",
                      "log in again");
  const auto gone = [](const std::string& what) {
    return make_error(ErrorCode::kPermissionDenied, "session: " + what, "ask your administrator");
  };
  const Machine* const machine = org.machine(c.machine);
  if (machine != nullptr && machine->revoked) return gone("this machine has been revoked");
  if (org.access(c.user, use.image) < use.need) return gone("its user has lost this right");
  const User* const user = org.user(c.user);
  const auto then = org.keys_at(c.user, c.position.seq);
  if (user->keys.sign_key != then->sign_key) return gone("its user has new keys");
  return ok_status();
}

}  // namespace dims::trust
