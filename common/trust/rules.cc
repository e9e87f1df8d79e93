#include "common/trust/rules.h"

#include <iterator>

namespace dims::trust {
namespace {

constexpr Rule kNo = Rule::kNever, kYes = Rule::kAlways, kFirst = Rule::kFirst, kSelf = Rule::kSelf,
               kMach = Rule::kMachines, kTok = Rule::kToken, kImg = Rule::kImage,
               kScp = Rule::kScope;

// clang-format off
constexpr Rule kTable[][8] = {
    //                 root    admin. operat. user   machine m-join u-join stranger
    /* org-init */    {kFirst, kNo,   kNo,    kNo,   kNo,    kNo,   kNo,   kNo},
    /* user-cert */   {kYes,   kYes,  kNo,    kNo,   kNo,    kNo,   kTok,  kNo},
    /* user-state */  {kYes,   kYes,  kNo,    kNo,   kNo,    kNo,   kNo,   kNo},
    /* key-change */  {kYes,   kYes,  kSelf,  kSelf, kNo,    kNo,   kNo,   kNo},
    /* machine-cert */{kYes,   kYes,  kYes,   kNo,   kNo,    kTok,  kNo,   kNo},
    /* m.-revoke */   {kYes,   kYes,  kYes,   kNo,   kNo,    kNo,   kNo,   kNo},
    /* m.-wipe */     {kYes,   kYes,  kNo,    kNo,   kNo,    kNo,   kNo,   kNo},
    /* join-key */    {kYes,   kYes,  kMach,  kNo,   kNo,    kNo,   kNo,   kNo},
    /* join-cancel */ {kYes,   kYes,  kMach,  kNo,   kNo,    kNo,   kNo,   kNo},
    /* image-acl */   {kYes,   kYes,  kImg,   kImg,  kNo,    kNo,   kNo,   kNo},
    /* key-epoch */   {kScp,   kScp,  kScp,   kScp,  kNo,    kNo,   kNo,   kNo},
    /* policy */      {kYes,   kYes,  kNo,    kNo,   kNo,    kNo,   kNo,   kNo},
    /* quota */       {kYes,   kYes,  kNo,    kNo,   kNo,    kNo,   kNo,   kNo},
};
// clang-format on
static_assert(std::size(kTable) == std::size(kAllRecordKinds));
static_assert(std::size(kTable[0]) == std::size(kAllSignerRoles));

}  // namespace

std::string_view signer_role_name(SignerRole role) {
  static constexpr std::string_view kNames[] = {
      "root",    "administrator",    "operator",      "user",
      "machine", "machine join key", "user join key", "stranger"};
  static_assert(std::size(kNames) == std::size(kAllSignerRoles));
  return kNames[static_cast<std::size_t>(role)];
}

Rule rule_of(RecordKind kind, SignerRole role) {
  return kTable[static_cast<std::size_t>(kind) - 1][static_cast<std::size_t>(role)];
}

}  // namespace dims::trust
