// What a login leaves when the user's own keys are gone again: the keys of one image and a session
// that he has certified.
//
// Threads: values. Ownership: secrets are in the value; wiped when it goes. Errors: kCorrupt of
// decode. Durable: nothing; encode is for the pipe from the process that logged in.
#pragma once

#include <mutex>

#include "common/format/key_file.h"
#include "common/trust/session.h"
#include "nbdkit-ldim/login/machine_folder.h"

namespace dims::ldim {

struct SessionKeys {
  format::KeyFile keys;  // without check_signer, until standing_keys()
  ImageId image;
  Bytes certificate;
  bool offline = false;
};

Bytes encode_session_keys(const SessionKeys& keys);
Result<SessionKeys> decode_session_keys(ByteView bytes);

// The token of a machine that works for that session's user; logs in at its first use.
std::shared_ptr<client::LoginToken> session_token(const MachineFolder& folder,
                                                  const SessionKeys& keys);
// Adds what decides whether a version was made by a writer: the log that this machine knows, read
// again when a version is from beyond it; certificates of this folder or of the server.
Result<format::KeyFile> standing_keys(MachineFolder folder, const SessionKeys& session,
                                      std::shared_ptr<client::LoginToken> token);

// Whether a running disk's session still may do what it was certified for: with the newest keys,
// by the log, now. Threads: thread-safe.
class SessionStanding {
 public:
  explicit SessionStanding(const SessionKeys& session) { renewed(session); }
  void renewed(const SessionKeys& session);
  void log_is(const trust::OrgState& org);
  // Empty, or what is wrong and what to do.
  std::string trouble();

 private:
  std::mutex mutex_;
  trust::SessionCertificate certificate_;
  ImageId image_;
  DomainId domain_;
  std::uint32_t image_epoch_ = 0, domain_epoch_ = 0;
  std::uint32_t newest_image_epoch_ = 0, newest_domain_epoch_ = 0;  // by the log
  std::string refused_;                                             // by the log
};

}  // namespace dims::ldim
