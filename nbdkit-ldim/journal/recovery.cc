#include "nbdkit-ldim/journal/recovery.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "common/crypto/hash.h"
#include "nbdkit-ldim/journal/merged_file.h"

namespace dims::ldim {

using namespace journal_format;

PackedRecord pack(const RecordBody& body, std::uint64_t file_offset, std::uint64_t segment) {
  PackedRecord out;
  out.order = body.order;
  out.kind_offset = static_cast<std::uint64_t>(body.type) << 56 | body.offset;
  out.count = static_cast<std::uint32_t>(body.count);
  out.file_offset = static_cast<std::uint32_t>(file_offset);
  out.segment = static_cast<std::uint32_t>(segment);
  return out;
}

Digest first_chain(const JournalId& journal) {
  return crypto::sha256({as_bytes("dims/journal-chain/1"), journal.view()});
}

namespace {

constexpr char kDamageHint[] =
    "nothing was changed; check the disk, copy the folder, then restore the file or salvage the "
    "journal to a branch";

// Everything seen while examining a folder.
struct Examination {
  std::map<std::uint64_t, RecoveredSegment> candidates;  // log files, by number
  std::map<std::uint64_t, MergedFile> merged;            // whole merged files, by number
  std::string broken_merged;                             // one that is not whole
  std::vector<std::shared_ptr<JournalSegment>> loaded;
  std::map<std::uint64_t, Error> bad_headers;  // of files with something in them
  TrimState trimmed;
  // Files of the log with a place that the disk cannot read, and the last such place.
  std::map<std::uint64_t, std::uint64_t> unreadable;
  std::uint64_t synced_claim = 0;  // everything up to this order was synced once
  std::string claimed_by;
};

void claim(Examination& seen, std::uint64_t order, const std::string& by) {
  if (order <= seen.synced_claim) return;
  seen.synced_claim = order;
  seen.claimed_by = by;
}

template <typename T>
T payload_as(const Bytes& payload) {
  T value;
  std::memcpy(&value, payload.data(), sizeof value);
  return value;
}

// Reads the good records of a log file behind `first`, its start record.
Result<RecoveredSegment> scan_log(SegmentScanner& scanner, const ScannedRecord& first,
                                  Examination& seen) {
  const auto& segment = scanner.segment();
  RecoveredSegment out;
  out.segment = segment;
  out.start = payload_as<StartPayload>(first.payload);
  out.first_order = first.body.order;
  out.first_epoch = first.body.epoch;
  out.next_order = first.body.order + 1;
  out.open_epoch = first.body.epoch;
  out.end = scanner.position();
  claim(seen, first.body.synced_order, segment->file().path());

  crypto::Sha256 chain;
  chain.update(out.start.chain.view());
  chain.update(first.tag);
  for (;;) {
    DIMS_ASSIGN(const auto record, scanner.next());
    if (!record) break;
    const RecordBody& body = record->body;
    if (body.order != out.next_order || body.epoch != out.open_epoch ||
        body.type >= RecordType::kStart)
      break;
    if (body.type == RecordType::kSeal) {
      const Digest digest = payload_as<SealPayload>(record->payload).chain;
      if (!(chain.peek() == digest)) break;
      out.seals.push_back({body.epoch, body.order, digest, record->file_offset});
      ++out.open_epoch;
      chain = crypto::Sha256();
      chain.update(digest.view());
    } else {
      out.records.push_back(pack(body, record->file_offset, segment->number()));
    }
    chain.update(record->tag);
    claim(seen, body.synced_order, segment->file().path());
    ++out.next_order;
    out.end = scanner.position();
  }
  out.chain = chain.peek();
  return out;
}

// Good headers behind the end of what a scan accepted: they prove what was synced.
Status collect_claims(SegmentScanner& scanner, std::uint64_t from, Examination& seen,
                      std::uint64_t* seals) {
  for (;;) {
    DIMS_ASSIGN(const auto header, scanner.find_header(from));
    if (!header) return ok_status();
    claim(seen, header->body.synced_order,
          scanner.segment()->file().path() + " at byte " + std::to_string(header->file_offset));
    if (header->body.type == RecordType::kSeal) ++*seals;
    from = header->file_offset + kAlign;
  }
}

Status examine_file(io::FileSystem& fs, const JournalOptions& options, io::OpenMode mode,
                    std::uint64_t number, Examination& seen, RecoveredJournal& out) {
  const std::string path = segment_path(options.folder, number);
  DIMS_ASSIGN(auto file, fs.open(path, mode));
  DIMS_ASSIGN(const std::uint64_t bytes, file->size());
  auto loaded = JournalSegment::load(file, number, options.machine, options.image, options.key);
  if (!loaded.ok()) {
    if (loaded.error().code != ErrorCode::kCorrupt) return loaded.error();
    // The header is synced before the first record is written: without records, the file was being
    // made.
    SegmentScanner scanner(std::make_shared<JournalSegment>(file, FileHeader{}, Secret32{}));
    DIMS_ASSIGN(const std::uint64_t used, scanner.used_end(kPageBytes));
    // And a write that was cut off leaves the beginning of a header or nothing, never something
    // else.
    decltype(FileHeader::magic) begins{};
    const MutByteView first(reinterpret_cast<std::uint8_t*>(&begins), sizeof begins);
    const auto n = file->read_some(0, first);
    if (!n.ok() && n.error().code != ErrorCode::kIo) return n.error();
    const bool foreign =
        !n.ok() || (*n == sizeof begins && begins != kFileMagic && !is_all_zero(first));
    if (used > kPageBytes || foreign) {
      seen.bad_headers.emplace(number, loaded.error());
      return ok_status();
    }
    out.garbage.push_back(number);
    out.reusable_number = number;
    out.reusable_bytes = bytes;
    return ok_status();
  }
  const auto segment = std::move(loaded).value();
  if (!seen.loaded.empty() &&
      !(seen.loaded.front()->header().journal == segment->header().journal)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "journal file " + path + " belongs to journal " +
                          segment->header().journal.hex() + ", its neighbours to journal " +
                          seen.loaded.front()->header().journal.hex(),
                      "move the file that was put here by mistake out of the folder");
  }
  seen.loaded.push_back(segment);
  claim(seen, segment->header().synced_at_creation, path + " (header)");
  DIMS_ASSIGN(const auto slots, segment->read_trim_slots());
  if (slots && slots->epoch > seen.trimmed.epoch) seen.trimmed = *slots;
  DIMS_ASSIGN(const auto note, segment->read_note());
  if (note) claim(seen, *note, path + " (sync note)");

  SegmentScanner scanner(segment);
  DIMS_ASSIGN(const auto first, scanner.next());
  std::uint64_t end = kRecordsStart;
  const auto trimmed = [&](const TrimState& state) {
    if (state.epoch > seen.trimmed.epoch) seen.trimmed = state;
  };
  if (first && first->body.type == RecordType::kStart) {
    DIMS_ASSIGN(auto log, scan_log(scanner, *first, seen));
    end = log.end;
    trimmed(log.start.trim);
    seen.candidates.emplace(number, std::move(log));
  } else if (first && first->body.type == RecordType::kMerged) {
    DIMS_ASSIGN(auto merged, scan_merged(scanner, *first));
    if (merged) {
      end = merged->end;
      trimmed(merged->manifest.head.trim);
      claim(seen, merged->manifest.head.horizon.order, path + " (manifest)");
      seen.merged.emplace(number, std::move(*merged));
    } else {
      seen.broken_merged = path;
    }
  }
  DIMS_TRY(collect_claims(scanner, end, seen, &out.cut_seals));
  if (const auto log = seen.candidates.find(number); log != seen.candidates.end())
    log->second.used_end = std::max(end, scanner.passed_end());
  if (scanner.unreadable()) seen.unreadable.insert_or_assign(number, *scanner.unreadable());
  out.read_bytes += scanner.bytes_read();
  if (end != kRecordsStart || scanner.passed_end() != 0) return ok_status();
  SegmentScanner front(segment);
  DIMS_ASSIGN(const std::uint64_t used, front.used_end(kPageBytes, kRecordsStart));
  if (front.unreadable() && !scanner.unreadable())
    seen.unreadable.insert_or_assign(number, *front.unreadable());
  if (used == kPageBytes) {
    out.reusable_number = number;
    out.reusable_bytes = bytes;
  }
  return ok_status();
}

// The merged files whose manifest still says something and whose members are all here, newest
// first.
std::vector<const MergedFile*> usable_merged(const Examination& seen) {
  std::vector<const MergedFile*> out;
  for (auto it = seen.merged.rbegin(); it != seen.merged.rend(); ++it) {
    const Manifest& manifest = it->second.manifest;
    if (manifest.head.horizon.epoch <= seen.trimmed.epoch) continue;
    const bool whole = std::all_of(
        manifest.members.begin(), manifest.members.end(), [&](const ManifestMember& member) {
          const auto found = seen.merged.find(member.number);
          return found != seen.merged.end() && found->second.end == member.end &&
                 found->second.chain == member.chain;
        });
    if (whole) out.push_back(&it->second);
  }
  return out;
}

struct LinkedChain {
  std::vector<std::uint64_t> log;      // newest first; empty if a link does not hold
  const MergedFile* merged = nullptr;  // what stands before the oldest of them
};

// The chain of files that ends in `last`.
LinkedChain linked_chain(const Examination& seen, const std::vector<const MergedFile*>& merged,
                         std::uint64_t last) {
  LinkedChain chain;
  for (std::uint64_t number = last;;) {
    const RecoveredSegment& file = seen.candidates.at(number);
    chain.log.push_back(number);
    for (const MergedFile* candidate : merged) {
      const ManifestHead& head = candidate->manifest.head;
      if (head.next_order == file.first_order && head.next_epoch == file.first_epoch &&
          head.next_chain == file.start.chain) {
        chain.merged = candidate;
        return chain;
      }
    }
    if (file.first_order <= seen.trimmed.order + 1) return chain;
    const auto previous = seen.candidates.find(file.start.previous_number);
    if (previous == seen.candidates.end() || previous->first >= number) return {};
    const RecoveredSegment& before = previous->second;
    if (before.next_order != file.first_order || before.open_epoch != file.first_epoch ||
        before.end != file.start.previous_end || !(before.chain == file.start.chain)) {
      return {};
    }
    number = previous->first;
  }
}

Error damage(const Examination& seen, const std::vector<std::uint64_t>& chain,
             const std::string& folder) {
  std::string message = "the journal in " + folder + " is damaged: ";
  if (chain.empty()) {
    message += seen.broken_merged.empty() ? "its first file is missing or damaged"
                                          : seen.broken_merged + " is damaged";
  } else {
    const RecoveredSegment& last = seen.candidates.at(chain.front());
    message += "record " + std::to_string(last.next_order) + ", expected in " +
               last.segment->file().path() + " at byte " + std::to_string(last.end) +
               " or in the next file, is missing or damaged";
  }
  message += ", but " + (seen.claimed_by.empty() ? "the trim mark" : seen.claimed_by) +
             " shows that records up to " +
             std::to_string(std::max(seen.synced_claim, seen.trimmed.order)) +
             " were safely written";
  return make_error(ErrorCode::kCorrupt, message, kDamageHint);
}

Result<RecoveredJournal> examine(io::FileSystem& fs, const JournalOptions& options,
                                 io::OpenMode mode, bool refuse_damage) {
  RecoveredJournal out;
  Examination seen;
  DIMS_ASSIGN(const auto names, fs.list(options.folder));
  std::vector<std::uint64_t> numbers;
  for (const std::string& name : names) {
    if (const auto number = segment_number(name)) numbers.push_back(*number);
  }
  for (const std::uint64_t number : numbers)
    DIMS_TRY(examine_file(fs, options, mode, number, seen, out));
  out.newest_number = numbers.empty() ? 0 : numbers.back();
  if (refuse_damage && !seen.bad_headers.empty()) {
    Error error = seen.bad_headers.begin()->second;
    error.hint = kDamageHint;
    return error;
  }
  out.trimmed = seen.trimmed;
  if (!seen.loaded.empty()) {
    out.existed = true;
    out.journal = seen.loaded.front()->header().journal;
  }

  // The newest file whose links hold down to what is trimmed or merged.
  LinkedChain linked;
  const auto merged = usable_merged(seen);
  for (auto it = seen.candidates.rbegin(); it != seen.candidates.rend() && linked.log.empty();
       ++it) {
    linked = linked_chain(seen, merged, it->first);
  }
  std::vector<std::uint64_t>& chain = linked.log;
  const std::uint64_t newest_order =
      chain.empty() ? 0 : seen.candidates.at(chain.front()).next_order - 1;
  if (refuse_damage && (newest_order < seen.synced_claim || newest_order < seen.trimmed.order))
    return damage(seen, chain, options.folder);
  // What would be cut off there as a torn tail may have been flushed: the disk does not tell. What
  // the chain stands on has been read.
  if (refuse_damage) {
    for (const auto& [number, at] : seen.unreadable) {
      const bool older = !chain.empty() && number < chain.front();
      const bool read =
          !chain.empty() && number == chain.front() && at < seen.candidates.at(number).end;
      if (!older && !read) {
        return make_error(ErrorCode::kCorrupt,
                          "the disk cannot read journal file " +
                              segment_path(options.folder, number) + " at byte " +
                              std::to_string(at),
                          kDamageHint);
      }
    }
  }

  out.synced_order = seen.synced_claim;
  std::vector<std::uint64_t> kept = chain;
  if (linked.merged != nullptr) {
    for (const ManifestMember& member : linked.merged->manifest.members)
      kept.push_back(member.number);
    kept.push_back(linked.merged->segment->number());
  }
  for (const auto& segment : seen.loaded) {
    const std::uint64_t number = segment->number();
    if (std::find(kept.begin(), kept.end(), number) != kept.end()) continue;
    out.garbage.push_back(number);
    const auto cut = seen.candidates.find(number);
    if (cut != seen.candidates.end() && !chain.empty() && number > chain.front()) {
      out.cut_bytes += cut->second.end - kRecordsStart;
      out.cut_seals += cut->second.seals.size();
    }
  }
  if (out.reusable_number != out.newest_number) out.reusable_number = 0;
  for (std::size_t i = chain.size(); i < kept.size(); ++i)
    out.merged.push_back(std::move(seen.merged.at(kept[i])));
  std::reverse(chain.begin(), chain.end());
  for (const std::uint64_t number : chain)
    out.segments.push_back(std::move(seen.candidates.at(number)));
  if (!out.segments.empty()) {
    out.cut_bytes += out.segments.back().used_end - out.segments.back().end;
  }
  return out;
}

}  // namespace

Result<RecoveredJournal> examine_journal(io::FileSystem& fs, const JournalOptions& options,
                                         io::OpenMode mode) {
  return examine(fs, options, mode, true);
}

Result<RecoveredJournal> examine_damaged_journal(io::FileSystem& fs,
                                                 const JournalOptions& options) {
  return examine(fs, options, io::OpenMode::kReadOnly, false);
}

}  // namespace dims::ldim
