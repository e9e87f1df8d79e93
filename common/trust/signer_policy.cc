#include "common/trust/signer_policy.h"

#include <algorithm>

#include "common/trust/grant.h"

namespace dims::trust {
namespace {

Error untrusted(const format::VersionRecord& record, const std::string& what) {
  return make_error(ErrorCode::kUntrusted,
                    "version " + std::to_string(record.sequence) + ": " + what,
                    "the server gives out a version that no writer of this image made");
}

}  // namespace

Status KeyFileSigner::check(const format::VersionRecord& record) {
  return record.signer == key_ ? ok_status()
                               : Status(untrusted(record, "it is signed by another key"));
}

Status OrgSigner::check(const format::VersionRecord& record) {
  const auto bytes = certificates_(record.signer);
  if (!bytes.ok()) return bytes.error();
  const auto certificate = decode_session(*bytes);
  if (!certificate.ok()) return certificate.error();
  return check_version_signer(org_, record, listed_, *certificate);
}

Status check_version_signer(const OrgState& org, const format::VersionRecord& record,
                            const ImageId& listed, const SessionCertificate& certificate) {
  if (record.org != org.org()) return untrusted(record, "it is another organisation's");
  if (record.signer != certificate.session_key)
    return untrusted(record, "its certificate is another session's");
  DIMS_TRY(check_session(org, certificate));
  if (record.machine != certificate.machine)
    return untrusted(record, "it was made on another machine than its session's");
  const bool writes = std::any_of(certificate.images.begin(), certificate.images.end(),
                                  [&](const SessionImage& image) {
                                    return image.image == listed && image.access >= Access::kWrite;
                                  });
  if (!writes) return untrusted(record, "its session may not write this image");
  const std::uint64_t time_s = record.time_unix_ns / 1'000'000'000;
  if (time_s + kClockSkew_s < certificate.from_unix_s ||
      time_s > certificate.to_unix_s + kClockSkew_s)
    return untrusted(record, "it was made outside its session's time");
  const ScopeId id = scope_id(listed);
  const Epoch* const epoch = org.epoch(KeyScope::kImage, id, record.image_epoch);
  if (epoch == nullptr) return untrusted(record, "of an image epoch that the log does not know");
  if (certificate.position.seq < epoch->since_seq)
    return untrusted(record, "of an image epoch that began after its session");
  const Epoch* const next = org.epoch(KeyScope::kImage, id, record.image_epoch + 1);
  if (!(record.image == listed)) return ok_status();  // a branch: numbers of its own
  if (record.sequence <= epoch->body.last_sequence)
    return untrusted(record, "of an image epoch that began after its number");
  if (next == nullptr) return ok_status();
  if (record.sequence > next->body.last_sequence)
    return untrusted(record, "of an image epoch that had ended before it");
  if (record.sequence == next->body.last_sequence &&
      !(format::version_id(record) == next->body.last_version))
    return untrusted(record, "not the one that the log names as the last of its image epoch");
  return ok_status();
}

std::uint64_t head_floor(const OrgState& org, const ImageId& image) {
  const Epoch* const newest = org.epoch(KeyScope::kImage, scope_id(image));
  return newest == nullptr ? 0 : newest->body.last_sequence;
}

Status may_commit(const OrgState& org, const format::VersionRecord& record, const ImageId& listed,
                  const SessionCertificate& certificate) {
  DIMS_TRY(check_version_signer(org, record, listed, certificate));
  if (org.epoch(KeyScope::kImage, scope_id(listed), record.image_epoch + 1) != nullptr)
    return untrusted(record, "of an image epoch that had ended before it");
  return ok_status();
}

}  // namespace dims::trust
