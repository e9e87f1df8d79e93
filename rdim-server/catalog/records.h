// The records of the RefStore: images, names, sessions (docs/formats/store.md). Version records are
// stored as they are (common/format/version.h).
//
//   image/<id>            ImageRecord: everything of one image that changes, in one record
//   name/<name>           image id
//   session/<id>/<id>     SessionRecord, by image and session
//   version/<id>          the version record's bytes, never changed
//   gone/<id>             a version whose data was let go; when, nanoseconds since 1970
//   retention/<id>        of an image, if it has one of its own (retention.h)
//
// Threads: values. Errors: kCorrupt naming the record, kUnsupported for a format of the future.
#pragma once

#include <string>
#include <vector>

#include "common/contract/remote.h"

namespace dims::catalog {

// Who holds, or last held and did not release, the right to commit. Whether the lease has expired
// is known only to the running server.
struct LeaseRecord {
  LeaseId lease;  // zero: free
  MachineId machine;
  std::string machine_name;
  SessionId session;
  bool held() const { return !lease.is_zero(); }
};

// The newest commit of one journal and the version that it made.
struct JournalRecord {
  format::CommitPoint newest;
  VersionId version;
  std::uint64_t sequence = 0;
};
// The journals used last are kept; an older one counts as unknown.
inline constexpr std::size_t kJournalsMax = 1024;

// A machine whose lease went to another before it had released it: what it has not sent may still
// be there, until it reports or an administrator forgets it.
struct UnsentRecord {
  MachineId machine;
  std::string machine_name;
  SessionId session;
  std::uint64_t unsent_bytes = 0;  // as it said last
  std::uint64_t since_unix_ns = 0;
};
// The newest are kept.
inline constexpr std::size_t kUnsentMax = 64;

struct ImageRecord {
  ImageId id;
  std::string name;
  std::uint64_t image_bytes = 0;
  format::TreeParameters tree;
  DomainId domain;
  std::vector<DomainId> base_domains;  // of the images that it was branched from
  Digest key_check;
  VersionId origin;
  std::string conflict_of;
  std::uint64_t created_unix_ns = 0;
  VersionId head;
  std::uint64_t head_sequence = 0;
  std::uint64_t token = 0;  // the newest fencing token that was given out
  LeaseRecord lease;
  std::vector<JournalRecord> journals;  // used last comes last
  std::vector<UnsentRecord> unsent;     // newest last
};

struct SessionRecord {
  MachineId machine;
  std::string machine_name;
  std::string mode;
  VersionId base;  // pinned until the session is closed; zero: the image had no version
  JournalId journal;
  std::uint64_t opened_unix_ns = 0;
};

// One entry a machine.
void note_unsent(ImageRecord& image, UnsentRecord machine);
bool forget_unsent(ImageRecord& image, const MachineId& machine);  // false: it was not there

Bytes encode_image(const ImageRecord& record);
Result<ImageRecord> decode_image(ByteView bytes);
Bytes encode_session(const SessionRecord& record);
Result<SessionRecord> decode_session(ByteView bytes);

inline constexpr const char* kImagePrefix = "image/";
std::string image_key(const ImageId& id);
std::string name_key(const std::string& name);
std::string session_key(const ImageId& image, const SessionId& session);
std::string session_prefix(const ImageId& image);
std::string version_key(const VersionId& id);
inline constexpr const char* kVersionPrefix = "version/";
std::string gone_key(const VersionId& id);
std::string retention_key(const ImageId& image);

// 1 to 128 of [A-Za-z0-9._-] and "/" between parts; no part is empty or begins with a dot.
Status check_image_name(const std::string& name);
// Machine names are for people: at most 255 bytes, no control characters.
Status check_machine_name(const std::string& name);

}  // namespace dims::catalog
