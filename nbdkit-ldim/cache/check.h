// Checks a closed cache: opens every page, changes nothing. Whatever is damaged in it is fetched
// again when it is needed, so nothing here is worse than a warning.
//
// Threads: free function; nobody may write to the folder meanwhile. Units: pages of 4 KiB. Errors:
// only what keeps it from looking at all (the folder cannot be listed); everything else is a
// finding. Durable: nothing is written.
#pragma once

#include <string_view>
#include <vector>

#include "common/base/finding.h"
#include "nbdkit-ldim/cache/page_cache.h"

namespace dims::ldim {

enum class CacheDamage {
  kUnreadable,     // a read failed
  kLoneFile,       // half of a pair
  kHeaderDamaged,  // damaged, cut, swapped, or of another key, machine or image
  kRecordDamaged,  // an index record does not open, or speaks of pages that are cut off
  kPageDamaged,    // an object whose pages do not open: rotten, old, or another one's
  kForeignFile,    // not a cache's file
};
std::string_view cache_damage_name(CacheDamage code);

using CacheFinding = Finding<CacheDamage>;

struct CacheCheck {
  std::vector<CacheFinding> findings;
  std::uint64_t segments = 0;
  std::uint64_t bytes = 0;
  std::uint64_t objects = 0;  // records that open; of an object written twice, both
  std::uint64_t pages = 0;    // in them
};

// A folder that is not there is an empty cache: no finding.
Result<CacheCheck> check_cache(io::FileSystem& fs, const PageCacheOptions& options);

}  // namespace dims::ldim
