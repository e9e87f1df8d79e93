// What an organisation's log says, record after record: users, machines, access, epochs, policy.
//
// The one place that decides whether a record may follow (rules.h), for server and clients alike:
// the server appends only what apply() takes, a client trusts nothing that it has not applied.
// Threads: const methods may run together; apply() needs the object alone. Ownership: a value (it
// copies); pointers that it returns live until the next apply(). Units: seq numbers records.
// Errors: kUntrusted (who signs, or what he may say), kOtherHistory (number or hash do not follow),
// kInvalidArgument, kAlreadyExists, kNotFound (what it says makes no sense). A refused record
// changes nothing.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "common/trust/record.h"
#include "common/trust/rules.h"

namespace dims::trust {

struct User {
  UserId id;
  std::string name;
  Role role = Role::kUser;
  UserStatus status = UserStatus::kActive;
  UserKeys keys;
  DomainId private_domain;
  std::uint64_t since_seq = 0;
  std::uint64_t keys_since_seq = 0;
};

struct Wipe {
  std::uint64_t seq = 0;  // names this order; a machine remembers the last that it obeyed
  bool spare_unsent = true;
};

struct Machine {
  MachineId id;
  std::string name;
  PublicKey sign_key;
  bool revoked = false;
  std::optional<Wipe> wipe;  // the newest
  std::uint64_t since_seq = 0;
  // The newest record that orders it anything: revocation or wipe. A revoked machine may read the
  // log up to it, and no further. 0: none.
  std::uint64_t orders_seq = 0;
};

struct Epoch {
  KeyEpoch body;
  std::uint64_t since_seq = 0;
};

enum class JoinStatus : std::uint8_t { kOpen, kUsed, kCancelled };
struct Join {
  JoinKey body;
  JoinStatus status = JoinStatus::kOpen;
  std::uint64_t since_seq = 0;
};

class OrgState {
 public:
  // From the log's first record. `org` is what the caller pinned; the record must be its.
  static Result<OrgState> begin(const OrgId& org, const LogRecord& first);
  Status apply(const LogRecord& record);
  // The same question without the change.
  Status check(const LogRecord& record) const;

  const OrgId& org() const { return org_; }
  const Position& position() const { return position_; }
  const OrgInit& init() const { return init_; }
  const Policy& policy() const { return policy_; }

  const User* user(const UserId& id) const;
  // Removed users' names are free again, and found only until then.
  const User* user_named(std::string_view name) const;
  std::vector<const User*> users() const;
  const Machine* machine(const MachineId& id) const;
  const Machine* machine_named(std::string_view name) const;
  std::vector<const Machine*> machines() const;
  const Join* join(const PublicKey& key) const;
  std::vector<const Join*> joins() const;

  // What an active user may do with an image: his own line or everyone's, whichever is more.
  // kNone for who is not active. An administrator has no more than the list gives him: that he may
  // change the list is may_administer().
  Access access(const UserId& user, const ImageId& image) const;
  bool may_administer(const UserId& user, const ImageId& image) const;
  bool is_active(const UserId& user) const;
  bool is_administrator(const UserId& user) const;
  bool knows_image(const ImageId& image) const { return images_.contains(image); }
  // The lines of one image's list, kNone left out.
  std::vector<ImageAcl> image_list(const ImageId& image) const;
  std::vector<ImageId> images_of(const UserId& user) const;  // kRead or more
  Quota quota(const UserId& user) const;

  // The newest epoch, or one by its number; nullptr: none.
  const Epoch* epoch(KeyScope scope, const ScopeId& id) const;
  const Epoch* epoch(KeyScope scope, const ScopeId& id, std::uint32_t number) const;

  // Whether somebody could do more at any time since the newest epoch began than he may now, or who
  // administers the image or domain has other keys since: the keys of that epoch are known to who
  // should not read what comes. Being disabled takes nothing away. `inside`: images of that domain;
  // who may write one of them, or is an operator in the organisation's, may write the domain.
  bool image_keys_due(const ImageId& image) const;
  bool domain_keys_due(const DomainId& domain, const std::vector<ImageId>& inside) const;

  SignerRole role_of(const PublicKey& key) const;
  // The user, active or not, whose key this is now or was once.
  const User* user_of_key(const PublicKey& key) const;

  // The past: as it was just after record `seq`.
  bool was_active(const UserId& user, std::uint64_t seq) const;
  Access access_at(const UserId& user, const ImageId& image, std::uint64_t seq) const;
  bool could_administer(const UserId& user, const ImageId& image, std::uint64_t seq) const;
  bool was_administrator(const UserId& user, std::uint64_t seq) const;
  Role role_at(const UserId& user, std::uint64_t seq) const;  // kUser if he was none or not active
  std::optional<UserKeys> keys_at(const UserId& user, std::uint64_t seq) const;
  Policy policy_at(std::uint64_t seq) const;
  // The hash of record `seq`, zero if the log is shorter.
  Digest hash_at(std::uint64_t seq) const;

 private:
  struct Standing {
    std::uint64_t seq;
    UserStatus status;
    Role role;
  };
  struct Holding {
    std::uint64_t seq;
    UserKeys keys;
  };
  struct Line {
    std::uint64_t seq;
    Access access;
  };
  struct Member {
    User now;
    std::vector<Standing> standings;
    std::vector<Holding> holdings;
  };
  enum class Owner : std::uint8_t { kRoot, kUser, kMachine, kJoin };
  struct KeyOwner {
    Owner owner;
    Id<struct OwnerIdTag, 16> id;
  };

  Status check_rule(const LogRecord& record) const;
  Status may(Rule rule, const LogRecord& record, const User* signer) const;
  Status may_scope(const KeyEpoch& epoch, SignerRole role, const User* signer) const;
  Status check_token(const LogRecord& record) const;
  Status fresh_key(ByteView key) const;
  bool other_administrator(const UserId& user) const;
  const Standing* standing_at(const UserId& user, std::uint64_t seq) const;
  static bool has_other_keys(const Member& member, std::uint64_t since) {
    return member.holdings.size() > 1 && member.now.keys_since_seq > since;
  }
  Access listed_at(const UserId& user, const ImageId& image, std::uint64_t seq) const;
  Access most_since(const Member& member, const ImageId& image, std::uint64_t since) const;
  static const Line* line_at(const std::vector<Line>& lines, std::uint64_t seq);

  // What must hold whoever signs; and the change.
  template <typename T>
  Status check_body(const T& body, const LogRecord& record) const;
  template <typename T>
  void take(const T& body, const LogRecord& record);

  OrgId org_;
  Position position_;
  OrgInit init_;
  Policy policy_;
  std::vector<std::pair<std::uint64_t, Policy>> policies_;  // seq, and what it set
  std::vector<Digest> hashes_;                              // one a record
  std::map<UserId, Member> users_;
  std::map<MachineId, Machine> machines_;
  std::map<PublicKey, Join> joins_;
  std::map<PublicKey, KeyOwner> owners_;  // of every signing key ever
  std::set<Id<struct BoxedTag, 32>> box_keys_;
  std::set<DomainId> domains_;
  std::map<ImageId, std::map<UserId, std::vector<Line>>> images_;
  std::map<std::pair<KeyScope, ScopeId>, std::vector<Epoch>> epochs_;
  std::map<UserId, Quota> quotas_;
};

}  // namespace dims::trust
