#include "tests/support/corruptors.h"

#include <algorithm>

#include "common/base/clock.h"

namespace dims::test {

void flip_bit(SimFileSystem& disk, const std::string& path, std::uint64_t at) {
  const Bytes bytes = disk.peek(path);
  if (at >= bytes.size()) return;
  const auto other = static_cast<std::uint8_t>(bytes[at] ^ 0x10);
  disk.poke(path, at, {&other, 1});
}

void zero_sector(SimFileSystem& disk, const std::string& path, std::uint64_t at) {
  disk.poke(path, at / 512 * 512, Bytes(512));
}

void truncate_tail(SimFileSystem& disk, const std::string& path, std::uint64_t to) {
  Bytes bytes = disk.peek(path);
  bytes.resize(std::min<std::size_t>(bytes.size(), to));
  disk.plant(path, bytes);
}

void scribble(SimFileSystem& disk, const std::string& path, std::uint64_t at, std::uint64_t count) {
  Bytes bytes(count);
  SeededRandom(at + 1).fill(bytes);
  disk.poke(path, at, bytes);
}

void remove_file(SimFileSystem& disk, const std::string& path) { disk.erase(path); }

void swap_files(SimFileSystem& disk, const std::string& a, const std::string& b) {
  const Bytes first = disk.peek(a);
  disk.plant(a, disk.peek(b));
  disk.plant(b, first);
}

void misdirect(SimFileSystem& disk, const std::string& path, std::uint64_t from, std::uint64_t to,
               std::uint64_t count) {
  const Bytes bytes = disk.peek(path);
  disk.poke(path, to, ByteView(bytes).subspan(from, count));
}

void restore_old(SimFileSystem& disk, const SimFileSystem& older, const std::string& path,
                 std::uint64_t at, std::uint64_t count) {
  const Bytes bytes = older.peek(path);
  disk.poke(path, at, ByteView(bytes).subspan(at, count));
}

void restore_old_file(SimFileSystem& disk, const SimFileSystem& older, const std::string& path) {
  disk.plant(path, older.peek(path));
}

}  // namespace dims::test
