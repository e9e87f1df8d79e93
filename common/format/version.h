// Version records: one immutable, crash-consistent state of an image (docs/formats/version.md).
//
// A version's id is the SHA-256 of its record. The record names its parent, so records form a chain
// that proves history; it is signed by the writer. The root's key is sealed to the image key.
// Threads: values. Errors: kCorrupt, kUnsupported, kWrongKey.
#pragma once

#include "common/base/clock.h"
#include "common/crypto/sign.h"
#include "common/format/node.h"

namespace dims::format {

// A point of one journal's history (journal id zero: not from a journal, e.g. an import).
struct CommitPoint {
  JournalId journal;
  std::uint64_t epoch = 0;
  Digest digest;
  friend bool operator==(const CommitPoint&, const CommitPoint&) = default;
};

inline constexpr std::size_t kSealedRootKeyBytes = 32 + 40;

struct VersionRecord {
  OrgId org;
  VersionId parent;  // zero: the first of its line
  ImageId image;
  ObjectKey root;  // zero id: the disk is all zeros
  std::array<std::uint8_t, kSealedRootKeyBytes> sealed_root_key{};
  std::uint64_t image_bytes = 0;
  TreeParameters tree;
  GenerationId generation;
  std::uint64_t sequence = 0;  // parent's + 1; for people
  CommitPoint commit;
  std::uint32_t domain_epoch = 0;
  std::uint32_t image_epoch = 0;
  std::uint64_t time_unix_ns = 0;
  MachineId machine;
  crypto::PublicKey signer;
  crypto::Signature signature;
};

inline constexpr std::size_t kVersionRecordBytes = 448;

// Signs (fills signer and signature) and encodes.
Bytes encode_version(VersionRecord record, const crypto::SigningKey& key);
// Checks structure; the signature only if `verify` (the caller checks that the signer may write).
Result<VersionRecord> decode_version(ByteView bytes, bool verify = true);
VersionId version_id(ByteView record_bytes);
// Of a record that was decoded: its bytes have one form only.
VersionId version_id(const VersionRecord& record);

// Seals the root's key to the image key, bound to org, image, sequence and root id.
void seal_root_key(VersionRecord& record, const Secret32& image_key, const Secret32& root_key,
                   Random& random);
// kWrongKey if the image key does not open it.
Result<Reference> open_root(const VersionRecord& record, const Secret32& image_key);

}  // namespace dims::format
