// A bounded memory of page tags, so that most reads need one pread instead of two.
//
// Lines of 256 consecutive tags of one segment (1 MiB of pages), each place in memory serving
// several lines in turn. A copy may be missing, old or torn without harm: whoever fails to open a
// page with a tag from here asks the file. Threads: all methods are thread-safe and never wait (a
// sequence lock a line). Units: slots. Errors: none.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "common/base/bytes.h"
#include "common/crypto/aead.h"

namespace dims::ldim {

class TagMemory {
 public:
  static constexpr std::uint32_t kLineTags = 256;
  static constexpr std::size_t kLineBytes = kLineTags * crypto::kTagBytes;

  // Room for at least one line; `segment_pages` is the capacity of a usual segment.
  TagMemory(std::uint64_t bytes, std::uint32_t segment_pages);

  // Copies the tags of slots [first, first + count) to `out`; false if they are not all here. A run
  // that crosses lines is looked for in each.
  bool get(std::uint64_t sequence, std::uint32_t first, std::uint32_t count, std::uint8_t* out);
  // Whether a line that was missed should be read from the file and given to put(); lines in use
  // are not pushed out at once.
  bool wants(std::uint64_t sequence, std::uint32_t slot);
  // The tags of the line that holds `slot`, as the file has them (zero: not written yet).
  void put(std::uint64_t sequence, std::uint32_t slot, ByteView line);

  std::uint64_t memory_bytes() const { return line_count_ * sizeof(Line); }

 private:
  struct alignas(64) Line {
    std::atomic<std::uint32_t> version{0};  // odd while it is written
    std::atomic<std::uint32_t> heat{0};
    std::atomic<std::uint64_t> name{0};  // sequence << 24 | number of the line; 0 = empty
    std::array<std::atomic<std::uint64_t>, kLineBytes / 8> words{};
  };

  Line& line_of(std::uint64_t sequence, std::uint32_t slot) {
    return lines_[(sequence * lines_a_segment_ + slot / kLineTags) % line_count_];
  }

  std::uint64_t lines_a_segment_;
  std::uint64_t line_count_;
  std::unique_ptr<Line[]> lines_;
};

}  // namespace dims::ldim
