// AccessControl: what a caller may do. Rights come from the organisation's log and from nowhere
// else; an image that the log does not know is a branch and has the list of the image that it
// branched from.
//
//   no organisation, never prepared   one person's server: everybody who reaches it may do all
//   prepared (`rdim-server init`)     nobody may do anything but make the organisation
//   an organisation                   who is logged in, as the log says
//
// Threads: thread-safe. Ownership: store, clock, random outlive it. Errors: kPermissionDenied, in
// the same words whether what was asked for exists or not; kResourceExhausted (quota). Durable:
// its parts say.
#pragma once

#include "rdim-server/access/login_desk.h"
#include "rdim-server/access/quota.h"

namespace dims::access {

// Whether a check counts against the requests of a minute.
enum class Metering : std::uint8_t { kRequest, kPart };

// What a call needs. The table of calls is in services/gate.cc.
enum class Right : std::uint8_t {
  kOpen,         // nobody is asked
  kJoin,         // any token, that of a join line or of a revoked machine too
  kJoinOnly,     // that of a join line
  kMember,       // a user or a machine
  kMachine,      // an enrolled machine, alone or with a user; one that was revoked, alone
  kUser,         // a user, or a machine that works for one
  kUserHimself,  // a user who is logged in himself
  kImageSee,     // the image's record: a reader, or who may administer it
  kImageRead,    // its contents
  kImageWrite,
  kImageAdmin,  // an administrator, or the image's
  kOperator,
  kAdministrator,
};

Error denied();
Error login_needed();

// Of the secret as it stands in its file, or of its 32 bytes.
Digest bootstrap_digest(ByteView secret);

enum class Mode : std::uint8_t { kOnePerson, kPrepared, kOrganisation };

class AccessControl {
 public:
  // bootstrap_digest() of the secret; none: the server was not prepared for an organisation.
  static Result<std::unique_ptr<AccessControl>> open(contract::RefStore& refs, Clock& clock,
                                                     Random& random,
                                                     std::optional<Digest> bootstrap);

  Mode mode() const;

  // Who calls, as of now: a user that was disabled is nobody, and so is a machine that was revoked
  // (kRevoked if it came for itself).
  Caller caller_of(const std::optional<trust::SessionToken>& token, const std::string& address);
  // One request of the caller's, counted unless it is a later part of its answer. `image` where the
  // right is one.
  Status check(const Caller& caller, Right right, const ImageId& image = {},
               Metering metering = Metering::kRequest);
  trust::Access access(const Caller& caller, const ImageId& image) const;
  bool may_administer(const Caller& caller, const ImageId& image) const;
  // The image whose list counts, itself or what it branched from.
  ImageId listed(const ImageId& image) const;
  bool has_role(const Caller& caller, trust::Role at_least) const;
  // The last record that this caller is shown; nullopt: all.
  std::optional<std::uint64_t> log_ends_at(const Caller& caller) const;

  // Once in the life of the store, by who has the secret.
  Result<trust::Position> init_org(ByteView secret, const std::vector<Bytes>& records,
                                   ByteView user_record, const std::vector<Bytes>& grants,
                                   const Peer& peer);
  // A user's record, and grants of his for himself, checked against the log as it would be, to be
  // written with the log's records.
  Result<OrgBook::Beside> user_beside(const trust::OrgState& next, const trust::UserRecord& record,
                                      const std::vector<Bytes>& grants);
  // Called once the organisation is made: the secret is of no use any more.
  void on_init(std::function<void()> callback) { on_init_ = std::move(callback); }

  OrgBook& book() { return *book_; }
  People& people() { return *people_; }
  Audit& audit() { return *audit_; }
  Tokens& tokens() { return tokens_; }
  LoginDesk& desk() { return *desk_; }
  QuotaMeter& meter() { return meter_; }
  trust::Quota limits_of(const Caller& caller) const;

 private:
  AccessControl(Clock& clock, Random& random, std::optional<Digest> bootstrap)
      : clock_(clock), random_(random), bootstrap_(bootstrap), tokens_(clock), meter_(clock) {}
  bool still_good(const Caller& caller) const;
  bool holds(const Caller& caller, Right right, const ImageId& image) const;

  Clock& clock_;
  Random& random_;
  const std::optional<Digest> bootstrap_;
  std::unique_ptr<OrgBook> book_;
  std::unique_ptr<People> people_;
  std::unique_ptr<Audit> audit_;
  Tokens tokens_;
  QuotaMeter meter_;
  std::unique_ptr<LoginDesk> desk_;
  std::function<void()> on_init_;
};

}  // namespace dims::access
