// The cache: LDIM's local copy of pages that RDIM holds. Anything in it may be lost.
//
// A cached page is named (object id, page within the object) and nothing else: who asks must know
// from the base tree which object stands at a place of the disk. Objects are stored whole or in
// part, as runs of pages, in segment files that are written once, front to back, and reused never
// (docs/formats/cache.md). Eviction takes the oldest segment and carries over what was used since
// (FIFO with reinsertion); the folder never holds more than limit_bytes. One process at a time may
// have the folder open; its owner keeps others out.
//
// Threads: all methods are thread-safe; reads run in parallel and wait for no write or eviction.
// Ownership: the file system outlives the cache. Units:
// pages of 4 KiB. Errors: a page that fails its check is dropped, counted, logged and reported as
// absent, never served. kNoSpace and kIo on insert mean "not cached" and leave the cache usable.
// Durable on return: only sync().
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/base/units.h"
#include "common/crypto/held_key.h"
#include "common/io/file.h"

namespace dims::ldim {

struct PageCacheOptions {
  std::string folder;
  MachineId machine;
  ImageId image;
  crypto::HeldKey key;  // P of SECURITY 12
  std::uint64_t limit_bytes = 10 * kGiB;
  std::uint64_t tag_memory_bytes =
      16 * kMiB;  // at most; each MiB saves a system call a read for 250 MiB of pages
};

struct PageCacheStats {
  std::uint64_t bytes = 0;  // space held by segment and index files
  std::uint64_t limit_bytes = 0;
  std::uint64_t free_pages = 0;  // at least so many can be put in before anything is evicted
  std::uint64_t pages = 0;       // present
  std::uint64_t objects = 0;
  std::uint64_t damaged_pages = 0;   // failed their check since open
  std::uint64_t evicted_pages = 0;   // dropped to make room since open
  std::uint64_t carried_pages = 0;   // moved to a new segment instead
  std::uint64_t failed_inserts = 0;  // not cached: no space or an I/O error
  std::uint64_t memory_bytes = 0;    // of the index, estimated
  std::uint64_t tag_memory_bytes = 0;
};

// Where an object's pages lie; a hint that find() gives and read() checks. Plain value, 8 bytes,
// may be kept by the caller beside its own tables and used later: if the place was evicted
// meanwhile, read() says kGone. Zero = unknown.
struct CachePlace {
  std::uint64_t value = 0;
  bool known() const { return value != 0; }
};

enum class CacheRead { kOk, kGone, kDamaged };

class PageCache {
 public:
  // Smallest limit that works; open() refuses less with kInvalidArgument saying so.
  static constexpr std::uint64_t kMinLimitBytes = 16 * kMiB;

  // Opens or creates the cache in options.folder. Damage (cut, foreign or rotten files) costs
  // pages, never the open. kNoSpace/kIo only if not even an empty cache can be made.
  static Result<std::unique_ptr<PageCache>> open(io::FileSystem& fs,
                                                 const PageCacheOptions& options, Random& random);
  virtual ~PageCache() = default;

  // Finds an object. `pages` (may be null) receives how many of its pages are present from page 0.
  // Does not count as use: what decides about eviction is read().
  virtual CachePlace find(const ObjectId& object, std::uint32_t* pages) = 0;

  // Reads pages [first, first + out.size()/4096) of the object at `place` straight into `out`, each
  // opened and checked; marks the object as used. kGone: not there (evicted, dropped, or more pages
  // than are present). kDamaged: it failed its check and the object was dropped now. On anything
  // but kOk `out` is all zero.
  virtual CacheRead read(CachePlace place, const ObjectId& object, std::uint32_t first_page,
                         MutByteView out) = 0;

  // Puts an object's pages in (data.size() a multiple of 4096, at most 128 pages). Already present
  // with as many pages: no-op. `lives` (0..3) is how many evictions it survives without being used:
  // tree nodes get 3, read-ahead 0.
  virtual Status insert(const ObjectId& object, ByteView data, unsigned lives) = 0;

  // All inserted pages and their index entries are durable on return.
  virtual Status sync() = 0;

  // Gives disk space back: evicts until `bytes` are free that were held, and shrinks the limit to
  // what is left. The limit grows again by itself while the file system has room. kNoSpace: all was
  // given and it is less.
  virtual Status yield_space(std::uint64_t bytes) = 0;

  // Checks every present page (ldim check); drops what is damaged. Returns the number of pages
  // dropped.
  virtual Result<std::uint64_t> verify_all() = 0;
  virtual void clear() = 0;
  virtual PageCacheStats stats() = 0;
};

}  // namespace dims::ldim
