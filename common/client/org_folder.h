// What a person's or machine's folder remembers of the organisation: where its server is, which
// certificate it has, and the log as it was read last (docs/formats/org-folder.md).
//
// The log that is kept here is the pin: what a server shows later must go on where this one ends.
// All of it is public; its check sum finds damage, file modes keep others from changing it.
// Threads: one owner at a time; processes that share a folder take turns in keep(). Ownership:
// borrows the file system. Errors: kCorrupt naming the file; those of trust::OrgLog; kOtherHistory
// for a server that shows less than what is known, or something else. Durable on return: what was
// saved.
#pragma once

#include <optional>

#include "common/client/access_client.h"
#include "common/io/file.h"

namespace dims::client {

struct KnownOrg {
  std::string server;  // HOST:PORT#FINGERPRINT or unix:PATH, as connect() takes it
  OrgId org;
  std::vector<Bytes> records;
};

Bytes encode_org(const KnownOrg& org);
Result<KnownOrg> decode_org(ByteView bytes, const std::string& path);

class OrgFolder {
 public:
  OrgFolder(io::FileSystem& fs, std::string folder) : fs_(fs), folder_(std::move(folder)) {}

  Result<std::optional<KnownOrg>> load() const;
  Status save(const KnownOrg& org) const;
  // Saves, unless a process that shares the folder knows the same log already, or more of it: what
  // is pinned only grows. kOtherHistory when it knows another.
  Status keep(KnownOrg org) const;
  std::string file(const std::string& name) const { return folder_ + "/" + name; }
  const std::string& path() const { return folder_; }

 private:
  io::FileSystem& fs_;
  std::string folder_;
};

// The log as the server has it now. Precondition: `known` holds what was checked before.
Result<trust::OrgLog> read_log(AccessClient& access, const OrgId& org,
                               const std::vector<Bytes>& known);
std::vector<Bytes> records_of(const trust::OrgLog& log);

}  // namespace dims::client
