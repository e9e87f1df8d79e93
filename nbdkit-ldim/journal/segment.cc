#include "nbdkit-ldim/journal/segment.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "common/crypto/hash.h"

namespace dims::ldim {

using namespace journal_format;

std::string segment_path(const std::string& folder, std::uint64_t number) {
  char name[32];
  std::snprintf(name, sizeof name, "/%010llu.jnl", static_cast<unsigned long long>(number));
  return folder + name;
}

std::optional<std::uint64_t> segment_number(std::string_view name) {
  if (name.size() != 14 || name.substr(10) != ".jnl") return std::nullopt;
  std::uint64_t number = 0;
  for (const char c : name.substr(0, 10)) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  if (number == 0 || number > 0xffffffffULL) return std::nullopt;
  return number;
}

Secret32 segment_key(const Secret32& journal_key, const FileHeader& header) {
  return crypto::prf(journal_key, "journal",
                     {header.salt, header.machine.view(), header.image.view()});
}

JournalSegment::JournalSegment(std::shared_ptr<io::File> file, const FileHeader& header,
                               const Secret32& file_key)
    : file_(std::move(file)), header_(header), cipher_(file_key) {}

AssociatedData JournalSegment::ad(AdKind kind, std::uint64_t a, std::uint64_t b) const {
  AssociatedData out;
  out.kind = kind;
  out.journal = header_.journal;
  out.machine = header_.machine;
  out.image = header_.image;
  out.session = header_.session;
  out.number = header_.number;
  out.a = a;
  out.b = b;
  return out;
}

FileHeader JournalSegment::make_header(std::uint64_t number, std::uint64_t bytes,
                                       std::uint64_t synced_order, const JournalIdentity& identity,
                                       const Secret32& key, Random& random) {
  FileHeader header;
  header.magic = kFileMagic;
  header.version = kVersion;
  header.header_bytes = sizeof header;
  header.number = number;
  header.file_bytes = bytes;
  header.synced_at_creation = synced_order;
  header.journal = identity.journal;
  header.machine = identity.machine;
  header.image = identity.image;
  header.session = identity.session;
  random.fill(header.salt);
  Secret32 file_key = segment_key(key, header);
  {
    const crypto::PageCipher cipher(file_key);
    std::uint8_t nothing;
    cipher.seal(kHeaderNonce, view_of(header).first(kKeyCheckOffset), {}, &nothing,
                header.key_check.data());
  }
  crypto::wipe(file_key.mut());
  header.checksum = crypto::sha256(view_of(header).first(kChecksumOffset));
  return header;
}

Result<std::shared_ptr<JournalSegment>> JournalSegment::recycle(
    std::shared_ptr<io::File> file, std::uint64_t number, std::uint64_t bytes,
    std::uint64_t synced_order, const JournalIdentity& identity, const Secret32& key,
    Random& random) {
  const FileHeader header = make_header(number, bytes, synced_order, identity, key, random);
  DIMS_TRY(file->write_at(0, view_of(header)));
  DIMS_TRY(file->sync_data());
  Secret32 file_key = segment_key(key, header);
  auto segment = std::make_shared<JournalSegment>(std::move(file), header, file_key);
  crypto::wipe(file_key.mut());
  return segment;
}

Result<std::shared_ptr<JournalSegment>> JournalSegment::create(
    io::FileSystem& fs, const std::string& folder, std::uint64_t number, std::uint64_t bytes,
    std::uint64_t synced_order, const JournalIdentity& identity, const Secret32& key,
    Random& random) {
  const std::string path = segment_path(folder, number);
  DIMS_ASSIGN(auto file, fs.open(path, io::OpenMode::kCreateExclusive));
  const auto build = [&]() -> Result<std::shared_ptr<JournalSegment>> {
    DIMS_TRY(file->preallocate(bytes));
    DIMS_ASSIGN(auto segment, recycle(file, number, bytes, synced_order, identity, key, random));
    DIMS_TRY(fs.sync_folder(folder));
    return segment;
  };
  auto made = build();
  // A leftover is harmless: recovery takes a file without records for garbage.
  if (!made.ok()) (void)fs.remove(path);
  return made;
}

Result<std::shared_ptr<JournalSegment>> JournalSegment::load(std::shared_ptr<io::File> file,
                                                             std::uint64_t number,
                                                             const MachineId& machine,
                                                             const ImageId& image,
                                                             const Secret32& key) {
  FileHeader header;
  const std::string& path = file->path();
  const auto got = file->read_some(0, mut_view_of(header));
  if (!got.ok() && got.error().code == ErrorCode::kIo) {
    return make_error(ErrorCode::kCorrupt,
                      "the disk cannot read the header of journal file " + path + " at byte 0",
                      "restore the file from a copy, or set the folder aside and salvage it");
  }
  DIMS_ASSIGN(const std::size_t n, got);
  if (n != sizeof header || header.magic != kFileMagic) {
    return make_error(ErrorCode::kCorrupt, "journal file " + path + " has no header at byte 0",
                      "restore the file from a copy, or set the folder aside and salvage it");
  }
  if (!(crypto::sha256(view_of(header).first(kChecksumOffset)) == header.checksum)) {
    return make_error(ErrorCode::kCorrupt,
                      "the header of journal file " + path + " is damaged (bytes 0 to 511)",
                      "restore the file from a copy, or set the folder aside and salvage it");
  }
  if (header.version != kVersion || header.header_bytes != sizeof header) {
    return make_error(ErrorCode::kUnsupported,
                      "journal file " + path + " has format version " +
                          std::to_string(header.version) + ", this program knows " +
                          std::to_string(kVersion),
                      "use the program that wrote it, let it send everything, then upgrade");
  }
  if (!(header.machine == machine) || !(header.image == image)) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "journal file " + path + " belongs to image " + header.image.hex() + " on machine " +
            header.machine.hex() + ", not to image " + image.hex() + " on machine " + machine.hex(),
        "give every image a folder of its own, and move the file back to where it came from");
  }
  if (header.number != number) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "journal file " + path + " says that it is file " + std::to_string(header.number),
        "it was renamed or copied; give it its own name again");
  }
  Secret32 file_key = segment_key(key, header);
  auto segment = std::make_shared<JournalSegment>(std::move(file), header, file_key);
  crypto::wipe(file_key.mut());
  std::uint8_t nothing;
  if (!segment->cipher_.open(kHeaderNonce, view_of(header).first(kKeyCheckOffset), {},
                             header.key_check.data(), &nothing)) {
    return make_error(ErrorCode::kWrongKey, "the key does not open journal file " + path,
                      "use the key file with which this folder was made; nothing was changed");
  }
  return segment;
}

crypto::Tag JournalSegment::seal_record(RecordBody& body, std::uint64_t file_offset, ByteView data,
                                        std::uint8_t* out) const {
  const BlockLayout layout = layout_of(body.type, body.offset, body.count);
  std::size_t taken = 0;
  Bytes tags;
  if (layout.blocks > 1) tags.resize(layout.blocks * crypto::kTagBytes);
  for (std::uint64_t i = 0; i < layout.blocks; ++i) {
    const std::uint64_t at = block_at(layout, i);
    const std::size_t n =
        i == 0 ? layout.first_bytes : std::min<std::size_t>(kPageBytes, data.size() - taken);
    const AssociatedData block_ad = ad(AdKind::kBlock, body.offset + taken, n);
    std::uint8_t* const tag = out + at;
    cipher_.seal(file_offset + at, view_of(block_ad), data.subspan(taken, n),
                 tag + crypto::kTagBytes, tag);
    if (layout.blocks > 1)
      std::memcpy(tags.data() + i * crypto::kTagBytes, tag, crypto::kTagBytes);
    else
      std::memcpy(body.body_tag.data(), tag, crypto::kTagBytes);
    taken += n;
  }
  if (layout.blocks > 1) {
    const AssociatedData body_ad = ad(AdKind::kBody, file_offset, 0);
    tags.insert(tags.begin(), view_of(body_ad).begin(), view_of(body_ad).end());
    std::uint8_t nothing;
    cipher_.seal(kBodyNonceBase + file_offset, tags, {}, &nothing, body.body_tag.data());
  }
  const std::uint64_t used = sizeof(RecordHeader) + layout.blocks * crypto::kTagBytes + taken;
  std::memset(out + used, 0, body.total_bytes - used);

  RecordHeader header;
  header.magic = kRecordMagic;
  const AssociatedData header_ad = ad(AdKind::kRecord, file_offset, 0);
  cipher_.seal(file_offset, view_of(header_ad), view_of(body), header.sealed.data(),
               header.tag.data());
  std::memcpy(out, &header, sizeof header);
  return header.tag;
}

std::optional<RecordBody> JournalSegment::open_header(const RecordHeader& header,
                                                      std::uint64_t file_offset) const {
  if (header.magic != kRecordMagic) return std::nullopt;
  RecordBody body;
  const AssociatedData header_ad = ad(AdKind::kRecord, file_offset, 0);
  if (!cipher_.open(file_offset, view_of(header_ad), header.sealed, header.tag.data(),
                    mut_view_of(body).data())) {
    return std::nullopt;
  }
  // Sealed under our key, so these can only fail if a program with a fault wrote them.
  bool sane = false;
  switch (body.type) {
    case RecordType::kData:
      sane = body.count > 0 && body.count <= kMaxDataBytes;
      break;
    case RecordType::kZero:
    case RecordType::kTrim:
      sane = body.count > 0 && body.count <= kMaxZeroBytes;
      break;
    case RecordType::kSeal:
      sane = body.count == sizeof(SealPayload) && body.offset == 0;
      break;
    case RecordType::kStart:
      sane = body.count == sizeof(StartPayload) && body.offset == 0;
      break;
    case RecordType::kMerged:
      sane = body.count == sizeof(MergedPayload) && body.offset == 0;
      break;
    case RecordType::kManifest:
      sane = body.count >= sizeof(ManifestHead) && body.count <= kMaxDataBytes && body.offset == 0;
      break;
  }
  sane = sane && body.offset <= kMaxImageBytes && body.count <= kMaxImageBytes - body.offset &&
         body.total_bytes == record_bytes(body.type, body.offset, body.count) &&
         body.synced_order < body.order;
  if (!sane) return std::nullopt;
  return body;
}

bool JournalSegment::open_body(const RecordBody& body, std::uint64_t file_offset, ByteView record,
                               MutByteView out) const {
  const BlockLayout layout = layout_of(body.type, body.offset, body.count);
  if (record.size() < body.total_bytes) return false;
  if (out.empty() && layout.first_bytes > kPageBytes) return false;  // a manifest needs room
  Bytes tags;
  std::uint64_t taken = 0;
  std::uint8_t scratch[kPageBytes];
  for (std::uint64_t i = 0; i < layout.blocks; ++i) {
    const std::uint64_t at = block_at(layout, i);
    const std::uint64_t n = i == 0 ? layout.first_bytes : std::min(kPageBytes, body.count - taken);
    const AssociatedData block_ad = ad(AdKind::kBlock, body.offset + taken, n);
    const std::uint8_t* const tag = record.data() + at;
    const ByteView sealed = record.subspan(at + crypto::kTagBytes, n);
    std::uint8_t* const text = out.empty() ? scratch : out.data() + taken;
    if (!cipher_.open(file_offset + at, view_of(block_ad), sealed, tag, text)) return false;
    if (layout.blocks > 1)
      tags.insert(tags.end(), tag, tag + crypto::kTagBytes);
    else if (std::memcmp(body.body_tag.data(), tag, crypto::kTagBytes) != 0)
      return false;
    taken += n;
  }
  if (layout.blocks <= 1) return true;
  const AssociatedData body_ad = ad(AdKind::kBody, file_offset, 0);
  tags.insert(tags.begin(), view_of(body_ad).begin(), view_of(body_ad).end());
  return cipher_.open(kBodyNonceBase + file_offset, tags, {}, body.body_tag.data(), scratch);
}

Status JournalSegment::read(ByteRange range, std::uint64_t file_offset, std::uint64_t at,
                            MutByteView out) const {
  if (out.empty()) return ok_status();
  if (at < range.offset || at > range.end() || out.size() > range.end() - at) {
    return make_error(ErrorCode::kInvalidArgument,
                      "journal read outside of its record in " + file_->path());
  }
  const BlockLayout layout = layout_of(RecordType::kData, range.offset, range.count);
  const std::uint64_t first = page_of(at) - page_of(range.offset);
  const std::uint64_t last = page_of(at + out.size() - 1) - page_of(range.offset);
  const auto text_from = [&](std::uint64_t index) {  // guest offset of a block
    return index == 0 ? range.offset : range.offset + layout.first_bytes + (index - 1) * kPageBytes;
  };
  const auto text_bytes = [&](std::uint64_t index) {
    return index == 0 ? layout.first_bytes : std::min(kPageBytes, range.end() - text_from(index));
  };
  // The blocks lie side by side with their tags: one read, whatever is asked.
  const std::uint64_t from = file_offset + block_at(layout, first);
  const std::uint64_t to =
      file_offset + block_at(layout, last) + crypto::kTagBytes + text_bytes(last);
  std::uint8_t small[kPageBytes + crypto::kTagBytes];
  std::unique_ptr<std::uint8_t[]> large;
  MutByteView sealed(small,
                     static_cast<std::size_t>(std::min<std::uint64_t>(sizeof small, to - from)));
  if (to - from > sizeof small) {
    large = std::make_unique_for_overwrite<std::uint8_t[]>(to - from);
    sealed = MutByteView(large.get(), to - from);
  }
  const Status got = file_->read_at(from, sealed);
  if (!got.ok()) {
    std::memset(out.data(), 0, out.size());
    return got.error().with_context("journal record at byte " + std::to_string(file_offset));
  }
  std::size_t pos = 0;
  for (std::uint64_t i = first; i <= last; ++i) {
    const std::uint64_t text_at = text_from(i);
    const std::uint64_t n = text_bytes(i);
    const std::uint8_t* const tag = sealed.data() + pos;
    const AssociatedData block_ad = ad(AdKind::kBlock, text_at, n);
    const std::uint64_t nonce = file_offset + block_at(layout, i);
    const ByteView block(tag + crypto::kTagBytes, static_cast<std::size_t>(n));
    const ByteRange wanted = intersect({text_at, n}, {at, out.size()});
    std::uint8_t* const target = out.data() + (wanted.offset - at);
    bool good;
    if (wanted.count == n) {
      good = cipher_.open(nonce, view_of(block_ad), block, tag, target);
    } else {
      std::uint8_t page[kPageBytes];
      good = cipher_.open(nonce, view_of(block_ad), block, tag, page);
      if (good) std::memcpy(target, page + (wanted.offset - text_at), wanted.count);
    }
    if (!good) {
      std::memset(out.data(), 0, out.size());
      return make_error(
          ErrorCode::kCorrupt,
          "journal file " + file_->path() + " is damaged at byte " + std::to_string(from + pos) +
              " (guest byte " + std::to_string(text_at) + ")",
          "this write is not on the server yet; check the disk, copy the folder, then salvage it");
    }
    pos += crypto::kTagBytes + n;
  }
  return ok_status();
}

Status JournalSegment::write_trim_slot(std::uint64_t generation, const TrimState& state) const {
  TrimSlot slot;
  slot.magic = kTrimMagic;
  slot.generation = generation;
  const AssociatedData slot_ad = ad(AdKind::kTrim, generation, 0);
  cipher_.seal(kTrimNonceBase + generation, view_of(slot_ad), view_of(state), slot.sealed.data(),
               slot.tag.data());
  return file_->write_at(kTrimSlotOffset[generation % 2], view_of(slot));
}

Status JournalSegment::write_note(std::uint64_t generation, std::uint64_t synced_order) const {
  NoteSlot slot;
  slot.magic = kNoteMagic;
  slot.generation = generation;
  const AssociatedData slot_ad = ad(AdKind::kNote, generation, 0);
  cipher_.seal(kNoteNonceBase + generation, view_of(slot_ad), view_of(synced_order),
               slot.sealed.data(), slot.tag.data());
  return file_->write_at(kNoteOffset, view_of(slot));
}

Result<std::optional<TrimState>> JournalSegment::read_trim_slot(std::uint64_t offset) const {
  TrimSlot slot;
  const auto got = file_->read_some(offset, mut_view_of(slot));
  std::optional<TrimState> none;
  if (!got.ok() && got.error().code == ErrorCode::kIo) return none;  // as one that does not open
  DIMS_ASSIGN(const std::size_t n, got);
  if (n != sizeof slot || slot.magic != kTrimMagic || slot.generation >= kTrimNonceBase)
    return none;
  const AssociatedData slot_ad = ad(AdKind::kTrim, slot.generation, 0);
  TrimState state;
  if (!cipher_.open(kTrimNonceBase + slot.generation, view_of(slot_ad), slot.sealed,
                    slot.tag.data(), mut_view_of(state).data())) {
    return none;
  }
  return std::optional<TrimState>(state);
}

Result<std::optional<TrimState>> JournalSegment::read_trim_slots() const {
  std::optional<TrimState> best;
  for (const std::uint64_t offset : kTrimSlotOffset) {
    DIMS_ASSIGN(const auto state, read_trim_slot(offset));
    if (state && (!best || state->epoch > best->epoch)) best = state;
  }
  return best;
}

Result<int> JournalSegment::open_slots() const {
  int opened = 0;
  for (const std::uint64_t offset : kTrimSlotOffset) {
    DIMS_ASSIGN(const auto state, read_trim_slot(offset));
    opened += state ? 1 : 0;
  }
  DIMS_ASSIGN(const auto note, read_note());
  return opened + (note ? 1 : 0);
}

Result<std::optional<std::uint64_t>> JournalSegment::read_note() const {
  NoteSlot slot;
  const auto got = file_->read_some(kNoteOffset, mut_view_of(slot));
  std::optional<std::uint64_t> none;
  if (!got.ok() && got.error().code == ErrorCode::kIo) return none;
  DIMS_ASSIGN(const std::size_t n, got);
  if (n != sizeof slot || slot.magic != kNoteMagic || slot.generation >= kNoteNonceBase)
    return none;
  const AssociatedData slot_ad = ad(AdKind::kNote, slot.generation, 0);
  std::uint64_t order = 0;
  if (!cipher_.open(kNoteNonceBase + slot.generation, view_of(slot_ad), slot.sealed,
                    slot.tag.data(), mut_view_of(order).data())) {
    return none;
  }
  return std::optional<std::uint64_t>(order);
}

}  // namespace dims::ldim
