// The folder of an enrolled machine (docs/formats/machine-folder.md): what makes it this machine,
// and what its users need when the server is away.
//
//   machine          its keys (common/trust/machine_file.h)       organisation   log and server
//   offline          its last users, sealed                       caches         cache folders used
//   grants/, certificates/, images/   copies of what the server said; sealed or signed, not secret
//   lock             held by who logs in
//
// Threads: one owner at a time. Ownership: a value; moves. Errors: kNotFound (not enrolled), those
// of the parts. Durable on return: what was kept.
#pragma once

#include <memory>
#include <optional>

#include "common/client/member_keys.h"
#include "common/trust/offline_store.h"

namespace dims::ldim {

// $DIMS_MACHINE, else /var/lib/dims.
std::string default_machine_folder();
// What seals the machine's file: a service's credential "dims-machine-key"
// ($CREDENTIALS_DIRECTORY), 32 bytes; else the TPM, if `folder` has something of it (tpm_seal.h).
// None: the file is protected by its mode alone.
Result<std::optional<crypto::HeldKey>> machine_seal(const std::string& folder);

struct KnownImage {
  ImageId image;
  DomainId domain;
};

// What a wipe erases of a cache folder; with `spare_unsent` the journal stays, and what opens it
// for its user. What cannot be removed is logged.
void erase_cache(const std::string& folder, bool spare_unsent);

// Before another machine is enrolled where one was: what is sealed or marked with the former one's
// secret goes. The list of caches stays, for a wipe.
Status forget_former_machine(const client::OrgFolder& folder);

class MachineFolder {
 public:
  static Result<MachineFolder> open(const std::string& path);
  // Only one login at a time works on the folder: waits a little.
  Status lock();
  ~MachineFolder();
  MachineFolder(MachineFolder&& other) noexcept;
  MachineFolder& operator=(MachineFolder&&) = delete;

  const std::string& path() const { return org_.path(); }
  const trust::MachineFile& machine() const { return *machine_; }
  const std::string& server() const { return known_.server; }
  // Borrows machine().
  client::LoginPlace place() const;
  Result<trust::OrgLog> log() const;
  // What another process has kept meanwhile stays if it is more.
  Status keep_log(const trust::OrgLog& log);

  // Grants of one user, as they came.
  Result<std::vector<Bytes>> grants(const trust::UserId& user, trust::KeyScope scope,
                                    const trust::ScopeId& id) const;
  Status keep_grants(const trust::UserId& user, trust::KeyScope scope, const trust::ScopeId& id,
                     const std::vector<Bytes>& grants);
  Result<Bytes> certificate(const trust::PublicKey& session) const;
  Status keep_certificate(const trust::PublicKey& session, ByteView bytes);
  Result<KnownImage> image(const std::string& name) const;
  Status keep_image(const std::string& name, const KnownImage& image);
  Status note_cache(const std::string& folder);

  trust::OfflineStore offline() const;
  // Erases what a wipe says: users' keys, copies, caches; journals only if it does not spare them.
  Status obey(const trust::Wipe& wipe);

 private:
  MachineFolder(client::OrgFolder org, trust::MachineFile machine, client::KnownOrg known);
  std::string file_of(const char* folder, ByteView name) const;
  Status keep(const std::string& path, ByteView bytes) const;

  client::OrgFolder org_;
  std::unique_ptr<trust::MachineFile> machine_;
  client::KnownOrg known_;
  int lock_ = -1;
};

}  // namespace dims::ldim
