#include "common/trust/org_state.h"

#include <algorithm>

namespace dims::trust {

const User* OrgState::user(const UserId& id) const {
  const auto found = users_.find(id);
  return found == users_.end() ? nullptr : &found->second.now;
}

const User* OrgState::user_named(std::string_view name) const {
  for (const auto& [id, member] : users_)
    if (member.now.status != UserStatus::kRemoved && member.now.name == name) return &member.now;
  return nullptr;
}

std::vector<const User*> OrgState::users() const {
  std::vector<const User*> out;
  for (const auto& [id, member] : users_) out.push_back(&member.now);
  return out;
}

const Machine* OrgState::machine(const MachineId& id) const {
  const auto found = machines_.find(id);
  return found == machines_.end() ? nullptr : &found->second;
}

const Machine* OrgState::machine_named(std::string_view name) const {
  for (const auto& [id, machine] : machines_)
    if (!machine.revoked && machine.name == name) return &machine;
  return nullptr;
}

std::vector<const Machine*> OrgState::machines() const {
  std::vector<const Machine*> out;
  for (const auto& [id, machine] : machines_) out.push_back(&machine);
  return out;
}

const Join* OrgState::join(const PublicKey& key) const {
  const auto found = joins_.find(key);
  return found == joins_.end() ? nullptr : &found->second;
}

std::vector<const Join*> OrgState::joins() const {
  std::vector<const Join*> out;
  for (const auto& [key, join] : joins_) out.push_back(&join);
  return out;
}

Access OrgState::access(const UserId& user, const ImageId& image) const {
  return access_at(user, image, position_.seq);
}
bool OrgState::may_administer(const UserId& user, const ImageId& image) const {
  return could_administer(user, image, position_.seq);
}
bool OrgState::is_active(const UserId& user) const { return was_active(user, position_.seq); }
bool OrgState::is_administrator(const UserId& user) const {
  return was_administrator(user, position_.seq);
}

std::vector<ImageAcl> OrgState::image_list(const ImageId& image) const {
  std::vector<ImageAcl> out;
  const auto found = images_.find(image);
  if (found == images_.end()) return out;
  for (const auto& [user, lines] : found->second)
    if (lines.back().access != Access::kNone) out.push_back({image, user, lines.back().access});
  return out;
}

std::vector<ImageId> OrgState::images_of(const UserId& user) const {
  std::vector<ImageId> out;
  for (const auto& [image, lines] : images_)
    if (access(user, image) >= Access::kRead) out.push_back(image);
  return out;
}

Quota OrgState::quota(const UserId& user) const {
  for (const UserId& whose : {user, kEveryone}) {
    const auto found = quotas_.find(whose);
    if (found != quotas_.end()) return found->second;
  }
  return {user, 0, 0, 0};
}

const Epoch* OrgState::epoch(KeyScope scope, const ScopeId& id) const {
  const auto found = epochs_.find({scope, id});
  return found == epochs_.end() ? nullptr : &found->second.back();
}

const Epoch* OrgState::epoch(KeyScope scope, const ScopeId& id, std::uint32_t number) const {
  const auto found = epochs_.find({scope, id});
  if (found == epochs_.end() || number == 0 || number > found->second.size()) return nullptr;
  return &found->second[number - 1];
}

SignerRole OrgState::role_of(const PublicKey& key) const {
  const auto found = owners_.find(key);
  if (found == owners_.end()) return SignerRole::kStranger;
  switch (found->second.owner) {
    case Owner::kRoot:
      return SignerRole::kRoot;
    case Owner::kUser: {
      const User* const user = this->user(*UserId::from_view(found->second.id.view()));
      if (user == nullptr || user->status != UserStatus::kActive || user->keys.sign_key != key)
        return SignerRole::kStranger;
      if (user->role == Role::kAdministrator) return SignerRole::kAdministrator;
      return user->role == Role::kOperator ? SignerRole::kOperator : SignerRole::kUser;
    }
    case Owner::kMachine: {
      const Machine* const machine = this->machine(*MachineId::from_view(found->second.id.view()));
      return machine == nullptr || machine->revoked ? SignerRole::kStranger : SignerRole::kMachine;
    }
    case Owner::kJoin: {
      const Join* const join = this->join(key);
      if (join == nullptr || join->status != JoinStatus::kOpen) return SignerRole::kStranger;
      return join->body.for_machine ? SignerRole::kMachineJoin : SignerRole::kUserJoin;
    }
  }
  return SignerRole::kStranger;
}

const User* OrgState::user_of_key(const PublicKey& key) const {
  const auto found = owners_.find(key);
  if (found == owners_.end() || found->second.owner != Owner::kUser) return nullptr;
  return user(*UserId::from_view(found->second.id.view()));
}

const OrgState::Standing* OrgState::standing_at(const UserId& user, std::uint64_t seq) const {
  const auto found = users_.find(user);
  if (found == users_.end()) return nullptr;
  const Standing* last = nullptr;
  for (const Standing& standing : found->second.standings)
    if (standing.seq <= seq) last = &standing;
  return last;
}

const OrgState::Line* OrgState::line_at(const std::vector<Line>& lines, std::uint64_t seq) {
  const Line* last = nullptr;
  for (const Line& line : lines)
    if (line.seq <= seq) last = &line;
  return last;
}

bool OrgState::was_active(const UserId& user, std::uint64_t seq) const {
  const Standing* const standing = standing_at(user, seq);
  return standing != nullptr && standing->status == UserStatus::kActive;
}

bool OrgState::was_administrator(const UserId& user, std::uint64_t seq) const {
  const Standing* const standing = standing_at(user, seq);
  return standing != nullptr && standing->status == UserStatus::kActive &&
         standing->role == Role::kAdministrator;
}

Role OrgState::role_at(const UserId& user, std::uint64_t seq) const {
  const Standing* const standing = standing_at(user, seq);
  return standing != nullptr && standing->status == UserStatus::kActive ? standing->role
                                                                        : Role::kUser;
}

Access OrgState::access_at(const UserId& user, const ImageId& image, std::uint64_t seq) const {
  if (!was_active(user, seq)) return Access::kNone;
  const auto found = images_.find(image);
  if (found == images_.end()) return Access::kNone;
  Access most = Access::kNone;
  for (const UserId& whose : {user, kEveryone}) {
    const auto lines = found->second.find(whose);
    if (lines == found->second.end()) continue;
    if (const Line* const line = line_at(lines->second, seq)) most = std::max(most, line->access);
  }
  return most;
}

// As access_at(), but for who is disabled: he may be enabled again, and keeps what he has. And for
// administrators, who have been granted all keys where the policy says so.
Access OrgState::listed_at(const UserId& user, const ImageId& image, std::uint64_t seq) const {
  const Standing* const standing = standing_at(user, seq);
  const auto found = images_.find(image);
  if (standing == nullptr || standing->status == UserStatus::kRemoved || found == images_.end())
    return Access::kNone;
  const bool escrow = policy_.escrow && standing->role == Role::kAdministrator;
  Access most = escrow ? Access::kRead : Access::kNone;
  for (const UserId& whose : {user, kEveryone}) {
    const auto lines = found->second.find(whose);
    if (lines == found->second.end()) continue;
    if (const Line* const line = line_at(lines->second, seq)) most = std::max(most, line->access);
  }
  return most;
}

// The most that he could do with it at `since` or at any time after it.
Access OrgState::most_since(const Member& member, const ImageId& image, std::uint64_t since) const {
  Access most = listed_at(member.now.id, image, since);
  const auto look = [&](std::uint64_t seq) {
    if (seq > since) most = std::max(most, listed_at(member.now.id, image, seq));
  };
  const auto found = images_.find(image);
  if (found == images_.end()) return most;
  for (const UserId& whose : {member.now.id, kEveryone}) {
    const auto lines = found->second.find(whose);
    if (lines == found->second.end()) continue;
    for (const Line& line : lines->second) look(line.seq);
  }
  for (const Standing& standing : member.standings) look(standing.seq);
  return most;
}

bool OrgState::image_keys_due(const ImageId& image) const {
  const Epoch* const newest = epoch(KeyScope::kImage, *ScopeId::from_view(image.view()));
  if (newest == nullptr) return false;
  return std::any_of(users_.begin(), users_.end(), [&](const auto& entry) {
    const auto& [user, member] = entry;
    const bool renewed = has_other_keys(member, newest->since_seq) &&
                         listed_at(user, image, member.now.keys_since_seq) == Access::kAdmin;
    return renewed ||
           most_since(member, image, newest->since_seq) > listed_at(user, image, position_.seq);
  });
}

bool OrgState::domain_keys_due(const DomainId& domain, const std::vector<ImageId>& inside) const {
  const Epoch* const newest = epoch(KeyScope::kDomain, *ScopeId::from_view(domain.view()));
  if (newest == nullptr) return false;
  const std::uint64_t since = newest->since_seq;
  const auto keeps = [&](const Standing* standing) {
    return domain == init_.domain && standing != nullptr && standing->role >= Role::kOperator &&
           standing->status != UserStatus::kRemoved;
  };
  return std::any_of(users_.begin(), users_.end(), [&](const auto& entry) {
    const auto& [user, member] = entry;
    const auto writes = [&, &id = user](const ImageId& image) {
      return listed_at(id, image, position_.seq) >= Access::kWrite;
    };
    const bool owns = domain == member.now.private_domain;
    const bool rules = domain == init_.domain && was_administrator(user, member.now.keys_since_seq);
    if ((owns || rules) && has_other_keys(member, since)) return true;
    if (owns || keeps(&member.standings.back()) ||
        std::any_of(inside.begin(), inside.end(), writes))
      return false;
    if (keeps(standing_at(user, since))) return true;
    for (const Standing& standing : member.standings)
      if (standing.seq > since && keeps(&standing)) return true;
    return std::any_of(inside.begin(), inside.end(), [&, &whose = member](const ImageId& image) {
      return most_since(whose, image, since) >= Access::kWrite;
    });
  });
}

bool OrgState::could_administer(const UserId& user, const ImageId& image, std::uint64_t seq) const {
  return was_administrator(user, seq) || access_at(user, image, seq) == Access::kAdmin;
}

std::optional<UserKeys> OrgState::keys_at(const UserId& user, std::uint64_t seq) const {
  const auto found = users_.find(user);
  if (found == users_.end()) return std::nullopt;
  std::optional<UserKeys> keys;
  for (const Holding& holding : found->second.holdings)
    if (holding.seq <= seq) keys = holding.keys;
  return keys;
}

Policy OrgState::policy_at(std::uint64_t seq) const {
  Policy policy;
  for (const auto& [since, set] : policies_)
    if (since <= seq) policy = set;
  return policy;
}

Digest OrgState::hash_at(std::uint64_t seq) const {
  return seq < hashes_.size() ? hashes_[seq] : Digest{};
}

}  // namespace dims::trust
