#include "nbdkit-ldim/cache/cache_segment.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/base/page_buffer.h"

namespace dims::ldim {
namespace {

constexpr std::uint32_t kSealRunPages = 32;  // as many pages as an ordinary object has at most

// What lies in a file of this thread's run of pages: aligned, whatever the caller's buffer is.
PageBuffer& sealed_run() {
  static thread_local PageBuffer run(kSealRunPages * kPageBytes);
  return run;
}

std::string path_of(const std::string& folder, CacheFileKind kind, std::uint64_t sequence) {
  return folder + "/" + cache_file_name(kind, sequence);
}

struct OpenedFile {
  std::shared_ptr<io::File> file;
  CacheHeader header;
  Bytes block;
};

Result<OpenedFile> open_file(io::FileSystem& fs, const std::string& folder, CacheFileKind kind,
                             std::uint64_t sequence) {
  OpenedFile opened;
  DIMS_ASSIGN(opened.file, fs.open(path_of(folder, kind, sequence), io::OpenMode::kReadOnly));
  opened.block.resize(kCacheHeaderBytes);
  DIMS_TRY(opened.file->read_at(0, opened.block));
  DIMS_ASSIGN(opened.header, parse_cache_header(kind, opened.block));
  return opened;
}

}  // namespace

CacheSegment::CacheSegment(io::FileSystem& fs, std::string folder, const CacheHeader& header,
                           std::shared_ptr<const CacheKeys> keys)
    : fs_(fs),
      data_path_(path_of(folder, CacheFileKind::kData, header.sequence)),
      index_path_(path_of(folder, CacheFileKind::kIndex, header.sequence)),
      header_(header),
      keys_(std::move(keys)),
      used_(std::make_unique<std::atomic<std::uint64_t>[]>((header.capacity_pages + 63) / 64)) {}

Result<std::shared_ptr<CacheSegment>> CacheSegment::create(io::FileSystem& fs,
                                                           const std::string& folder,
                                                           const CacheHeader& header,
                                                           std::shared_ptr<const CacheKeys> keys) {
  auto segment =
      std::shared_ptr<CacheSegment>(new CacheSegment(fs, folder, header, std::move(keys)));
  DIMS_ASSIGN(segment->data_, fs.open(segment->data_path_, io::OpenMode::kCreateExclusive));
  const auto fill = [&]() -> Status {
    DIMS_ASSIGN(segment->index_, fs.open(segment->index_path_, io::OpenMode::kCreateExclusive));
    DIMS_TRY(segment->data_->write_at(
        0, encode_cache_header(CacheFileKind::kData, header, segment->keys_->header_key())));
    return segment->index_->write_at(
        0, encode_cache_header(CacheFileKind::kIndex, header, segment->keys_->header_key()));
  };
  if (Status filled = fill(); !filled) {
    (void)fs.remove(segment->data_path_);
    if (segment->index_ != nullptr) (void)fs.remove(segment->index_path_);
    return filled.error();
  }
  return segment;
}

Result<std::shared_ptr<CacheSegment>> CacheSegment::open(io::FileSystem& fs,
                                                         const std::string& folder,
                                                         std::uint64_t sequence,
                                                         const CacheOwner& owner,
                                                         const KeysOf& keys_of) {
  DIMS_ASSIGN(OpenedFile data, open_file(fs, folder, CacheFileKind::kData, sequence));
  DIMS_ASSIGN(OpenedFile index, open_file(fs, folder, CacheFileKind::kIndex, sequence));
  const CacheHeader& header = data.header;
  if (header.owner.machine != owner.machine || header.owner.image != owner.image) {
    return make_error(ErrorCode::kWrongKey, "cache segment of another machine or image",
                      "give each image a cache folder of its own");
  }
  const auto keys = keys_of(header.salt);
  if (!check_cache_header(data.block, keys->header_key())) {
    return make_error(ErrorCode::kWrongKey, "damaged header, or a segment made under another key");
  }
  // The index file must be this segment's own.
  if (header.sequence != sequence || index.header.sequence != sequence ||
      index.header.salt != header.salt || index.header.capacity_pages != header.capacity_pages ||
      !check_cache_header(index.block, keys->header_key())) {
    return make_error(ErrorCode::kCorrupt, "data file and index file do not belong together");
  }
  auto segment = std::shared_ptr<CacheSegment>(new CacheSegment(fs, folder, header, keys));
  segment->data_ = std::move(data.file);
  return segment;
}

Status CacheSegment::write(std::uint32_t record_number, const CacheRecord& record, ByteView data) {
  PageBuffer& sealed = sealed_run();
  std::array<std::uint8_t, kCacheMaxObjectPages * crypto::kTagBytes> tags;
  CachePageAd ad(header_.owner, record.object);
  for (std::uint32_t done = 0; done < record.pages;) {
    const std::uint32_t run = std::min(kSealRunPages, record.pages - done);
    for (std::uint32_t i = 0; i < run; ++i) {
      const std::uint32_t page = done + i;
      ad.set_page(page);
      keys_->pages().seal(cache_nonce(header_.sequence, record.first_slot + page), ad.view(),
                          data.subspan(page * kPageBytes, kPageBytes),
                          sealed.data() + i * kPageBytes, tags.data() + page * crypto::kTagBytes);
    }
    DIMS_TRY(data_->write_at(cache_page_offset(header_.capacity_pages, record.first_slot + done),
                             sealed.view().first(run * kPageBytes)));
    done += run;
  }
  DIMS_TRY(data_->write_at(cache_tag_offset(record.first_slot),
                           ByteView(tags).first(record.pages * crypto::kTagBytes)));
  return index_->write_at(cache_record_offset(record_number),
                          seal_cache_record(*keys_, header_, record_number, record));
}

Status CacheSegment::read_tags(std::uint32_t slot, MutByteView tags, TagMemory* memory) const {
  const auto last = static_cast<std::uint32_t>(slot + tags.size() / crypto::kTagBytes - 1);
  const std::uint32_t line_start = slot / TagMemory::kLineTags * TagMemory::kLineTags;
  // A whole line instead of a few tags costs little more, but only if the run lies in one.
  if (memory != nullptr && last < line_start + TagMemory::kLineTags &&
      memory->wants(sequence(), slot)) {
    std::array<std::uint8_t, TagMemory::kLineBytes> line;
    const std::uint32_t count = std::min(TagMemory::kLineTags, capacity_pages() - line_start);
    DIMS_ASSIGN(const std::size_t got,
                data_->read_some(cache_tag_offset(line_start),
                                 MutByteView(line).first(count * crypto::kTagBytes)));
    const std::size_t from = (slot - line_start) * crypto::kTagBytes;
    if (from + tags.size() <= got) {
      std::memcpy(tags.data(), line.data() + from, tags.size());
      memory->put(sequence(), slot, ByteView(line).first(got));
      return ok_status();
    }
  }
  return data_->read_at(cache_tag_offset(slot), tags);
}

Status CacheSegment::read_and_open(const ObjectId& object, std::uint32_t slot,
                                   std::uint32_t first_page, ByteView tags, MutByteView out) const {
  const auto pages = static_cast<std::uint32_t>(out.size() / kPageBytes);
  PageBuffer& sealed = sealed_run();
  CachePageAd ad(header_.owner, object);
  for (std::uint32_t i = 0; i < pages; ++i) {
    const std::uint32_t in_run = i % kSealRunPages;
    if (in_run == 0) {
      DIMS_TRY(
          data_->read_at(cache_page_offset(header_.capacity_pages, slot + i),
                         sealed.view().first(std::min(kSealRunPages, pages - i) * kPageBytes)));
    }
    ad.set_page(first_page + i);
    if (!keys_->pages().open(cache_nonce(header_.sequence, slot + i), ad.view(),
                             sealed.view().subspan(in_run * kPageBytes, kPageBytes),
                             tags.data() + i * crypto::kTagBytes, out.data() + i * kPageBytes)) {
      return make_error(ErrorCode::kCorrupt, "page " + std::to_string(first_page + i) +
                                                 " of object " + object.short_hex() + " in " +
                                                 data_->path() + " fails its check");
    }
  }
  return ok_status();
}

Status CacheSegment::read(const ObjectId& object, std::uint32_t first_slot,
                          std::uint32_t first_page, MutByteView out, TagMemory* memory) const {
  const auto pages = static_cast<std::uint32_t>(out.size() / kPageBytes);
  if (pages == 0) return ok_status();
  const std::uint32_t slot = first_slot + first_page;
  std::array<std::uint8_t, kCacheMaxObjectPages * crypto::kTagBytes> buffer;
  const MutByteView tags = MutByteView(buffer).first(pages * crypto::kTagBytes);
  if (memory != nullptr && memory->get(sequence(), slot, pages, tags.data()) &&
      read_and_open(object, slot, first_page, tags, out)) {
    return ok_status();
  }
  // Not remembered; or what is remembered may be wrong: the file decides.
  Status status = read_tags(slot, tags, memory);
  if (status) status = read_and_open(object, slot, first_page, tags, out);
  if (!status) std::memset(out.data(), 0, out.size());
  return status;
}

CacheSegment::RecordScan CacheSegment::scan(
    const std::function<void(const CacheRecord&)>& visit) const {
  RecordScan result;
  const auto data_bytes = data_->size();
  auto index = fs_.open(index_path_, io::OpenMode::kReadOnly);
  if (!data_bytes || !index) {
    ++result.bad;
    result.unread = true;
    return result;
  }
  static constexpr std::uint32_t kPieceRecords = 2048;
  Bytes piece(kPieceRecords * kCacheRecordBytes);
  for (std::uint32_t number = 0; number < header_.capacity_pages; number += kPieceRecords) {
    const auto count = (*index)->read_some(cache_record_offset(number), piece);
    if (!count) {
      ++result.bad;
      result.unread = true;
      return result;
    }
    const std::uint32_t records = std::min(static_cast<std::uint32_t>(*count / kCacheRecordBytes),
                                           header_.capacity_pages - number);
    for (std::uint32_t i = 0; i < records; ++i) {
      const ByteView sealed = ByteView(piece).subspan(i * kCacheRecordBytes, kCacheRecordBytes);
      if (is_all_zero(sealed)) continue;  // given out, but its write never ended
      const auto record = open_cache_record(*keys_, header_, number + i, sealed);
      if (!record || cache_page_offset(header_.capacity_pages, record->first_slot + record->pages) >
                         *data_bytes) {
        ++result.bad;
        continue;
      }
      ++result.good;
      visit(*record);
    }
    if (*count < piece.size()) break;
  }
  return result;
}

Status CacheSegment::sync() {
  DIMS_TRY(data_->sync_data());
  return index_ == nullptr ? ok_status() : index_->sync_data();
}

Status CacheSegment::remove() const {
  const Status index = fs_.remove(index_path_);
  const Status data = fs_.remove(data_path_);
  if (!index && index.error().code != ErrorCode::kNotFound) return index;
  return data || data.error().code == ErrorCode::kNotFound ? ok_status() : data;
}

Result<std::uint64_t> CacheSegment::file_bytes() const {
  DIMS_ASSIGN(const std::uint64_t data, data_->size());
  DIMS_ASSIGN(const auto index, fs_.open(index_path_, io::OpenMode::kReadOnly));
  DIMS_ASSIGN(const std::uint64_t records, index->size());
  return data + records;
}

}  // namespace dims::ldim
