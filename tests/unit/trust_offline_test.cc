// Logins without the server: the last N users, delays that neither restart nor clock shortens,
// another machine's file, rights that are gone.
#include <catch2/catch.hpp>

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/io/memory_file.h"
#include "common/trust/offline_store.h"
#include "tests/support/sim_file.h"
#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

namespace {

using std::chrono::seconds;

// Boot time and date, apart from each other.
class TwoClocks : public Clock {
 public:
  std::chrono::nanoseconds boottime() override { return boot; }
  std::chrono::nanoseconds wall() override { return date; }
  void advance(std::chrono::nanoseconds by) {
    boot += by;
    date += by;
  }
  std::chrono::nanoseconds boot = seconds(5000);
  std::chrono::nanoseconds date = seconds(1'800'000'000);
};

struct OfflineFixture {
  OfflineFixture() : f(seed()) {
    // Stretched once for all cases: the store does not care whose record it is.
    static const auto keys_of = [](std::string_view passphrase) {
      auto made = passphrase_keys(as_bytes(passphrase), crypto::Salt{}, {});
      if (!made.ok()) FAIL(made.error().to_string());
      return std::move(*made);
    };
    static const PassphraseKeys shared = keys_of("right");
    keys = &shared;
  }
  OfflineStore store(BootId boot_id, const MachineFile& machine) {
    return OfflineStore(
        {*fs, "/offline", f.org, machine.machine, machine.secret, clock, boot_id, f.random});
  }
  OfflineStore store() { return store(boot, f.laptop); }
  Status remember(const UserSecrets& user, const std::string& name) {
    UserRecord record;
    record.name = name;
    return store().remember(f.state(), record, *keys, user);
  }
  Result<UserSecrets> login(const std::string& name, std::string_view passphrase = "right") {
    return store().login(f.state(), name, as_bytes(passphrase));
  }
  void reboot() {
    boot.bytes[0]++;
    clock.boot = seconds(1);
  }

  OrgFixture f;
  io::MemoryFileSystem memory;
  io::FileSystem* fs = &memory;
  TwoClocks clock;
  BootId boot;
  const PassphraseKeys* keys = nullptr;
};

std::uint64_t wait_of(OfflineFixture& o, const std::string& name) {
  const auto wait = o.store().wait_s(name);
  if (!wait.ok()) FAIL(wait.error().to_string());
  return *wait;
}

}  // namespace

TEST_CASE("offline: who was here with the server gets his keys without it") {
  OfflineFixture o;
  MUST(o.remember(o.f.alice, "alice"));
  const auto back = o.login("alice");
  MUST(back);
  CHECK(back->user == o.f.alice.user);
  CHECK(back->user_key.key() == o.f.alice.user_key.key());
  CHECK(back->sign.public_key == o.f.alice.sign.public_key);
  CHECK(back->box.public_key == o.f.alice.box.public_key);
  CHECK(back->private_secret.key() == o.f.alice.private_secret.key());
  // The file tells no name and no key.
  const auto bytes = io::read_file(o.memory, "/offline", kOfflineStoreBytesMax);
  MUST(bytes);
  const std::string_view text = as_text(*bytes);
  CHECK(text.find("alice") == std::string_view::npos);
  CHECK(text.find(as_text(o.f.alice.user.view())) == std::string_view::npos);
}

TEST_CASE("offline: wrong passphrase and unknown name: the same answer, wait and growth") {
  OfflineFixture o;
  MUST(o.remember(o.f.alice, "alice"));
  for (std::uint64_t expected = 1; expected <= 4; expected *= 2) {
    const auto wrong = o.login("alice", "wrong"), unknown = o.login("mallory", "right");
    REFUSED(wrong, ErrorCode::kPermissionDenied);
    REFUSED(unknown, ErrorCode::kPermissionDenied);
    CHECK(wrong.error().to_string() == unknown.error().to_string());
    CHECK(wait_of(o, "alice") == expected);
    CHECK(wait_of(o, "mallory") == expected);
    // Too soon: not even the right one is tried.
    REFUSED(o.login("alice"), ErrorCode::kResourceExhausted);
    REFUSED(o.login("mallory"), ErrorCode::kResourceExhausted);
    o.clock.advance(seconds(expected));
  }
  MUST(o.login("alice"));
  CHECK(wait_of(o, "alice") == 0);
  CHECK(offline_delay_s(0) == 0);
  CHECK(offline_delay_s(1) == 1);
  CHECK(offline_delay_s(10) == 512);
  CHECK(offline_delay_s(11) == kOfflineDelayMax_s);
  CHECK(offline_delay_s(0xffffffff) == kOfflineDelayMax_s);
  // At most ten guesses in any minute.
  std::uint64_t guesses = 1, at = 0;
  for (std::uint32_t failures = 1; (at += offline_delay_s(failures)) < 60; ++failures) ++guesses;
  CHECK(guesses <= 10);
}

TEST_CASE("offline: no wait tells whether a name is anybody's") {
  OfflineFixture o;
  MUST(o.remember(o.f.alice, "alice"));
  REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
  // Who waits with alice, though he is nobody.
  std::vector<std::string> with, apart;
  for (int i = 0; i < 2000; ++i) {
    const std::string name = "n" + std::to_string(i);
    (wait_of(o, name) == 0 ? apart : with).push_back(name);
  }
  REQUIRE(with.size() >= 2);
  REQUIRE(apart.size() > 1900);
  REFUSED(o.login(with[0], "wrong"), ErrorCode::kResourceExhausted);
  // A stranger's attempt holds up the other strangers no more than it holds up alice.
  o.clock.advance(seconds(60));
  REFUSED(o.login(apart[0], "wrong"), ErrorCode::kPermissionDenied);
  CHECK(wait_of(o, "alice") == 0);
  CHECK(wait_of(o, with[0]) == 0);
  REFUSED(o.login(with[0], "wrong"), ErrorCode::kPermissionDenied);
  CHECK(wait_of(o, "alice") == wait_of(o, with[0]));
  REFUSED(o.login("alice"), ErrorCode::kResourceExhausted);
  // Another user's right passphrase frees his own name, not hers.
  o.clock.advance(seconds(60));
  MUST(o.remember(o.f.bob, with[1]));
  REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
  const std::uint64_t hers = wait_of(o, "alice");
  o.clock.advance(seconds(hers));
  REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
  CHECK(wait_of(o, "alice") > hers);
  while (wait_of(o, with[1]) > 0) o.clock.advance(seconds(1));
  REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
  const std::uint64_t long_wait = wait_of(o, "alice");
  o.clock.advance(seconds(wait_of(o, with[1])));
  MUST(o.login(with[1]));
  REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
  CHECK(wait_of(o, "alice") >= long_wait);
  o.clock.advance(seconds(wait_of(o, with[0])));
  MUST(o.login(with[1]));
  CHECK(wait_of(o, with[0]) == 0);
  REFUSED(o.login("alice"), ErrorCode::kResourceExhausted);
}

TEST_CASE("offline: a file of format 1 keeps its users and its waits") {
  OfflineFixture o;
  MUST(o.remember(o.f.alice, "alice"));
  MUST(o.remember(o.f.bob, "bob"));
  for (int i = 0; i < 3; ++i) {
    REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
    o.clock.advance(seconds(10));
  }
  // docs/formats/offline-store.md, a second time: the 64 buckets were one delay of strangers.
  const Bytes now = *io::read_file(o.memory, "/offline", kOfflineStoreBytesMax);
  const auto key = crypto::secret_prf(o.f.laptop.secret.key(), "offline-store",
                                      {o.f.org.view(), o.f.laptop.machine.view()});
  const auto ad = [&](const char* label) {
    Bytes out;
    Writer w(out);
    w.raw(as_bytes(label));
    w.id(o.f.org);
    w.id(o.f.laptop.machine);
    return out;
  };
  const auto plain =
      crypto::unwrap(key.key(), ad("dims/offline-store/2"), ByteView(now).subspan(8));
  REQUIRE(plain);
  constexpr std::size_t kBefore = 32, kDelay = 28;
  Bytes old(plain->begin(), plain->begin() + kBefore);
  Writer w(old);
  w.u32(4);
  w.id(o.boot);
  w.u64(static_cast<std::uint64_t>((o.clock.boot + seconds(8)).count()));
  old.insert(old.end(), plain->begin() + kBefore + kOfflineBuckets * kDelay, plain->end());
  Bytes file;
  Writer f(file);
  f.raw(as_bytes("OFF1"));
  f.u32(1);
  f.raw(crypto::wrap(key.key(), ad("dims/offline-store/1"), old, o.f.random));
  MUST(io::replace_file(o.memory, "/offline", file));
  REQUIRE(o.store().list()->size() == 2);
  CHECK(wait_of(o, "alice") == 8);
  CHECK(wait_of(o, "mallory") == 8);
  o.clock.advance(seconds(8));
  MUST(o.login("bob"));
  const Bytes again = *io::read_file(o.memory, "/offline", kOfflineStoreBytesMax);
  CHECK(again[4] == 2);
  MUST(o.login("alice"));
}

TEST_CASE("offline: keys that their user has replaced open nothing, and go") {
  OfflineFixture o;
  MUST(o.remember(o.f.alice, "alice"));
  MUST(o.remember(o.f.bob, "bob"));
  auto renewed = bare_user(o.f.org, o.f.random);
  renewed.user = o.f.alice.user;
  o.f.say(key_change_of(renewed), o.f.admin.sign);
  REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
  CHECK(o.store().list()->size() == 2);  // the wrong passphrase learns nothing of it
  o.clock.advance(seconds(10));
  const auto old = o.login("alice");
  REFUSED(old, ErrorCode::kPermissionDenied);
  CHECK(old.error().message.find("new keys") != std::string::npos);
  CHECK(o.store().list()->size() == 1);
  MUST(o.login("bob"));
  MUST(o.remember(renewed, "alice"));
  o.clock.advance(seconds(10));
  CHECK(o.login("alice")->sign.public_key == renewed.sign.public_key);
}

TEST_CASE("offline: a login with the server makes a damaged or another machine's file anew") {
  OfflineFixture o;
  MUST(o.store(o.boot, o.f.desk)
           .remember(
               o.f.state(),
               [] {
                 UserRecord record;
                 record.name = "bob";
                 return record;
               }(),
               *o.keys, o.f.bob));
  REFUSED(o.store().list(), ErrorCode::kWrongKey);
  MUST(o.remember(o.f.alice, "alice"));
  MUST(o.login("alice"));
  CHECK(o.store().list()->size() == 1);
  const Bytes good = *io::read_file(o.memory, "/offline", kOfflineStoreBytesMax);
  for (const std::size_t cut : {std::size_t{0}, std::size_t{3}, std::size_t{6}, good.size() - 1}) {
    MUST(io::replace_file(o.memory, "/offline",
                          Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(cut))));
    CHECK(!o.store().list().ok());
    MUST(o.remember(o.f.alice, "alice"));
    MUST(o.login("alice"));
  }
  // What a newer program wrote stays.
  Bytes newer = good;
  newer[4] = 3;
  MUST(io::replace_file(o.memory, "/offline", newer));
  REFUSED(o.remember(o.f.alice, "alice"), ErrorCode::kUnsupported);
}

TEST_CASE("offline: a restart, a reboot, another date or a killed attempt shortens no wait") {
  OfflineFixture o;
  MUST(o.remember(o.f.alice, "alice"));
  for (int i = 0; i < 3; ++i) {
    REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
    o.clock.advance(seconds(1 << i));
  }
  REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);  // the fourth: 8 s
  CHECK(wait_of(o, "alice") == 8);
  o.clock.date += seconds(86400);  // the date is set ahead
  CHECK(wait_of(o, "alice") == 8);
  o.clock.date -= seconds(20 * 86400);  // and back
  CHECK(wait_of(o, "alice") == 8);
  o.clock.advance(seconds(7));
  CHECK(wait_of(o, "alice") == 1);
  o.reboot();                       // the wait begins again
  CHECK(wait_of(o, "alice") == 7);  // 1 s after the boot
  REFUSED(o.login("alice"), ErrorCode::kResourceExhausted);
  o.clock.advance(seconds(7));
  MUST(o.login("alice"));

  // The power fails right after an attempt: it was counted.
  SimFileSystem sim;
  o.fs = &sim;
  MUST(o.remember(o.f.alice, "alice"));
  REFUSED(o.login("alice", "wrong"), ErrorCode::kPermissionDenied);
  const auto cut = sim.after_power_cut(o.f.random.next());
  o.fs = cut.get();
  CHECK(wait_of(o, "alice") == 1);
}

TEST_CASE("offline: what cannot be written down is not tried") {
  OfflineFixture o;
  SimFileSystem sim;
  o.fs = &sim;
  MUST(o.remember(o.f.alice, "alice"));
  sim.set_capacity(1);
  REFUSED(o.login("alice"), ErrorCode::kNoSpace);
  sim.set_capacity(0);
  MUST(o.login("alice"));
}

TEST_CASE("offline: the last N users, and none where the policy says so") {
  OfflineFixture o;
  o.f.say(Policy{true, 2, 0, 3600, false}, o.f.admin.sign);
  MUST(o.remember(o.f.alice, "alice"));
  MUST(o.remember(o.f.bob, "bob"));
  MUST(o.remember(o.f.alice, "alice"));  // again: bob has been away longest
  MUST(o.remember(o.f.oper, "oper"));
  const auto list = o.store().list();
  MUST(list);
  REQUIRE(list->size() == 2);
  CHECK((*list)[0].name == "oper");
  CHECK((*list)[1].name == "alice");
  MUST(o.store().forget(o.f.alice.user));
  REFUSED(o.login("alice"), ErrorCode::kPermissionDenied);
  o.clock.advance(seconds(10));
  MUST(o.login("oper"));
  o.f.say(Policy{false, 2, 0, 3600, false}, o.f.admin.sign);
  REFUSED(o.login("oper"), ErrorCode::kPermissionDenied);
  MUST(o.remember(o.f.bob, "bob"));
  CHECK(o.store().list()->empty());
  MUST(o.store().erase());
  MUST(o.store().erase());
  CHECK(o.store().list()->empty());
}

TEST_CASE("offline: allowed for so long since the server was there, whatever the clock says") {
  OfflineFixture o;
  o.f.say(Policy{true, 5, 1000, 3600, false}, o.f.admin.sign);
  MUST(o.remember(o.f.alice, "alice"));
  o.clock.advance(seconds(900));
  MUST(o.login("alice"));
  o.clock.date -= seconds(800);  // set back: the boot clock knows better
  o.clock.advance(seconds(200));
  const auto late = o.login("alice");
  REFUSED(late, ErrorCode::kPermissionDenied);
  CHECK(late.error().message.find("too long ago") != std::string::npos);
  o.reboot();  // the newest date that was seen is kept
  REFUSED(o.login("alice"), ErrorCode::kPermissionDenied);
  MUST(o.remember(o.f.alice, "alice"));
  MUST(o.login("alice"));
}

TEST_CASE("offline: users who are out, machines that are revoked by the log that is known here") {
  OfflineFixture o;
  MUST(o.remember(o.f.alice, "alice"));
  o.f.say(UserState{o.f.alice.user, UserStatus::kDisabled, Role::kUser}, o.f.admin.sign);
  REFUSED(o.login("alice"), ErrorCode::kPermissionDenied);
  o.f.say(UserState{o.f.alice.user, UserStatus::kActive, Role::kUser}, o.f.admin.sign);
  MUST(o.login("alice"));
  o.f.say(MachineRevoke{o.f.laptop.machine}, o.f.admin.sign);
  REFUSED(o.login("alice"), ErrorCode::kPermissionDenied);
}

TEST_CASE("offline: damaged, cut, or another machine's or organisation's file does not open") {
  OfflineFixture o;
  MUST(o.remember(o.f.alice, "alice"));
  const Bytes good = *io::read_file(o.memory, "/offline", kOfflineStoreBytesMax);
  const auto put = [&](const Bytes& bytes) { MUST(io::replace_file(o.memory, "/offline", bytes)); };
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes bent = good;
    bent[i] ^= 0x08;
    put(bent);
    CHECK(!o.store().list().ok());
    put(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(i)));
    CHECK(!o.store().list().ok());
  }
  put(good);
  MUST(o.store().list());
  REFUSED(o.store(o.boot, o.f.desk).list(), ErrorCode::kWrongKey);
  auto twin = make_machine(o.f.org, "twin", o.f.random);  // same secret, another id
  twin.secret = o.f.laptop.secret.clone();
  REFUSED(o.store(o.boot, twin).list(), ErrorCode::kWrongKey);
  o.f.org.bytes[0] ^= 1;
  REFUSED(o.store().list(), ErrorCode::kWrongKey);
}
