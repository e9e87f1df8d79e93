// One segment of the cache: a pair of files whose slots are each written at most once.
//
// The segment does the sealing, opening and file work; who may write which slot is its owner's
// affair. Threads: read(), write() and the used marks are thread-safe, as long as no slot or record
// number is given out twice. Ownership: shared; a removed data file stays readable through it; the
// file system outlives it. Units: slots of 4 KiB. Durable on return: only sync(). Order of a write:
// pages, tags, index record.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/base/result.h"
#include "common/io/file.h"
#include "nbdkit-ldim/cache/cache_format.h"
#include "nbdkit-ldim/cache/tag_memory.h"

namespace dims::ldim {

class CacheSegment {
 public:
  // A new, empty segment; fails with kAlreadyExists if a file of that name is there. Leaves nothing
  // behind on failure.
  static Result<std::shared_ptr<CacheSegment>> create(io::FileSystem& fs, const std::string& folder,
                                                      const CacheHeader& header,
                                                      std::shared_ptr<const CacheKeys> keys);
  // A segment of an earlier open, never written again. kCorrupt, kWrongKey or kUnsupported if it is
  // not ours or not whole enough; `keys_of` gives the keys of a salt.
  using KeysOf = std::function<std::shared_ptr<const CacheKeys>(const CacheSalt&)>;
  static Result<std::shared_ptr<CacheSegment>> open(io::FileSystem& fs, const std::string& folder,
                                                    std::uint64_t sequence, const CacheOwner& owner,
                                                    const KeysOf& keys_of);

  std::uint64_t sequence() const { return header_.sequence; }
  std::uint32_t capacity_pages() const { return header_.capacity_pages; }

  // Seals and writes an object's pages into slots from record.first_slot on, then the record.
  Status write(std::uint32_t record_number, const CacheRecord& record, ByteView data);
  // Reads and opens pages of the object whose first page is in `first_slot`. On failure `out` is
  // zero: kCorrupt if a tag does not match, else the file's error. `memory` (may be null) saves
  // reading tags.
  Status read(const ObjectId& object, std::uint32_t first_slot, std::uint32_t first_page,
              MutByteView out, TagMemory* memory) const;

  struct RecordScan {
    std::uint64_t good = 0;
    std::uint64_t bad = 0;  // neither valid nor never written
    bool unread = false;    // the disk did not give all of them
  };
  // Calls `visit` for each valid record whose pages the data file is long enough to hold, in order.
  RecordScan scan(const std::function<void(const CacheRecord&)>& visit) const;

  // A read was served from the object at this slot.
  void mark_used(std::uint32_t first_slot) {
    auto& word = used_[first_slot / 64];
    const std::uint64_t bit = std::uint64_t{1} << (first_slot % 64);
    if ((word.load(std::memory_order_relaxed) & bit) == 0)
      word.fetch_or(bit, std::memory_order_relaxed);
  }
  bool was_used(std::uint32_t first_slot) const {
    return (used_[first_slot / 64].load(std::memory_order_relaxed) >> (first_slot % 64) & 1) != 0;
  }

  Status sync();
  // Removes both files from the folder; ok if they are gone already.
  Status remove() const;
  // What both files hold now.
  Result<std::uint64_t> file_bytes() const;
  std::uint64_t memory_bytes() const {
    return sizeof *this + (header_.capacity_pages + 63) / 64 * 8;
  }

  // Kept by the owner of the segment under its own lock.
  struct Filling {
    std::uint32_t next_slot = 0;
    std::uint32_t next_record = 0;
    std::uint32_t writers = 0;  // slots given out whose write has not ended
    std::uint64_t bytes = 0;    // of the limit that this segment takes
    bool dirty = false;         // written since the last sync
    bool sync_failed = false;   // never to be called durable again
  } filling;

 private:
  CacheSegment(io::FileSystem& fs, std::string folder, const CacheHeader& header,
               std::shared_ptr<const CacheKeys> keys);

  Status read_tags(std::uint32_t slot, MutByteView tags, TagMemory* memory) const;
  Status read_and_open(const ObjectId& object, std::uint32_t slot, std::uint32_t first_page,
                       ByteView tags, MutByteView out) const;

  io::FileSystem& fs_;
  std::string data_path_;
  std::string index_path_;
  CacheHeader header_;
  std::shared_ptr<const CacheKeys> keys_;
  std::shared_ptr<io::File> data_;
  std::shared_ptr<io::File>
      index_;  // only of a segment that this open writes; else opened when scanned
  std::unique_ptr<std::atomic<std::uint64_t>[]> used_;
};

}  // namespace dims::ldim
