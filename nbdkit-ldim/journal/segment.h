// One file of the journal: seals records into bytes, opens them again.
//
// Threads: all methods are const or touch only their arguments; safe in parallel. Ownership:
// shared; holds the file open, so a removed file stays readable. Units: bytes. Errors: kCorrupt on
// a failed tag. Durable: nothing is synced here except by create().
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/crypto/aead.h"
#include "common/io/file.h"
#include "nbdkit-ldim/journal/format.h"

namespace dims::ldim {

// What a journal's files have in common.
struct JournalIdentity {
  JournalId journal;
  MachineId machine;
  ImageId image;
  SessionId session;
};

class JournalSegment {
 public:
  // Makes a new file, reserves `bytes`, writes its header, syncs file and folder: once a record is
  // written into it, its header cannot be missing. On failure the file is removed again.
  static Result<std::shared_ptr<JournalSegment>> create(io::FileSystem& fs,
                                                        const std::string& folder,
                                                        std::uint64_t number, std::uint64_t bytes,
                                                        std::uint64_t synced_order,
                                                        const JournalIdentity& identity,
                                                        const Secret32& key, Random& random);
  // Gives an existing file without records a new salt, and so a new key.
  static Result<std::shared_ptr<JournalSegment>> recycle(std::shared_ptr<io::File> file,
                                                         std::uint64_t number, std::uint64_t bytes,
                                                         std::uint64_t synced_order,
                                                         const JournalIdentity& identity,
                                                         const Secret32& key, Random& random);
  // Reads and checks a header. kCorrupt (damaged or not a header), kUnsupported, kWrongKey,
  // kInvalidArgument (another machine's or image's).
  static Result<std::shared_ptr<JournalSegment>> load(std::shared_ptr<io::File> file,
                                                      std::uint64_t number,
                                                      const MachineId& machine,
                                                      const ImageId& image, const Secret32& key);

  JournalSegment(std::shared_ptr<io::File> file, const journal_format::FileHeader& header,
                 const Secret32& file_key);

  const journal_format::FileHeader& header() const { return header_; }
  std::uint64_t number() const { return header_.number; }
  io::File& file() const { return *file_; }

  // Seals header and data into `out` (exactly body.total_bytes), for writing at `file_offset`.
  // Fills body.body_tag. Returns the header's tag, which goes into the chain.
  crypto::Tag seal_record(journal_format::RecordBody& body, std::uint64_t file_offset,
                          ByteView data, std::uint8_t* out) const;
  // Opens a header; nullopt if it is none of ours. Its lengths are checked against each other.
  std::optional<journal_format::RecordBody> open_header(const journal_format::RecordHeader& header,
                                                        std::uint64_t file_offset) const;
  // Opens all blocks of a record (`record` holds all its bytes); false on any failed tag. The text
  // goes to `out` if that is not empty (body.count bytes).
  bool open_body(const journal_format::RecordBody& body, std::uint64_t file_offset, ByteView record,
                 MutByteView out) const;
  // See Journal::read.
  Status read(ByteRange record_range, std::uint64_t file_offset, std::uint64_t at,
              MutByteView out) const;

  Status write_trim_slot(std::uint64_t generation, const journal_format::TrimState& state) const;
  Status write_note(std::uint64_t generation, std::uint64_t synced_order) const;
  // The newer of the two slots that can be read; nullopt if none can.
  Result<std::optional<journal_format::TrimState>> read_trim_slots() const;
  Result<std::optional<std::uint64_t>> read_note() const;
  // How many of the two slots and the note open.
  Result<int> open_slots() const;

 private:
  Result<std::optional<journal_format::TrimState>> read_trim_slot(std::uint64_t offset) const;
  journal_format::AssociatedData ad(journal_format::AdKind kind, std::uint64_t a,
                                    std::uint64_t b) const;
  static journal_format::FileHeader make_header(std::uint64_t number, std::uint64_t bytes,
                                                std::uint64_t synced_order,
                                                const JournalIdentity& identity,
                                                const Secret32& key, Random& random);

  std::shared_ptr<io::File> file_;
  journal_format::FileHeader header_;
  crypto::PageCipher cipher_;
};

// "FOLDER/0000000007.jnl", and back (nullopt for other names).
std::string segment_path(const std::string& folder, std::uint64_t number);
std::optional<std::uint64_t> segment_number(std::string_view name);
// The key of a file.
Secret32 segment_key(const Secret32& journal_key, const journal_format::FileHeader& header);

}  // namespace dims::ldim
