// The journal's bytes on disk, version 1 (docs/formats/journal.md; golden file journal_v1.hex).
//
// All integers are little-endian. Threads: values. Nothing here does I/O.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "common/base/bytes.h"
#include "common/base/units.h"
#include "common/crypto/aead.h"

namespace dims::ldim::journal_format {

static_assert(std::endian::native == std::endian::little,
              "the structs below are written as they lie in memory");

using Magic = std::array<std::uint8_t, 8>;
inline constexpr Magic kFileMagic{'d', 'i', 'm', 's', 'j', 'n', 'l', '1'};
inline constexpr Magic kRecordMagic{0xd7, 'j', 'r', 'e', 'c', 0x1a, 0x0a, 0x01};
inline constexpr Magic kTrimMagic{0xd7, 'j', 't', 'r', 'm', 0x1a, 0x0a, 0x01};
inline constexpr Magic kNoteMagic{0xd7, 'j', 's', 'y', 'n', 0x1a, 0x0a, 0x01};
inline constexpr std::uint32_t kVersion = 1;

// Pages of a file: 0 header (written once), 1 and 2 trim slots, 3 sync note, then records.
inline constexpr std::uint64_t kTrimSlotOffset[2] = {1 * kPageBytes, 2 * kPageBytes};
inline constexpr std::uint64_t kNoteOffset = 3 * kPageBytes;
inline constexpr std::uint64_t kRecordsStart = 4 * kPageBytes;
inline constexpr std::uint64_t kAlign = 16;  // of every record
inline constexpr std::uint64_t kMaxDataBytes = kMiB;
inline constexpr std::uint64_t kMaxZeroBytes = kGiB;
inline constexpr std::uint64_t kMinSegmentBytes = 32 * kKiB;
inline constexpr std::uint64_t kMaxSegmentBytes = 2 * kGiB;

// Nonces under a file's key: a record's header and each of its blocks use their own file offset;
// the rest use ranges that no file offset reaches.
inline constexpr std::uint64_t kHeaderNonce = ~std::uint64_t{0};
inline constexpr std::uint64_t kTrimNonceBase = std::uint64_t{1} << 63;
inline constexpr std::uint64_t kNoteNonceBase = std::uint64_t{1} << 62;
inline constexpr std::uint64_t kBodyNonceBase = std::uint64_t{1} << 61;  // + the header's offset

struct FileHeader {
  Magic magic{};
  std::uint32_t version = 0;
  std::uint32_t header_bytes = 0;
  std::uint64_t number = 0;      // the file's name
  std::uint64_t file_bytes = 0;  // as preallocated
  std::uint64_t synced_at_creation =
      0;  // everything up to this order was synced when the file was made
  std::uint64_t reserved0 = 0;
  JournalId journal;
  MachineId machine;
  ImageId image;
  SessionId session;
  std::array<std::uint8_t, 32> salt{};
  crypto::Tag key_check{};  // tag over the bytes before it: tells a wrong key from damage
  std::array<std::uint8_t, 320> reserved{};
  Digest checksum;  // SHA-256 of the bytes before it
};
static_assert(sizeof(FileHeader) == 512 && std::is_trivially_copyable_v<FileHeader>);
inline constexpr std::size_t kKeyCheckOffset = 144;
inline constexpr std::size_t kChecksumOffset = 480;

enum class RecordType : std::uint8_t {
  kData = 1,
  kZero = 2,
  kTrim = 3,
  kSeal = 4,
  kStart = 5,    // first record of a log file
  kMerged = 6,   // first record of a merged file
  kManifest = 7  // last record of a merged file: from here on it counts
};

// What a record's header says; sealed as a whole.
struct RecordBody {
  RecordType type = RecordType::kData;
  std::uint8_t reserved8 = 0;
  std::uint16_t reserved16 = 0;
  std::uint32_t total_bytes = 0;  // header, blocks, padding
  std::uint64_t order = 0;
  std::uint64_t epoch = 0;
  std::uint64_t synced_order =
      0;                     // everything up to here was synced before this record was written
  std::uint64_t offset = 0;  // guest bytes; 0 for seal and start
  std::uint64_t count = 0;   // guest bytes; payload bytes for seal and start
  crypto::Tag body_tag{};    // of the only block, or over all block tags; zero if no block
  std::uint64_t reserved64 = 0;
};
static_assert(sizeof(RecordBody) == 72 && std::is_trivially_copyable_v<RecordBody>);

struct RecordHeader {
  Magic magic{};
  crypto::Tag tag{};
  std::array<std::uint8_t, sizeof(RecordBody)> sealed{};
};
static_assert(sizeof(RecordHeader) == 96);

// Everything up to `order` (the seal of `epoch`) is on the server and gone from here.
struct TrimState {
  std::uint64_t epoch = 0;
  std::uint64_t order = 0;
  Digest digest;  // of that epoch's seal
};
static_assert(sizeof(TrimState) == 48);

// Payload of a start record, the first one of every file.
struct StartPayload {
  Digest chain;                       // of everything before this record
  std::uint64_t previous_number = 0;  // the file that this one continues; 0 = none
  std::uint64_t previous_end = 0;     // where its records end
  TrimState trim;
};
static_assert(sizeof(StartPayload) == 96);

struct SealPayload {
  Digest chain;  // of everything before this record: the epoch's digest
};
static_assert(sizeof(SealPayload) == 32);

// Payload of a merged record, the first one of a merged file: for whoever looks at the file alone.
struct MergedPayload {
  std::uint64_t horizon_epoch = 0;
  std::uint64_t horizon_order = 0;
};
static_assert(sizeof(MergedPayload) == 16);

// Payload of a manifest: this head, `members` ManifestMembers, `ids` ManifestIds.
struct ManifestHead {
  Digest chain;  // over this file's records before this one
  // The epochs up to this one are merged: only its end is a state that a commit may name.
  TrimState horizon;
  TrimState trim;  // as it was then
  // Where the log goes on: the start record with this order, epoch and chain is the next one.
  std::uint64_t next_order = 0;
  std::uint64_t next_epoch = 0;
  Digest next_chain;
  std::uint64_t members = 0;  // merged files that still count, beside this one
  std::uint64_t ids = 0;      // commit ids that may have reached the server
};
static_assert(sizeof(ManifestHead) == 192);
struct ManifestMember {
  std::uint64_t number = 0;
  std::uint64_t end = 0;  // where its records end
  Digest chain;           // over all its records
};
static_assert(sizeof(ManifestMember) == 48);
struct ManifestId {
  std::uint64_t epoch = 0;
  Digest digest;
};
static_assert(sizeof(ManifestId) == 40);

struct TrimSlot {
  Magic magic{};
  std::uint64_t generation = 0;
  crypto::Tag tag{};
  std::array<std::uint8_t, sizeof(TrimState)> sealed{};
};
static_assert(sizeof(TrimSlot) == 80);

struct NoteSlot {
  Magic magic{};
  std::uint64_t generation = 0;
  crypto::Tag tag{};
  std::array<std::uint8_t, 8> sealed{};  // u64 synced order
};
static_assert(sizeof(NoteSlot) == 40);

// Associated data of everything sealed in a file.
enum class AdKind : std::uint8_t {
  kHeader = 1,
  kRecord = 2,
  kBlock = 3,
  kBody = 4,
  kTrim = 5,
  kNote = 6
};
struct AssociatedData {
  AdKind kind = AdKind::kHeader;
  std::array<std::uint8_t, 7> reserved{};
  JournalId journal;
  MachineId machine;
  ImageId image;
  SessionId session;
  std::uint64_t number = 0;  // of the file
  std::uint64_t a = 0;       // record, body: file offset; block: guest offset; slots: generation
  std::uint64_t b = 0;       // block: bytes; else 0
};
static_assert(sizeof(AssociatedData) == 96);

// --- layout arithmetic ---

// Blocks of a data record are cut at the guest's page edges. Control payloads are one block.
struct BlockLayout {
  std::uint64_t first_bytes = 0;
  std::uint64_t blocks = 0;
};
inline BlockLayout layout_of(RecordType type, std::uint64_t offset, std::uint64_t count) {
  if (type == RecordType::kZero || type == RecordType::kTrim || count == 0) return {0, 0};
  if (type != RecordType::kData) return {count, 1};
  const std::uint64_t to_edge = kPageBytes - offset % kPageBytes;
  return {count < to_edge ? count : to_edge, pages_touched({offset, count}).count};
}
inline std::uint64_t record_bytes(RecordType type, std::uint64_t offset, std::uint64_t count) {
  const BlockLayout layout = layout_of(type, offset, count);
  const std::uint64_t body = layout.blocks == 0 ? 0 : layout.blocks * crypto::kTagBytes + count;
  return round_up(sizeof(RecordHeader) + body, kAlign);
}
// Offset of block `index` from the record's header; the tag comes first.
inline std::uint64_t block_at(const BlockLayout& layout, std::uint64_t index) {
  if (index == 0) return sizeof(RecordHeader);
  return sizeof(RecordHeader) + crypto::kTagBytes + layout.first_bytes +
         (index - 1) * (crypto::kTagBytes + kPageBytes);
}
inline constexpr std::uint64_t kSealBytes = 144;    // record_bytes of a seal
inline constexpr std::uint64_t kStartBytes = 208;   // record_bytes of a start
inline constexpr std::uint64_t kMergedBytes = 128;  // record_bytes of a merged record

template <typename T>
ByteView view_of(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const std::uint8_t*>(&value), sizeof(T)};
}
template <typename T>
MutByteView mut_view_of(T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<std::uint8_t*>(&value), sizeof(T)};
}

}  // namespace dims::ldim::journal_format
