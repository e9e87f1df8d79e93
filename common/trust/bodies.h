// What a record of the organisation's log says (docs/formats/org-log.md): one struct a kind.
//
// Whoever brings a public key proves that he has the secret one: `proof` is a signature by that key
// over the rest of the body. So nobody enters a stranger's key under his own name.
// Threads: values. Errors: decode_body() is kCorrupt for anything but the exact bytes that
// encode_body() makes (every list of bytes has one reading), kUnsupported for an unknown kind.
#pragma once

#include <variant>

#include "common/trust/types.h"

namespace dims::trust {

enum class RecordKind : std::uint16_t {
  kOrgInit = 1,
  kUserCert = 2,
  kUserState = 3,
  kKeyChange = 4,
  kMachineCert = 5,
  kMachineRevoke = 6,
  kMachineWipe = 7,
  kJoinKey = 8,
  kJoinCancel = 9,
  kImageAcl = 10,
  kKeyEpoch = 11,
  kPolicy = 12,
  kQuota = 13,
};
inline constexpr RecordKind kAllRecordKinds[] = {
    RecordKind::kOrgInit,     RecordKind::kUserCert,    RecordKind::kUserState,
    RecordKind::kKeyChange,   RecordKind::kMachineCert, RecordKind::kMachineRevoke,
    RecordKind::kMachineWipe, RecordKind::kJoinKey,     RecordKind::kJoinCancel,
    RecordKind::kImageAcl,    RecordKind::kKeyEpoch,    RecordKind::kPolicy,
    RecordKind::kQuota};
std::string_view record_kind_name(RecordKind kind);

// The first record. The organisation's id is SHA-256 of root_key.
struct OrgInit {
  PublicKey root_key;
  DomainId domain;   // the organisation's, for masters
  std::string name;  // for people
};

struct UserKeys {
  PublicKey sign_key;    // certifies sessions, signs grants and log records
  BoxPublicKey box_key;  // grants are sealed to it
};

struct UserCert {
  UserId user;
  std::string name;
  Role role = Role::kUser;
  UserKeys keys;
  DomainId private_domain;
  Signature proof;  // by keys.sign_key, type "user-proof"
};

struct UserState {
  UserId user;
  UserStatus status = UserStatus::kActive;
  Role role = Role::kUser;
};

// New keys of a user whose old ones may be known to others, or are lost.
struct KeyChange {
  UserId user;
  UserKeys keys;
  Signature proof;  // by the new sign_key, type "key-proof"
};

struct MachineCert {
  MachineId machine;
  std::string name;
  PublicKey sign_key;
  Signature proof;  // type "machine-proof"
};

struct MachineRevoke {
  MachineId machine;
};

// The machine erases its keys and cache at its next contact.
struct MachineWipe {
  MachineId machine;
  bool spare_unsent = true;  // journals that hold unsent writes are kept
};

// A one-time key that lets one new machine or user certify himself (join_line.h).
struct JoinKey {
  PublicKey key;
  bool for_machine = false;
  std::string name;         // the name that the newcomer must take; empty: his choice (machines)
  Role role = Role::kUser;  // of a user
  UserId user;              // id that a new user gets; zero for machines
  std::uint64_t expires_unix_s = 0;
};

struct JoinCancel {
  PublicKey key;
};

struct ImageAcl {
  ImageId image;
  UserId user;  // kEveryone: everyone
  Access access = Access::kNone;
};

// A new secret of a domain or image. `commitment` lets everybody who is granted the secret see that
// it is the one that was meant.
struct KeyEpoch {
  KeyScope scope = KeyScope::kImage;
  Id<struct ScopeIdTag, 16> id;  // domain or image
  std::uint32_t epoch = 0;       // 1, then one more each
  Digest commitment;             // epoch_commitment() in grant.h
  // Image only: the head when this epoch began. Versions of older epochs beyond it are refused.
  std::uint64_t last_sequence = 0;
  VersionId last_version;
};
using ScopeId = Id<struct ScopeIdTag, 16>;

struct Policy {
  bool offline_login = true;
  std::uint32_t offline_users = 5;
  std::uint64_t offline_max_age_s = 30 * 86400;  // since the last login with the server; 0: any
  std::uint64_t session_max_s = 7 * 86400;       // length of a session certificate
  bool escrow = false;  // keys of all images are granted to administrators; shown to users
};

// Limits of what one user's images may take. 0: no limit.
struct Quota {
  UserId user;  // kEveryone: for all who have none of their own
  std::uint64_t bytes = 0;
  std::uint32_t images = 0;
  std::uint32_t requests_per_minute = 0;
};

// In the order of RecordKind.
using Body = std::variant<OrgInit, UserCert, UserState, KeyChange, MachineCert, MachineRevoke,
                          MachineWipe, JoinKey, JoinCancel, ImageAcl, KeyEpoch, Policy, Quota>;

RecordKind kind_of(const Body& body);
Bytes encode_body(const Body& body);
Result<Body> decode_body(RecordKind kind, ByteView bytes);

// Fill in the proof of possession, and check it (kUntrusted).
void prove(UserCert& cert, const OrgId& org, const crypto::SecretSigner& key);
void prove(KeyChange& change, const OrgId& org, const crypto::SecretSigner& key);
void prove(MachineCert& cert, const OrgId& org, const crypto::SecretSigner& key);
Status check_proof(const UserCert& cert, const OrgId& org);
Status check_proof(const KeyChange& change, const OrgId& org);
Status check_proof(const MachineCert& cert, const OrgId& org);

}  // namespace dims::trust
