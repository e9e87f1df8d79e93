// GuestHistory: what one guest wrote, sector by sector, and at which points it was told "durable".
// Every write has a stamp of its own, and a sector's bytes follow from stamp and place alone, so
// that any content of a disk can be taken apart into stamps and compared with every moment.
//
// Threads: one. Units: sectors of 512 bytes. Errors: texts for people; empty = right.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/units.h"
#include "tests/sim/sim_base.h"

namespace dims::sim {

inline constexpr std::uint64_t kSectorBytes = 512;
using Stamps = std::vector<std::uint32_t>;  // one a sector; 0 = zeros

// The bytes of a sector that carries `stamp`.
void fill_sector(std::uint64_t sector, std::uint32_t stamp, std::uint8_t* out);
Bytes content_of(const Stamps& stamps, std::uint64_t first = 0, std::uint64_t count = ~0ull);
// The stamps of a content; `first` is the number of its first sector. The first sector that no
// write ever produced is told in `wrong`.
Stamps stamps_of(ByteView content, std::uint64_t first, std::string& wrong);
std::uint64_t hash_stamps(const Stamps& stamps);

class GuestHistory {
 public:
  // A session begins on this content, which counts as flushed.
  void begin(Stamps base);

  // --- what the guest does ---
  void write(std::uint64_t first, std::uint64_t count, std::uint32_t stamp);  // 0: zero or trim
  void flush();                          // answered: everything so far is durable
  void may_end_here() { note_flush(); }  // an epoch might, though the guest asked for nothing

  // --- what the tests ask ---
  const Stamps& now() const { return now_; }
  const Stamps& flushed() const { return flushed_; }
  bool unflushed() const { return !since_.empty(); }
  // After a power cut: `found` must be a moment between the last flush and now; history is cut off
  // there, and that moment counts as flushed (recovery has sealed it).
  std::string rewind(const Stamps& found);
  // The hashes of these moments, the last flush first; and the same rewinding to one of them.
  std::vector<std::uint64_t> moments() const;
  void rewind_to(std::uint64_t hash);
  // After a kill: everything is there, and recovery has sealed it.
  void seal() { flush(); }
  // The next flush point with this content behind `after`; nullopt if there is none.
  std::optional<std::uint64_t> flush_point(std::uint64_t hash, std::uint64_t after) const;
  std::uint64_t flush_points() const { return points_; }

 private:
  struct Change {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
    std::uint32_t stamp = 0;
  };
  static void apply(Stamps& stamps, std::uint64_t& hash, const Change& change);
  void note_flush();

  Stamps now_, flushed_;
  std::uint64_t hash_ = 0, flushed_hash_ = 0;
  std::vector<Change> since_;  // the last flush
  std::uint64_t points_ = 0;
  std::unordered_map<std::uint64_t, std::vector<std::uint64_t>> by_hash_;  // -> flush points
};

}  // namespace dims::sim
