#include "nbdkit-ldim/cache/check.h"

#include <map>

#include "nbdkit-ldim/cache/cache_segment.h"

namespace dims::ldim {

namespace {

constexpr char kFetchHint[] = "nothing; it is fetched again when it is needed";

class Checker {
 public:
  Checker(io::FileSystem& fs, const PageCacheOptions& options) : fs_(fs), options_(options) {}

  Result<CacheCheck> run() {
    DIMS_ASSIGN(const bool there, fs_.exists(options_.folder));
    if (!there) return std::move(out_);
    DIMS_ASSIGN(const auto names, fs_.list(options_.folder));
    struct Pair {
      std::string data;
      std::string index;
    };
    std::map<std::uint64_t, Pair> pairs;
    for (const std::string& name : names) {
      const auto parsed = parse_cache_file_name(name);
      if (!parsed || parsed->sequence == 0) {
        add(CacheDamage::kForeignFile, Severity::kNote, options_.folder + "/" + name, 0,
            "is no file of a cache", "move it elsewhere");
        continue;
      }
      Pair& pair = pairs[parsed->sequence];
      (parsed->kind == CacheFileKind::kData ? pair.data : pair.index) =
          options_.folder + "/" + name;
    }
    for (const auto& [sequence, pair] : pairs) {
      if (pair.data.empty() || pair.index.empty()) {
        add(CacheDamage::kLoneFile, Severity::kWarning, pair.data.empty() ? pair.index : pair.data,
            0, "has lost its other half", "nothing; the next start removes it");
        continue;
      }
      look_at(sequence, pair.data, pair.index);
    }
    return std::move(out_);
  }

 private:
  void add(CacheDamage code, Severity severity, const std::string& where, std::uint64_t offset,
           const std::string& text, const std::string& todo) {
    out_.findings.push_back({code, severity, where, offset, text, todo});
  }

  std::shared_ptr<const CacheKeys> keys_of(const CacheSalt& salt) {
    auto& keys = keys_[salt];
    if (keys == nullptr) {
      const CacheOwner owner{options_.machine, options_.image};
      keys = std::make_shared<const CacheKeys>(options_.key, salt, owner);
    }
    return keys;
  }

  void look_at(std::uint64_t sequence, const std::string& data, const std::string& index) {
    const CacheOwner owner{options_.machine, options_.image};
    const auto segment =
        CacheSegment::open(fs_, options_.folder, sequence, owner,
                           [this](const CacheSalt& salt) { return keys_of(salt); });
    if (!segment.ok()) {
      const bool unread = segment.error().code == ErrorCode::kIo;
      add(unread ? CacheDamage::kUnreadable : CacheDamage::kHeaderDamaged, Severity::kWarning, data,
          0, segment.error().message, "nothing; the next start removes it");
      return;
    }
    ++out_.segments;
    if (const auto bytes = (*segment)->file_bytes(); bytes.ok()) out_.bytes += *bytes;
    Bytes pages;
    const auto scan = (*segment)->scan([&](const CacheRecord& record) {
      ++out_.objects;
      out_.pages += record.pages;
      pages.resize(record.pages * kPageBytes);
      const Status read = (*segment)->read(record.object, record.first_slot, 0, pages, nullptr);
      if (read.ok()) return;
      const bool corrupt = read.error().code == ErrorCode::kCorrupt;
      add(corrupt ? CacheDamage::kPageDamaged : CacheDamage::kUnreadable, Severity::kWarning, data,
          cache_page_offset((*segment)->capacity_pages(), record.first_slot),
          "object " + record.object.short_hex() + " (" + std::to_string(record.pages) +
              " pages): " + read.error().message,
          kFetchHint);
    });
    if (scan.bad != 0) {
      add(CacheDamage::kRecordDamaged, Severity::kWarning, index, kCacheHeaderBytes,
          std::to_string(scan.bad) +
              " index records are damaged or speak of pages that are cut off",
          kFetchHint);
    }
  }

  io::FileSystem& fs_;
  const PageCacheOptions& options_;
  CacheCheck out_;
  std::map<CacheSalt, std::shared_ptr<const CacheKeys>> keys_;
};

}  // namespace

std::string_view cache_damage_name(CacheDamage code) {
  switch (code) {
    case CacheDamage::kUnreadable:
      return "unreadable";
    case CacheDamage::kLoneFile:
      return "lone-file";
    case CacheDamage::kHeaderDamaged:
      return "header-damaged";
    case CacheDamage::kRecordDamaged:
      return "record-damaged";
    case CacheDamage::kPageDamaged:
      return "page-damaged";
    case CacheDamage::kForeignFile:
      return "foreign-file";
  }
  return "?";
}

Result<CacheCheck> check_cache(io::FileSystem& fs, const PageCacheOptions& options) {
  return Checker(fs, options).run();
}

}  // namespace dims::ldim
