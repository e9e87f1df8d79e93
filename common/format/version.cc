#include "common/format/version.h"

#include <algorithm>

#include "common/base/wire.h"
#include "common/crypto/aead.h"

namespace dims::format {
namespace {

constexpr std::uint32_t kVersionMagic = 0x31524556;  // "VER1"
constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kSignedBytes = kVersionRecordBytes - 64;

Bytes encode_body(const VersionRecord& v) {
  Bytes out;
  out.reserve(kVersionRecordBytes);
  Writer w(out);
  w.u32(kVersionMagic);
  w.u32(kFormat);
  w.id(v.org);
  w.id(v.parent);
  w.id(v.image);
  w.id(v.root.domain);
  w.id(v.root.id);
  w.raw(v.sealed_root_key);
  w.u64(v.image_bytes);
  w.u16(v.tree.leaf_pages);
  w.u16(v.tree.fanout);
  w.u32(v.tree.chunk_mean_bytes);
  w.id(v.generation);
  w.u64(v.sequence);
  w.id(v.commit.journal);
  w.u64(v.commit.epoch);
  w.id(v.commit.digest);
  w.u32(v.domain_epoch);
  w.u32(v.image_epoch);
  w.u64(v.time_unix_ns);
  w.id(v.machine);
  w.id(v.signer);
  w.pad_to(kSignedBytes);
  return out;
}

Bytes root_key_ad(const VersionRecord& v) {
  Bytes ad;
  Writer w(ad);
  w.raw(as_bytes("dims/root-key/1"));
  w.id(v.org);
  w.id(v.image);
  w.u64(v.sequence);
  w.id(v.root.domain);
  w.id(v.root.id);
  return ad;
}

}  // namespace

Bytes encode_version(VersionRecord record, const crypto::SigningKey& key) {
  record.signer = key.public_key;
  Bytes out = encode_body(record);
  const crypto::Signature signature = crypto::sign(key, "version", record.org, out);
  out.insert(out.end(), signature.bytes.begin(), signature.bytes.end());
  return out;
}

Result<VersionRecord> decode_version(ByteView bytes, bool verify) {
  const auto corrupt = [](const char* what) {
    return make_error(ErrorCode::kCorrupt, std::string("version record is damaged: ") + what);
  };
  if (bytes.size() != kVersionRecordBytes) return corrupt("length");
  Reader r(bytes);
  if (r.u32() != kVersionMagic) return corrupt("magic");
  if (r.u32() != kFormat) {
    return make_error(ErrorCode::kUnsupported, "version record of an unknown format",
                      "update this program");
  }
  VersionRecord v;
  v.org = r.id<OrgId>();
  v.parent = r.id<VersionId>();
  v.image = r.id<ImageId>();
  v.root.domain = r.id<DomainId>();
  v.root.id = r.id<ObjectId>();
  const ByteView sealed = r.raw(kSealedRootKeyBytes);
  std::copy(sealed.begin(), sealed.end(), v.sealed_root_key.begin());
  v.image_bytes = r.u64();
  v.tree.leaf_pages = r.u16();
  v.tree.fanout = r.u16();
  v.tree.chunk_mean_bytes = r.u32();
  v.generation = r.id<GenerationId>();
  v.sequence = r.u64();
  v.commit.journal = r.id<JournalId>();
  v.commit.epoch = r.u64();
  v.commit.digest = r.id<Digest>();
  v.domain_epoch = r.u32();
  v.image_epoch = r.u32();
  v.time_unix_ns = r.u64();
  v.machine = r.id<MachineId>();
  v.signer = r.id<crypto::PublicKey>();
  if (!is_all_zero(r.raw(kSignedBytes - r.position()))) return corrupt("padding");
  v.signature = r.id<crypto::Signature>();
  if (!r.at_end()) return corrupt("length");
  DIMS_TRY(check_parameters(v.tree));
  if (v.image_bytes == 0 || v.image_bytes > kMaxImageBytes) return corrupt("image size");
  if (root_level(v.tree, v.image_bytes) > kMaxLevel) {
    return make_error(ErrorCode::kUnsupported, "version record: a fan-out of " +
                                                   std::to_string(v.tree.fanout) +
                                                   " is too small for the image");
  }
  if (verify &&
      !crypto::verify(v.signer, "version", v.org, bytes.first(kSignedBytes), v.signature)) {
    return corrupt("signature");
  }
  return v;
}

VersionId version_id(ByteView record_bytes) {
  const Digest digest = crypto::sha256(record_bytes);
  VersionId id;
  id.bytes = digest.bytes;
  return id;
}

VersionId version_id(const VersionRecord& record) {
  Bytes bytes = encode_body(record);
  bytes.insert(bytes.end(), record.signature.bytes.begin(), record.signature.bytes.end());
  return version_id(ByteView(bytes));
}

void seal_root_key(VersionRecord& record, const Secret32& image_key, const Secret32& root_key,
                   Random& random) {
  const Bytes wrapped = crypto::wrap(image_key, root_key_ad(record), root_key.view(), random);
  std::copy(wrapped.begin(), wrapped.end(), record.sealed_root_key.begin());
}

Result<Reference> open_root(const VersionRecord& record, const Secret32& image_key) {
  if (record.root.id.is_zero()) return Reference{};
  const auto key = crypto::unwrap(image_key, root_key_ad(record), record.sealed_root_key);
  if (!key || key->size() != 32) {
    return make_error(ErrorCode::kWrongKey,
                      "the key file does not open version " + std::to_string(record.sequence),
                      "use the key file that the image was imported with");
  }
  return Reference{record.root.domain, record.root.id, *Secret32::from_view(*key)};
}

}  // namespace dims::format
