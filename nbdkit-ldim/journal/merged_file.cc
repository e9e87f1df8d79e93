#include "nbdkit-ldim/journal/merged_file.h"

#include <algorithm>
#include <cstring>

namespace dims::ldim {

using namespace journal_format;

namespace {

constexpr std::size_t kWriteBytes = kMiB;

crypto::Sha256 new_chain(const JournalSegment& segment) {
  crypto::Sha256 chain;
  chain.update(as_bytes("dims/journal-merged/1"));
  chain.update(segment.header().journal.view());
  return chain;
}

template <typename T>
void take(ByteView& from, T& value) {
  std::memcpy(&value, from.data(), sizeof value);
  from = from.subspan(sizeof value);
}

}  // namespace

Bytes encode_manifest(const Manifest& manifest) {
  Bytes out;
  const auto put = [&](const auto& value) {
    const ByteView bytes = view_of(value);
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  ManifestHead head = manifest.head;
  head.members = manifest.members.size();
  head.ids = manifest.ids.size();
  put(head);
  for (const ManifestMember& member : manifest.members) put(member);
  for (const ManifestId& id : manifest.ids) put(id);
  return out;
}

std::optional<Manifest> decode_manifest(ByteView payload) {
  Manifest out;
  if (payload.size() < sizeof(ManifestHead)) return std::nullopt;
  take(payload, out.head);
  if (out.head.members > payload.size() / sizeof(ManifestMember) ||
      out.head.ids > payload.size() / sizeof(ManifestId) ||
      payload.size() !=
          out.head.members * sizeof(ManifestMember) + out.head.ids * sizeof(ManifestId)) {
    return std::nullopt;
  }
  out.members.resize(static_cast<std::size_t>(out.head.members));
  out.ids.resize(static_cast<std::size_t>(out.head.ids));
  for (ManifestMember& member : out.members) take(payload, member);
  for (ManifestId& id : out.ids) take(payload, id);
  return out;
}

std::uint64_t manifest_record_bytes(std::size_t members, std::size_t ids) {
  return record_bytes(
      RecordType::kManifest, 0,
      sizeof(ManifestHead) + members * sizeof(ManifestMember) + ids * sizeof(ManifestId));
}

Result<std::optional<MergedFile>> scan_merged(SegmentScanner& scanner, const ScannedRecord& first) {
  MergedFile out;
  out.segment = scanner.segment();
  crypto::Sha256 chain = new_chain(*out.segment);
  chain.update(first.tag);
  std::uint64_t order = 0;
  for (;;) {
    DIMS_ASSIGN(const auto record, scanner.next());
    if (!record) return std::optional<MergedFile>();
    const RecordBody& body = record->body;
    if (body.type == RecordType::kManifest) {
      auto manifest = decode_manifest(record->payload);
      if (!manifest || !(manifest->head.chain == chain.peek())) return std::optional<MergedFile>();
      out.manifest = std::move(*manifest);
      chain.update(record->tag);
      out.chain = chain.peek();
      out.end = scanner.position();
      return std::optional<MergedFile>(std::move(out));
    }
    if (body.type > RecordType::kTrim || body.order < order) return std::optional<MergedFile>();
    order = body.order;
    out.records.push_back(pack(body, record->file_offset, out.segment->number()));
    chain.update(record->tag);
  }
}

MergedWriter::MergedWriter(std::shared_ptr<JournalSegment> segment)
    : segment_(std::move(segment)), chain_(new_chain(*segment_)) {}

Result<std::uint64_t> MergedWriter::put(RecordBody body, ByteView payload) {
  body.total_bytes = static_cast<std::uint32_t>(record_bytes(body.type, body.offset, body.count));
  if (!buffer_.empty() && buffer_.size() + body.total_bytes > kWriteBytes) DIMS_TRY(write_out());
  const std::size_t at = buffer_.size();
  const std::uint64_t file_offset = buffer_at_ + at;
  buffer_.resize(at + body.total_bytes);
  chain_.update(segment_->seal_record(body, file_offset, payload, buffer_.data() + at));
  return file_offset;
}

Status MergedWriter::write_out() {
  DIMS_TRY(segment_->file().write_at(buffer_at_, buffer_));
  buffer_at_ += buffer_.size();
  buffer_.clear();
  return ok_status();
}

Status MergedWriter::begin(const TrimState& horizon) {
  horizon_ = horizon;
  RecordBody body;
  body.type = RecordType::kMerged;
  body.order = horizon.order;
  body.epoch = horizon.epoch;
  body.synced_order = horizon.order - 1;
  body.count = sizeof(MergedPayload);
  const MergedPayload payload{horizon.epoch, horizon.order};
  const auto put_at = put(body, view_of(payload));
  return put_at.ok() ? ok_status() : Status(put_at.error());
}

Result<std::uint64_t> MergedWriter::add(WriteKind kind, ByteRange range, std::uint64_t order,
                                        ByteView data) {
  RecordBody body;
  body.type = static_cast<RecordType>(kind);
  body.order = order;
  body.epoch = horizon_.epoch;
  body.offset = range.offset;
  body.count = range.count;
  DIMS_ASSIGN(const std::uint64_t file_offset, put(body, data));
  records_.push_back(pack(body, file_offset, segment_->number()));
  return file_offset;
}

Result<MergedFile> MergedWriter::finish(Manifest manifest) {
  MergedFile out;
  out.segment = segment_;
  manifest.head.chain = chain_.peek();
  const Bytes payload = encode_manifest(manifest);
  RecordBody body;
  body.type = RecordType::kManifest;
  body.order = horizon_.order;
  body.epoch = horizon_.epoch;
  body.synced_order = horizon_.order - 1;
  body.count = payload.size();
  DIMS_ASSIGN(const std::uint64_t at, put(body, payload));
  out.end = at + record_bytes(body.type, 0, body.count);
  DIMS_TRY(write_out());
  DIMS_TRY(segment_->file().sync_data());
  out.chain = chain_.peek();
  out.manifest = std::move(manifest);
  out.records = std::move(records_);
  return out;
}

}  // namespace dims::ldim
