// Damage with names: each function does one kind of harm to the files of a simulated disk, as a
// rotten or lying disk, a restored copy or a mistaken hand does. Everything is durable at once.
//
// Threads: one at a time. Units: bytes. Errors: none; a file that is not there stays so.
#pragma once

#include <string>

#include "tests/support/sim_file.h"

namespace dims::test {

void flip_bit(SimFileSystem& disk, const std::string& path, std::uint64_t at);
void zero_sector(SimFileSystem& disk, const std::string& path, std::uint64_t at);
void truncate_tail(SimFileSystem& disk, const std::string& path, std::uint64_t to);
// Bytes that nobody wrote, behind or within a file.
void scribble(SimFileSystem& disk, const std::string& path, std::uint64_t at, std::uint64_t count);
void remove_file(SimFileSystem& disk, const std::string& path);
// Each gets the other's name.
void swap_files(SimFileSystem& disk, const std::string& a, const std::string& b);
// A write that went to the wrong place: `count` bytes from `from` lie at `to` as well.
void misdirect(SimFileSystem& disk, const std::string& path, std::uint64_t from, std::uint64_t to,
               std::uint64_t count);
// A write that was lost: these bytes are what an older state of the disk had there.
void restore_old(SimFileSystem& disk, const SimFileSystem& older, const std::string& path,
                 std::uint64_t at, std::uint64_t count);
// The whole file as an older state of the disk had it.
void restore_old_file(SimFileSystem& disk, const SimFileSystem& older, const std::string& path);

}  // namespace dims::test
