// What lets the last users of a machine log in with no server: their keys, wrapped under their
// passphrase and the machine's secret, in one sealed file (docs/formats/offline-store.md).
//
// Wrong passphrases cost a delay that doubles from 1 s to 15 min. An attempt is written down,
// synced, before the passphrase is looked at, so killing the program saves nobody the wait; the
// wait is measured with the clock that runs on while the host sleeps and begins again after a
// reboot, so neither a restart nor another date shortens it. An unknown name costs the same work,
// the same wait and gets the same answer: names wait in buckets, by a hash that only this machine
// can make, whether anybody has them or not. A user waits for himself besides, so that another
// one's right passphrase in the same bucket shortens no wait of his.
//
// What it cannot stop: who can read the machine's secret and this file guesses at Argon2's price,
// and who puts back an older copy of the whole disk has the older count. A TPM that holds the
// machine's secret helps against the first.
//
// Threads: one owner at a time; processes that share the file take the folder's lock before.
// Ownership: borrows everything in Environment. Units: seconds since 1970 UTC for ages, boot time
// for delays. Errors: kPermissionDenied (wrong name or passphrase; not allowed; too long ago; keys
// that the log has replaced), kResourceExhausted (wait; the hint says how long), kCorrupt (the file
// is damaged or another machine's: kWrongKey when it does not open), kIo. Durable on return:
// everything.
#pragma once

#include <array>

#include "common/io/file.h"
#include "common/trust/login.h"
#include "common/trust/user_record.h"

namespace dims::trust {

using BootId = Id<struct BootIdTag, 16>;

struct OfflineEnvironment {
  io::FileSystem& fs;
  std::string path;
  OrgId org;
  MachineId machine;
  const crypto::SecretKey& machine_secret;  // S
  Clock& clock;
  BootId boot;  // of this run of the host
  Random& random;
};

inline constexpr std::size_t kOfflineBuckets = 64;

struct OfflineUser {
  UserId user;
  std::string name;
  std::uint64_t last_online_unix_s = 0;
};

class OfflineStore {
 public:
  explicit OfflineStore(const OfflineEnvironment& environment) : env_(environment) {}

  // After a login with the server: `keys` is what the passphrase yielded for this record. Keeps as
  // many users as the policy says; who has been away longest goes first. A file that is damaged or
  // another machine's is made anew: who logs in with the server needs nothing that is in it.
  Status remember(const OrgState& org, const UserRecord& record, const PassphraseKeys& keys,
                  const UserSecrets& secrets);
  // `org` is the newest log that this machine holds: users who are not active in it, keys that it
  // replaces, and machines that it revokes, are refused.
  Result<UserSecrets> login(const OrgState& org, std::string_view name, ByteView passphrase);
  // Of that name, how long until the next attempt; 0: now. Names that nobody has wait alike.
  Result<std::uint64_t> wait_s(std::string_view name);
  Result<std::vector<OfflineUser>> list();
  Status forget(const UserId& user);
  // A wipe: the file goes.
  Status erase();

 private:
  struct Delay {
    std::uint32_t failures = 0;
    BootId boot;
    std::uint64_t not_before_ns = 0;  // boot time of that boot
  };
  struct Entry {
    UserId user;
    std::string name;
    crypto::Argon2Parameters parameters;
    crypto::Salt salt;
    std::uint64_t last_online_unix_s = 0;
    Delay delay;
    Bytes wrapped;
  };
  struct State {
    BootId boot;  // the newest moment that was seen
    std::uint64_t boottime_ns = 0;
    std::uint64_t wall_unix_s = 0;
    std::array<Delay, kOfflineBuckets> buckets;  // attempts by hashes of names
    std::vector<Entry> entries;
  };

  Result<State> load();
  Status save(State& state);
  static Bytes encode(const State& state);
  static Result<State> decode(ByteView bytes, std::uint32_t format);
  crypto::SecretKey file_key() const;
  Bytes file_ad(std::uint32_t format) const;
  std::size_t bucket_of(std::string_view name) const;
  Bytes entry_ad(const Entry& entry) const;
  crypto::SecretKey entry_key(const crypto::SecretKey& wrap) const;
  std::uint64_t remaining_ns(const Delay& delay);
  void count(Delay& delay);
  Entry stranger(std::string_view name) const;
  std::uint64_t now_unix_s(const State& state);
  void see_now(State& state, std::uint64_t wall_unix_s);

  OfflineEnvironment env_;
};

// After so many wrong passphrases in a row.
std::uint64_t offline_delay_s(std::uint32_t failures);
inline constexpr std::uint64_t kOfflineDelayMax_s = 900;
inline constexpr std::size_t kOfflineStoreBytesMax = 64 * 1024;

}  // namespace dims::trust
