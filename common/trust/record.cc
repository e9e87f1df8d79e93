#include "common/trust/record.h"

#include "common/base/wire.h"
#include "common/crypto/hash.h"

namespace dims::trust {
namespace {

constexpr std::uint32_t kMagic = 0x31474f4c;  // "LOG1"
constexpr std::uint16_t kFormat = 1;
constexpr std::size_t kSignatureBytes = Signature::kBytes;

Error corrupt(const std::string& what) {
  return make_error(ErrorCode::kCorrupt, "log record: " + what);
}

}  // namespace

OrgId org_of(const PublicKey& root_key) {
  OrgId org;
  org.bytes = crypto::sha256(root_key.view()).bytes;
  return org;
}

LogRecord make_record(const OrgId& org, const Position* after, std::uint64_t time_unix_s,
                      const Body& body, const crypto::SecretSigner& signer) {
  LogRecord record;
  record.org = org;
  record.seq = after == nullptr ? 0 : after->seq + 1;
  if (after != nullptr) record.previous = after->hash;
  record.time_unix_s = time_unix_s;
  record.signer = signer.public_key;
  record.body = body;
  const Bytes inner = encode_body(body);
  Writer w(record.bytes);
  w.u32(kMagic);
  w.u16(kFormat);
  w.u16(static_cast<std::uint16_t>(record.kind()));
  w.u64(record.seq);
  w.id(org);
  w.id(record.previous);
  w.u64(time_unix_s);
  w.id(record.signer);
  w.u32(static_cast<std::uint32_t>(inner.size()));
  w.u32(0);
  w.raw(inner);
  w.id(signer.sign("log", org, record.bytes));
  record.hash = crypto::sha256(record.bytes);
  return record;
}

Result<LogRecord> decode_record(ByteView bytes) {
  if (bytes.size() < kRecordHeadBytes + kSignatureBytes || bytes.size() > kRecordBytesMax)
    return corrupt("its length of " + std::to_string(bytes.size()) + " bytes is impossible");
  Reader r(bytes);
  if (r.u32() != kMagic) return corrupt("this is not a log record");
  if (r.u16() != kFormat)
    return make_error(ErrorCode::kUnsupported, "log record of an unknown format",
                      "update this program");
  LogRecord record;
  const auto kind = static_cast<RecordKind>(r.u16());
  record.seq = r.u64();
  record.org = r.id<OrgId>();
  record.previous = r.id<Digest>();
  record.time_unix_s = r.u64();
  record.signer = r.id<PublicKey>();
  const std::uint32_t body_bytes = r.u32();
  if (r.u32() != 0) return corrupt("reserved bytes are not zero");
  if (body_bytes != bytes.size() - kRecordHeadBytes - kSignatureBytes)
    return corrupt("its body's length does not fit");
  auto body = decode_body(kind, r.raw(body_bytes));
  if (!body.ok()) return body.error();
  record.body = std::move(*body);
  const auto signature = r.id<Signature>();
  if (!crypto::verify(record.signer, "log", record.org, bytes.first(bytes.size() - kSignatureBytes),
                      signature))
    return make_error(ErrorCode::kUntrusted,
                      "log record " + std::to_string(record.seq) + ": its signature is wrong");
  record.bytes.assign(bytes.begin(), bytes.end());
  record.hash = crypto::sha256(bytes);
  return record;
}

}  // namespace dims::trust
