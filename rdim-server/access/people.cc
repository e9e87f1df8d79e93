#include "rdim-server/access/people.h"

#include <cstdio>

#include "common/base/wire.h"

namespace dims::access {
namespace {

constexpr std::size_t kRowsAtOnce = 512;
constexpr int kTries = 5;
constexpr const char* kUsers = "org/user/";
constexpr const char* kSeen = "org/seen/";

constexpr std::string_view kImages = "org/image/";
std::string image_key(const ImageId& image) { return std::string(kImages) + image.hex(); }
std::string user_key(const trust::UserId& user) { return kUsers + user.hex(); }
std::string session_key(const crypto::PublicKey& key) { return "org/session/" + key.hex(); }
std::string seen_user_key(const trust::UserId& user) { return "org/seen/u/" + user.hex(); }
std::string seen_machine_key(const MachineId& machine) { return "org/seen/m/" + machine.hex(); }
std::string grants_prefix(const trust::UserId& user) { return "org/grant/" + user.hex() + "/"; }

std::string scope_part(trust::KeyScope scope) {
  return std::to_string(static_cast<int>(scope)) + "/";
}

std::string grant_key(const trust::Grant& grant) {
  char epoch[16];
  std::snprintf(epoch, sizeof epoch, "%08x", grant.epoch);
  return grants_prefix(grant.recipient) + scope_part(grant.scope) + grant.id.hex() + "/" + epoch;
}

LoginFacts facts_of(const trust::UserRecord& record) {
  return {{record.parameters, record.salt}, record.login_key, trust::recovery_record_of(record)};
}

Bytes encode_seen(const Seen& seen) {
  Bytes out;
  Writer w(out);
  w.u64(seen.time_unix_s);
  w.id(seen.machine);
  w.u64(seen.wiped_seq);
  w.string(as_bytes(seen.address));
  return out;
}

Seen decode_seen(ByteView bytes) {
  Reader r(bytes);
  Seen seen;
  seen.time_unix_s = r.u64();
  seen.machine = r.id<MachineId>();
  seen.wiped_seq = r.u64();
  seen.address = std::string(as_text(r.string()));
  return r.ok() ? seen : Seen{};  // only for people to look at
}

// All rows of a prefix, page by page.
template <typename Take>
Status each_row(contract::RefStore& refs, const std::string& prefix, const Take& take) {
  std::string after;
  for (;;) {
    DIMS_ASSIGN(const auto rows, refs.list(prefix, after, kRowsAtOnce));
    for (const auto& [key, row] : rows) DIMS_TRY(take(key, row.value));
    if (rows.size() < kRowsAtOnce) return ok_status();
    after = rows.back().first;
  }
}

}  // namespace

Result<std::unique_ptr<People>> People::open(contract::RefStore& refs) {
  std::unique_ptr<People> people(new People(refs));
  DIMS_TRY(each_row(refs, kUsers, [&](const std::string&, const Bytes& value) -> Status {
    DIMS_ASSIGN(const trust::UserRecord record, trust::decode_user_record(value));
    people->facts_[record.user] = facts_of(record);
    return ok_status();
  }));
  DIMS_TRY(each_row(
      refs, std::string(kImages), [&](const std::string& key, const Bytes& value) -> Status {
        const auto image = ImageId::from_hex_text(std::string_view(key).substr(kImages.size()));
        Reader r(value);
        ImageRow row;
        row.owner = r.id<trust::UserId>();
        row.branch_of = r.id<ImageId>();
        if (!image || !r.at_end()) {
          return make_error(ErrorCode::kCorrupt, "the row " + key + " is damaged",
                            "restore the store from its backup");
        }
        people->images_[*image] = row;
        return ok_status();
      }));
  DIMS_TRY(each_row(refs, kSeen, [&](const std::string& key, const Bytes& value) -> Status {
    people->seen_[key] = decode_seen(value);
    return ok_status();
  }));
  return people;
}

Status People::put_row(const std::string& key, ByteView value) {
  DIMS_ASSIGN(const auto row, refs_.get(key));
  DIMS_TRY(refs_.put(key, value, row ? row->revision : 0));
  return ok_status();
}

Result<contract::RefPut> People::user_row(const trust::UserRecord& record) {
  contract::RefPut out{user_key(record.user), trust::encode_user_record(record), 0};
  DIMS_ASSIGN(const auto row, refs_.get(out.key));
  if (!row) return out;
  out.expected_revision = row->revision;
  DIMS_ASSIGN(const trust::UserRecord old, trust::decode_user_record(row->value));
  // The very same again: the answer was lost.
  if (out.value != row->value && record.generation != old.generation + 1) {
    return make_error(ErrorCode::kConflict,
                      "the record of " + record.name + " is in generation " +
                          std::to_string(old.generation) + " here",
                      "fetch it and change it again");
  }
  return out;
}

Status People::put_user(const trust::UserRecord& record) {
  const std::lock_guard lock(mutex_);
  DIMS_ASSIGN(const contract::RefPut row, user_row(record));
  DIMS_TRY(refs_.put_all({row}));
  facts_[record.user] = facts_of(record);
  return ok_status();
}

Result<std::vector<contract::RefPut>> People::rows_of(const trust::UserRecord& record,
                                                      const std::vector<Bytes>& grants) {
  std::vector<contract::RefPut> rows;
  DIMS_ASSIGN(rows.emplace_back(), user_row(record));
  DIMS_TRY(add_grants(grants, rows));
  return rows;
}

Status People::add_grants(const std::vector<Bytes>& grants, std::vector<contract::RefPut>& rows) {
  std::map<std::string, const Bytes*> last;
  for (const Bytes& bytes : grants) {
    DIMS_ASSIGN(const trust::Grant grant, trust::decode_grant(bytes));
    last[grant_key(grant)] = &bytes;
  }
  for (const auto& [key, bytes] : last) {
    DIMS_ASSIGN(const auto row, refs_.get(key));
    rows.push_back({key, *bytes, row ? row->revision : 0});
  }
  return ok_status();
}

void People::user_stored(const trust::UserRecord& record) {
  const std::lock_guard lock(mutex_);
  // As it is by now: another one may have followed.
  const auto row = refs_.get(user_key(record.user));
  const auto now = row.ok() && *row ? trust::decode_user_record((*row)->value)
                                    : Result<trust::UserRecord>(record);
  facts_[record.user] = facts_of(now.ok() ? *now : record);
}

Result<Bytes> People::user_record(const trust::UserId& user) {
  DIMS_ASSIGN(auto row, refs_.get(user_key(user)));
  if (row) return std::move(row->value);
  return make_error(ErrorCode::kNotFound, "there is no record of this user");
}

std::optional<LoginFacts> People::login_facts(const trust::UserId& user) {
  const std::lock_guard lock(mutex_);
  const auto found = facts_.find(user);
  if (found == facts_.end()) return std::nullopt;
  return found->second;
}

Status People::put_grants(const std::vector<Bytes>& grants) {
  const std::lock_guard lock(mutex_);
  for (int attempt = 1;; ++attempt) {
    std::vector<contract::RefPut> rows;
    DIMS_TRY(add_grants(grants, rows));
    const Status put = refs_.put_all(rows);
    // A row that came meanwhile with somebody's new keys.
    if (put.ok() || put.error().code != ErrorCode::kConflict || attempt == kTries) return put;
  }
}

Result<std::vector<Bytes>> People::grants(const trust::UserId& recipient,
                                          std::optional<trust::KeyScope> scope,
                                          const trust::ScopeId& id) {
  std::string prefix = grants_prefix(recipient);
  if (scope) {
    prefix += scope_part(*scope);
    if (!id.is_zero()) prefix += id.hex() + "/";
  }
  std::vector<Bytes> out;
  DIMS_TRY(each_row(refs_, prefix, [&](const std::string&, const Bytes& value) -> Status {
    out.push_back(value);
    return ok_status();
  }));
  return out;
}

Status People::put_session(const trust::SessionCertificate& certificate, ByteView bytes) {
  const std::lock_guard lock(mutex_);
  const std::string key = session_key(certificate.session_key);
  DIMS_ASSIGN(const auto row, refs_.get(key));
  if (row) {
    if (std::equal(bytes.begin(), bytes.end(), row->value.begin(), row->value.end())) {
      return ok_status();
    }
    return make_error(ErrorCode::kAlreadyExists, "this session key has another certificate",
                      "make a new session");
  }
  DIMS_TRY(refs_.put(key, bytes, 0));
  return ok_status();
}

Result<Bytes> People::session(const crypto::PublicKey& key) {
  DIMS_ASSIGN(auto row, refs_.get(session_key(key)));
  return row ? std::move(row->value) : Bytes();
}

Status People::put_image(const ImageId& image, const ImageRow& row) {
  const std::lock_guard lock(mutex_);
  const auto found = images_.find(image);
  if (found != images_.end()) {
    if (found->second == row) return ok_status();
    return make_error(ErrorCode::kAlreadyExists, "the image id is taken", "choose another");
  }
  Bytes bytes;
  Writer w(bytes);
  w.id(row.owner);
  w.id(row.branch_of);
  DIMS_TRY(put_row(image_key(image), bytes));
  images_[image] = row;
  return ok_status();
}

std::optional<People::ImageRow> People::image(const ImageId& image) {
  const std::lock_guard lock(mutex_);
  const auto found = images_.find(image);
  if (found == images_.end()) return std::nullopt;
  return found->second;
}

Status People::forget_image(const ImageId& image) {
  const std::lock_guard lock(mutex_);
  if (images_.erase(image) == 0) return ok_status();
  DIMS_ASSIGN(const auto row, refs_.get(image_key(image)));
  return row ? refs_.remove(image_key(image), row->revision) : ok_status();
}

std::vector<ImageId> People::images_of(const trust::UserId& owner) {
  const std::lock_guard lock(mutex_);
  std::vector<ImageId> out;
  for (const auto& [image, row] : images_) {
    if (row.owner == owner) out.push_back(image);
  }
  return out;
}

Status People::save_seen(const std::string& key, const Seen& seen) {
  seen_[key] = seen;
  return put_row(key, encode_seen(seen));
}

Status People::saw_user(const trust::UserId& user, Seen seen) {
  const std::lock_guard lock(mutex_);
  return save_seen(seen_user_key(user), seen);
}

Status People::saw_machine(const MachineId& machine, Seen seen) {
  const std::lock_guard lock(mutex_);
  const std::string key = seen_machine_key(machine);
  seen.wiped_seq = seen_[key].wiped_seq;
  return save_seen(key, seen);
}

Status People::machine_wiped(const MachineId& machine, std::uint64_t seq) {
  const std::lock_guard lock(mutex_);
  const std::string key = seen_machine_key(machine);
  Seen seen = seen_[key];
  seen.wiped_seq = std::max(seen.wiped_seq, seq);
  return save_seen(key, seen);
}

Seen People::seen_user(const trust::UserId& user) {
  const std::lock_guard lock(mutex_);
  const auto found = seen_.find(seen_user_key(user));
  return found == seen_.end() ? Seen{} : found->second;
}

Seen People::seen_machine(const MachineId& machine) {
  const std::lock_guard lock(mutex_);
  const auto found = seen_.find(seen_machine_key(machine));
  return found == seen_.end() ? Seen{} : found->second;
}

}  // namespace dims::access
