// RocksDB's checksum, CRC-32C, by the processor's own instruction.
//
// Debian builds RocksDB for the oldest processors, where it computes CRC-32C from tables: a fifth
// of the server's time while it takes in objects. This folder defines rocksdb::crc32c::Extend,
// which the dynamic linker then prefers to the library's; the values are the same (test_stores).
// Threads: any. Errors: none; a processor without SSE 4.2 gets the library's own function.
#pragma once

namespace dims::stores {

// Whether RocksDB computes its checksums by the instruction. Calling it also links it in.
bool fast_crc32c();

}  // namespace dims::stores
