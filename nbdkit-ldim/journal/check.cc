#include "nbdkit-ldim/journal/check.h"

#include <algorithm>
#include <set>

#include "common/crypto/hash.h"
#include "nbdkit-ldim/journal/merged_file.h"
#include "nbdkit-ldim/journal/recovery.h"

namespace dims::ldim {

using namespace journal_format;

namespace {

constexpr char kKeepHint[] =
    "copy the whole cache folder before anything else; then restore this file from a copy, if "
    "there is one";
constexpr char kStartHint[] = "nothing; the next start clears it away";

class Checker {
 public:
  Checker(io::FileSystem& fs, const JournalOptions& options) : fs_(fs), options_(options) {}

  Result<JournalCheck> run() {
    crypto::initialise();
    DIMS_ASSIGN(const bool there, fs_.exists(options_.folder));
    out_.opens = !there;
    if (!there) return std::move(out_);
    DIMS_ASSIGN(const auto names, fs_.list(options_.folder));
    const auto examined = examine_journal(fs_, options_, io::OpenMode::kReadOnly);
    if (examined.ok()) take_verdict(*examined);
    for (const std::string& name : names) {
      const auto number = segment_number(name);
      if (!number) {
        add(JournalDamage::kForeignFile, Severity::kNote, options_.folder + "/" + name, 0,
            "is no file of a journal", "move it elsewhere; it is ignored");
        continue;
      }
      look_at(*number);
    }
    const bool told =
        std::any_of(out_.findings.begin(), out_.findings.end(),
                    [](const JournalFinding& f) { return f.severity == Severity::kDamage; });
    if (!examined.ok() && !told) add_error(examined.error(), options_.folder);
    if (journal_) out_.journal = *journal_;
    return std::move(out_);
  }

 private:
  void add(JournalDamage code, Severity severity, const std::string& where, std::uint64_t offset,
           const std::string& text, const std::string& todo) {
    out_.findings.push_back({code, severity, where, offset, text, todo});
  }

  void add_error(const Error& error, const std::string& where) {
    JournalDamage code = JournalDamage::kUnreadable;
    switch (error.code) {
      case ErrorCode::kCorrupt:
        code = JournalDamage::kRecordsMissing;
        break;
      case ErrorCode::kWrongKey:
        code = JournalDamage::kWrongKey;
        break;
      case ErrorCode::kInvalidArgument:
        code = JournalDamage::kMisplacedFile;
        break;
      case ErrorCode::kUnsupported:
        code = JournalDamage::kUnknownVersion;
        break;
      default:
        break;
    }
    add(code, Severity::kDamage, where, 0, error.message,
        error.hint.empty() ? kKeepHint : error.hint);
  }

  void take_verdict(const RecoveredJournal& found) {
    out_.opens = true;
    out_.trimmed_epoch = out_.last_epoch = found.trimmed.epoch;
    for (const MergedFile& file : found.merged) {
      needed_.insert(file.segment->number());
      out_.records += file.records.size();
      out_.merged_epoch = file.manifest.head.horizon.epoch;
    }
    out_.last_epoch = std::max(out_.last_epoch, out_.merged_epoch);
    for (const RecoveredSegment& file : found.segments) {
      needed_.insert(file.segment->number());
      for (const PackedRecord& record : file.records)
        out_.records += record.order > found.trimmed.order ? 1u : 0u;
      if (!file.seals.empty()) out_.last_epoch = std::max(out_.last_epoch, file.seals.back().epoch);
    }
  }

  void look_at(std::uint64_t number) {
    const std::string path = segment_path(options_.folder, number);
    const Status looked = look_at_file(number, path);
    if (looked.ok()) return;
    if (looked.error().code == ErrorCode::kCorrupt) {
      add(JournalDamage::kHeaderDamaged, out_.opens ? Severity::kNote : Severity::kDamage, path, 0,
          looked.error().message, out_.opens ? kStartHint : kKeepHint);
    } else {
      add_error(looked.error(), path);
    }
  }

  Status look_at_file(std::uint64_t number, const std::string& path) {
    DIMS_ASSIGN(auto file, fs_.open(path, io::OpenMode::kReadOnly));
    ++out_.files;
    DIMS_ASSIGN(const std::uint64_t bytes, file->size());
    out_.bytes += bytes;
    auto loaded =
        JournalSegment::load(file, number, options_.machine, options_.image, options_.key);
    if (!loaded.ok()) {
      // A file without records was being made.
      SegmentScanner raw(std::make_shared<JournalSegment>(file, FileHeader{}, Secret32{}));
      DIMS_ASSIGN(const std::uint64_t used, raw.used_end(kPageBytes));
      if (loaded.error().code == ErrorCode::kCorrupt && used == kPageBytes) return ok_status();
      return loaded.error();
    }
    const auto segment = std::move(loaded).value();
    if (journal_ && !(*journal_ == segment->header().journal)) {
      add(JournalDamage::kMisplacedFile, Severity::kDamage, path, 0,
          "belongs to journal " + segment->header().journal.hex() + ", its neighbours to " +
              journal_->hex(),
          "move the file that was put here by mistake out of the folder");
      return ok_status();
    }
    journal_ = segment->header().journal;
    DIMS_TRY(look_at_slots(*segment, path));
    SegmentScanner scanner(segment);
    DIMS_ASSIGN(const auto first, scanner.next());
    if (first && first->body.type == RecordType::kMerged)
      return look_at_merged(scanner, *first, path);
    return look_at_log(scanner, first.has_value(), path);
  }

  Status look_at_slots(const JournalSegment& segment, const std::string& path) {
    Bytes slots(kRecordsStart - kTrimSlotOffset[0]);
    DIMS_ASSIGN(const std::size_t n, segment.file().read_some(kTrimSlotOffset[0], slots));
    slots.resize(n);
    DIMS_ASSIGN(const int opened, segment.open_slots());
    int used = 0;
    for (const std::uint64_t at : {kTrimSlotOffset[0], kTrimSlotOffset[1], kNoteOffset}) {
      const std::uint64_t from = at - kTrimSlotOffset[0];
      if (from + 128 <= slots.size() && !is_all_zero(ByteView(slots).subspan(from, 128))) ++used;
    }
    if (used > opened) {
      add(JournalDamage::kSlotDamaged, Severity::kWarning, path, kTrimSlotOffset[0],
          std::to_string(used - opened) + " of its trim slots and notes do not open",
          "nothing; they are written again. Check the disk if this happens often");
    }
    return ok_status();
  }

  Status look_at_merged(SegmentScanner& scanner, const ScannedRecord& first,
                        const std::string& path) {
    DIMS_ASSIGN(const auto merged, scan_merged(scanner, first));
    if (merged) {
      if (out_.opens && needed_.count(merged->segment->number()) == 0) superfluous(path);
    } else if (out_.opens) {
      add(JournalDamage::kUnfinishedMerge, Severity::kNote, path, scanner.position(),
          "was being written when LDIM stopped; it never counted", kStartHint);
    } else {
      add(JournalDamage::kMergedDamaged, Severity::kDamage, path, scanner.position(),
          "is damaged at byte " + std::to_string(scanner.position()) + ", and the journal needs it",
          kKeepHint);
    }
    return ok_status();
  }

  Status look_at_log(SegmentScanner& scanner, bool has_first, const std::string& path) {
    const std::uint64_t number = scanner.segment()->number();
    for (bool more = has_first; more;) {
      DIMS_ASSIGN(const auto record, scanner.next());
      more = record.has_value();
    }
    const std::uint64_t end = scanner.position();
    const std::string place = " at byte " + std::to_string(end);
    DIMS_ASSIGN(const auto behind, scanner.find_header(end));
    if (behind && !out_.opens) {
      add(JournalDamage::kRecordDamaged, Severity::kDamage, path, end,
          "the record" + place + " is damaged; good ones follow it", kKeepHint);
      return ok_status();
    }
    DIMS_ASSIGN(const std::uint64_t used, scanner.used_end(end));
    if (used > end && out_.opens) {
      add(JournalDamage::kTornTail, Severity::kNote, path, end,
          std::to_string(used - end) + " bytes" + place + " belong to writes that no flush covered",
          kStartHint);
    } else if (has_first && out_.opens && needed_.count(number) == 0) {
      superfluous(path);
    } else if (used > end) {
      add(JournalDamage::kRecordDamaged, Severity::kDamage, path, end,
          "the record" + place + " is damaged", kKeepHint);
    }
    return ok_status();
  }

  void superfluous(const std::string& path) {
    add(JournalDamage::kSuperfluousFile, Severity::kNote, path, 0,
        "holds nothing that is still needed", kStartHint);
  }

  io::FileSystem& fs_;
  const JournalOptions& options_;
  JournalCheck out_;
  std::set<std::uint64_t> needed_;
  std::optional<JournalId> journal_;
};

}  // namespace

std::string_view journal_damage_name(JournalDamage code) {
  switch (code) {
    case JournalDamage::kUnreadable:
      return "unreadable";
    case JournalDamage::kHeaderDamaged:
      return "header-damaged";
    case JournalDamage::kWrongKey:
      return "wrong-key";
    case JournalDamage::kMisplacedFile:
      return "misplaced-file";
    case JournalDamage::kUnknownVersion:
      return "unknown-version";
    case JournalDamage::kRecordDamaged:
      return "record-damaged";
    case JournalDamage::kMergedDamaged:
      return "merged-damaged";
    case JournalDamage::kRecordsMissing:
      return "records-missing";
    case JournalDamage::kTornTail:
      return "torn-tail";
    case JournalDamage::kUnfinishedMerge:
      return "unfinished-merge";
    case JournalDamage::kSuperfluousFile:
      return "superfluous-file";
    case JournalDamage::kSlotDamaged:
      return "slot-damaged";
    case JournalDamage::kForeignFile:
      return "foreign-file";
  }
  return "?";
}

Result<JournalCheck> check_journal(io::FileSystem& fs, const JournalOptions& options) {
  return Checker(fs, options).run();
}

}  // namespace dims::ldim
