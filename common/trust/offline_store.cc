#include "common/trust/offline_store.h"

#include <algorithm>

#include "common/crypto/aead.h"

namespace dims::trust {
namespace {

constexpr std::uint64_t kSecond_ns = 1'000'000'000;

Error too_soon(std::uint64_t wait_ns) {
  const std::uint64_t seconds = (wait_ns + kSecond_ns - 1) / kSecond_ns;
  return make_error(ErrorCode::kResourceExhausted, "too many wrong passphrases",
                    "wait " + std::to_string(seconds) + " s, then try again");
}

Error denied(const std::string& what, const std::string& hint) {
  return make_error(ErrorCode::kPermissionDenied, "login without the server: " + what, hint);
}

}  // namespace

std::uint64_t offline_delay_s(std::uint32_t failures) {
  if (failures == 0) return 0;
  return failures > 10 ? kOfflineDelayMax_s
                       : std::min(kOfflineDelayMax_s, std::uint64_t{1} << (failures - 1));
}

std::uint64_t OfflineStore::remaining_ns(const Delay& delay) {
  const std::uint64_t whole = offline_delay_s(delay.failures) * kSecond_ns;
  const auto now = static_cast<std::uint64_t>(env_.clock.boottime().count());
  // After a reboot the wait begins again: nothing tells how long the host was off.
  const std::uint64_t until = delay.boot == env_.boot ? delay.not_before_ns : whole;
  return now >= until ? 0 : std::min(whole, until - now);
}

void OfflineStore::count(Delay& delay) {
  delay.failures = std::min<std::uint32_t>(delay.failures + 1, 1'000'000);
  delay.boot = env_.boot;
  delay.not_before_ns = static_cast<std::uint64_t>(env_.clock.boottime().count()) +
                        offline_delay_s(delay.failures) * kSecond_ns;
}

std::uint64_t OfflineStore::now_unix_s(const State& state) {
  std::uint64_t seen = state.wall_unix_s;
  const auto boottime = static_cast<std::uint64_t>(env_.clock.boottime().count());
  if (state.boot == env_.boot && boottime > state.boottime_ns)
    seen += (boottime - state.boottime_ns) / kSecond_ns;
  const auto wall = static_cast<std::uint64_t>(env_.clock.wall().count()) / kSecond_ns;
  return std::max(seen, wall);  // a clock that was set back does not make the past shorter
}

void OfflineStore::see_now(State& state, std::uint64_t wall_unix_s) {
  state.wall_unix_s = wall_unix_s;
  state.boot = env_.boot;
  state.boottime_ns = static_cast<std::uint64_t>(env_.clock.boottime().count());
}

OfflineStore::Entry OfflineStore::stranger(std::string_view name) const {
  Entry entry;
  const auto fake = unknown_login_record(env_.machine_secret.key(), env_.org, name);
  entry.parameters = fake.parameters;
  entry.salt = fake.salt;
  entry.wrapped.resize(32 + 112 + 40);
  return entry;
}

Status OfflineStore::remember(const OrgState& org, const UserRecord& record,
                              const PassphraseKeys& keys, const UserSecrets& secrets) {
  auto loaded = load();
  State state;
  if (loaded.ok())
    state = std::move(*loaded);
  else if (loaded.error().code != ErrorCode::kCorrupt &&
           loaded.error().code != ErrorCode::kWrongKey)
    return loaded.error();
  // The server was there just now: its day counts, even if it is before one that was seen here.
  const auto wall = static_cast<std::uint64_t>(env_.clock.wall().count()) / kSecond_ns;
  see_now(state, wall);
  std::erase_if(state.entries, [&](const Entry& e) { return e.user == secrets.user; });
  Entry entry;
  entry.user = secrets.user;
  entry.name = record.name;
  entry.parameters = record.parameters;
  entry.salt = record.salt;
  entry.last_online_unix_s = wall;
  crypto::SecretBytes plain(32 + 112);
  std::copy_n(secrets.user_key.view().begin(), 32, plain.mut().begin());
  const auto packed = pack_secrets(secrets);
  std::copy_n(packed.view().begin(), 112, plain.mut().begin() + 32);
  entry.wrapped =
      crypto::wrap(entry_key(keys.wrap).key(), entry_ad(entry), plain.view(), env_.random);
  state.entries.insert(state.entries.begin(), std::move(entry));
  const std::size_t most = org.policy().offline_login ? org.policy().offline_users : 0;
  if (state.entries.size() > most) state.entries.resize(most);
  return save(state);
}

Result<UserSecrets> OfflineStore::login(const OrgState& org, std::string_view name,
                                        ByteView passphrase) {
  if (!org.policy().offline_login)
    return denied("your organisation does not allow it", "connect to the server");
  const Machine* const machine = org.machine(env_.machine);
  if (machine == nullptr || machine->revoked)
    return denied("this machine has been revoked", "ask your administrator");
  auto loaded = load();
  if (!loaded.ok()) return loaded.error();
  State state = std::move(*loaded);
  const auto found = std::find_if(state.entries.begin(), state.entries.end(),
                                  [&](const Entry& e) { return e.name == name; });
  const bool known = found != state.entries.end();
  Delay& bucket = state.buckets[bucket_of(name)];
  const std::uint64_t wait =
      std::max(remaining_ns(bucket), known ? remaining_ns(found->delay) : std::uint64_t{0});
  if (wait > 0) return too_soon(wait);

  // Counted before it is tried.
  count(bucket);
  if (known) count(found->delay);
  const std::uint64_t now = now_unix_s(state);
  see_now(state, now);
  DIMS_TRY(save(state));

  const Entry tried = known ? *found : stranger(name);
  auto keys = passphrase_keys(passphrase, tried.salt, tried.parameters);
  if (!keys.ok()) return keys.error();
  const auto plain =
      crypto::unwrap_secret(entry_key(keys->wrap).key(), entry_ad(tried), tried.wrapped);
  if (!plain || plain->size() != 32 + 112) return login_refused();
  bucket = {};
  found->delay = {};
  DIMS_TRY(save(state));

  const std::uint64_t age_max = org.policy().offline_max_age_s;
  if (age_max != 0 && now - std::min(now, tried.last_online_unix_s) > age_max)
    return denied("the last login with the server is too long ago", "connect to the server");
  if (!org.is_active(tried.user))
    return denied("this user has been disabled or removed", "ask your administrator");
  const auto user_key = crypto::SecretKey::from_view(plain->view().first(32));
  auto secrets = unpack_secrets(env_.org, tried.user, *user_key, plain->view().subspan(32));
  if (!secrets.ok()) return secrets;
  if (!(secrets->sign.public_key == org.user(tried.user)->keys.sign_key)) {
    state.entries.erase(found);
    DIMS_TRY(save(state));
    return denied("this user has got new keys since",
                  "connect to the server, and use the new "
                  "passphrase");
  }
  return secrets;
}

Result<std::uint64_t> OfflineStore::wait_s(std::string_view name) {
  auto state = load();
  if (!state.ok()) return state.error();
  std::uint64_t wait = remaining_ns(state->buckets[bucket_of(name)]);
  for (const Entry& entry : state->entries)
    if (entry.name == name) wait = std::max(wait, remaining_ns(entry.delay));
  return (wait + kSecond_ns - 1) / kSecond_ns;
}

Result<std::vector<OfflineUser>> OfflineStore::list() {
  auto state = load();
  if (!state.ok()) return state.error();
  std::vector<OfflineUser> out;
  for (const Entry& e : state->entries) out.push_back({e.user, e.name, e.last_online_unix_s});
  return out;
}

Status OfflineStore::forget(const UserId& user) {
  auto state = load();
  if (!state.ok()) return state.error();
  std::erase_if(state->entries, [&](const Entry& e) { return e.user == user; });
  return save(*state);
}

Status OfflineStore::erase() {
  const auto there = env_.fs.exists(env_.path);
  if (!there.ok()) return there.error();
  if (!*there) return ok_status();
  DIMS_TRY(env_.fs.remove(env_.path));
  return env_.fs.sync_folder(io::parent_folder(env_.path));
}

}  // namespace dims::trust
