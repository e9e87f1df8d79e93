// Users' records in the hands of a malicious server: parts exchanged, weak parameters, old
// generations; wrong passphrases; recovery words with a typing error.
#include <catch2/catch.hpp>

#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

namespace {

// Stretching is slow by design: these are made once.
struct People {
  OrgFixture f;
  NewUser carol, dave;
  UserRecord carol_before;  // an earlier generation, same keys

  static People& get() {
    static People people;
    return people;
  }

 private:
  static NewUser make(OrgFixture& f, const std::string& name, std::string_view passphrase) {
    auto made = make_user(f.org, f.random.id<UserId>(), name, as_bytes(passphrase), {}, f.random);
    if (!made.ok()) FAIL(made.error().to_string());
    f.say(certificate_of(made->secrets, name, Role::kUser), f.admin.sign);
    return std::move(*made);
  }
  People() : f(seed()), carol(make(f, "carol", "correct horse")), dave(make(f, "dave", "battery")) {
    carol_before = carol.record;
    auto next = change_passphrase(carol.record, carol.secrets, as_bytes("staple"), {}, f.random);
    if (!next.ok()) FAIL(next.error().to_string());
    carol.record = *next;
  }
};

std::size_t after_words(std::string_view text, std::size_t n) {  // where word n begins
  std::size_t at = 0;
  for (; n > 0; --n) at = text.find(' ', at) + 1;
  return at;
}

}  // namespace

TEST_CASE("user: a wrong passphrase opens nothing and does not say what is wrong") {
  People& p = People::get();
  const auto& record = p.carol.record;
  const auto open = [&](std::string_view passphrase) {
    const auto keys = passphrase_keys(as_bytes(passphrase), record.salt, record.parameters);
    MUST(keys);
    CHECK((keys->login.public_key == record.login_key) == (passphrase == "staple"));
    return open_user_record(record, *keys);
  };
  MUST(open("staple"));
  for (const char* wrong : {"", "Staple", "staple ", "correct horse"}) {
    const auto opened = open(wrong);
    REFUSED(opened, ErrorCode::kWrongKey);
    CHECK(opened.error().message == "wrong user name or passphrase");
  }
}

TEST_CASE("user: parameters below the floor or beyond the ceiling are refused before any work") {
  const crypto::Salt salt{};
  using crypto::Argon2Parameters;
  for (const Argon2Parameters weak :
       {Argon2Parameters{64 * 1024 - 1, 3}, Argon2Parameters{64 * 1024, 2}, Argon2Parameters{8, 1},
        Argon2Parameters{0, 0}, Argon2Parameters{1024 * 1024 + 1, 3},
        Argon2Parameters{64 * 1024, 17}, Argon2Parameters{0xffffffff, 0xffffffff}}) {
    INFO(weak.memory_kib << " KiB, " << weak.passes << " passes");
    REFUSED(passphrase_keys(as_bytes("x"), salt, weak), ErrorCode::kUntrusted);
    SeededRandom random(1);
    REFUSED(make_user({}, random.id<UserId>(), "x", as_bytes("x"), weak, random),
            ErrorCode::kUntrusted);
  }
  REFUSED(passphrase_keys(Bytes(1025), salt, {}), ErrorCode::kInvalidArgument);
}

TEST_CASE("user: every bent byte of a record is found by who knows the log") {
  People& p = People::get();
  const Bytes good = encode_user_record(p.carol.record);
  CHECK(good.size() == kUserRecordBytes);
  MUST(check_user_record(p.f.state(), *decode_user_record(good)));
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes bent = good;
    bent[i] ^= 0x10;
    const auto record = decode_user_record(bent);
    INFO("byte " << i);
    if (record.ok()) CHECK(!check_user_record(p.f.state(), *record).ok());
    CHECK(!decode_user_record(ByteView(good).first(i)).ok());
  }
}

TEST_CASE("user: parts exchanged between users and generations are found") {
  People& p = People::get();
  const auto keys = passphrase_keys(as_bytes("staple"), p.carol.record.salt, {});
  MUST(keys);
  using Exchange = void (*)(UserRecord&, const UserRecord&);
  const Exchange exchanges[] = {
      [](UserRecord& a, const UserRecord& b) { a.user_key = b.user_key; },
      [](UserRecord& a, const UserRecord& b) { a.secrets = b.secrets; },
      [](UserRecord& a, const UserRecord& b) { a.recovery_key = b.recovery_key; },
      [](UserRecord& a, const UserRecord& b) { a.login_key = b.login_key; },
      [](UserRecord& a, const UserRecord& b) { a.salt = b.salt; },
      [](UserRecord& a, const UserRecord& b) { a.generation = b.generation + 5; },
      [](UserRecord& a, const UserRecord& b) { a.signature = b.signature; },
  };
  for (const UserRecord* other : {&p.dave.record, &p.carol_before}) {
    for (const Exchange exchange : exchanges) {
      UserRecord mixed = p.carol.record;
      exchange(mixed, *other);
      if (encode_user_record(mixed) == encode_user_record(p.carol.record)) continue;
      CHECK(!check_user_record(p.f.state(), mixed).ok());
      CHECK(!open_user_record(mixed, *keys).ok());
    }
  }
  // The whole record of another, or under another name.
  UserRecord named = p.carol.record;
  named.name = "dave";
  REFUSED(check_user_record(p.f.state(), named), ErrorCode::kUntrusted);
  named = p.dave.record;
  named.user = p.carol.secrets.user;
  REFUSED(check_user_record(p.f.state(), named), ErrorCode::kUntrusted);
  REFUSED(open_user_record(p.dave.record, *keys), ErrorCode::kWrongKey);
  // The last generation still opens under its own passphrase; its number tells.
  CHECK(p.carol_before.generation + 1 == p.carol.record.generation);
}

TEST_CASE("user: weaker parameters in a record do not fit what was wrapped") {
  People& p = People::get();
  UserRecord weak = p.carol.record;
  weak.parameters.passes = 1;
  REFUSED(passphrase_keys(as_bytes("staple"), weak.salt, weak.parameters), ErrorCode::kUntrusted);
  REFUSED(check_user_record(p.f.state(), weak), ErrorCode::kUntrusted);
}

TEST_CASE("words: they open the record, also after a new passphrase, and only their own user's") {
  People& p = People::get();
  const auto back = recover_user(p.carol.record, p.carol.words.text());
  MUST(back);
  CHECK(back->user_key.key() == p.carol.secrets.user_key.key());
  REFUSED(recover_user(p.dave.record, p.carol.words.text()), ErrorCode::kWrongKey);
  UserRecord none = p.carol.record;
  none.recovery_key.fill(0);
  REFUSED(recover_user(none, p.carol.words.text()), ErrorCode::kNotFound);
  UserRecord renewed = p.carol.record;
  const auto words = renew_words(renewed, p.carol.secrets, p.f.random);
  MUST(check_user_record(p.f.state(), renewed));
  MUST(recover_user(renewed, words.text()));
  REFUSED(recover_user(renewed, p.carol.words.text()), ErrorCode::kWrongKey);
}

TEST_CASE("words: what anybody is given for a name opens with them alone") {
  People& p = People::get();
  const auto part = recovery_record_of(p.carol.record);
  REQUIRE(part);
  const auto back = recover_user(*part, p.carol.words.text());
  MUST(back);
  CHECK(back->user_key.key() == p.carol.secrets.user_key.key());
  CHECK(back->sign.public_key == p.carol.secrets.sign.public_key);
  REFUSED(recover_user(*part, p.dave.words.text()), ErrorCode::kWrongKey);
  // Another's parts under this name, another organisation, any bent byte.
  const auto other = recovery_record_of(p.dave.record);
  RecoveryRecord mixed = *part;
  mixed.secrets = other->secrets;
  REFUSED(recover_user(mixed, p.carol.words.text()), ErrorCode::kUntrusted);
  mixed = *part;
  mixed.user = other->user;
  REFUSED(recover_user(mixed, p.carol.words.text()), ErrorCode::kWrongKey);
  mixed = *part;
  mixed.org.bytes[0] ^= 1;
  REFUSED(recover_user(mixed, p.carol.words.text()), ErrorCode::kWrongKey);
  for (std::size_t i = 0; i < kWrappedKeyBytes; ++i) {
    mixed = *part;
    mixed.recovery_key[i] ^= 0x20;
    CHECK(!recover_user(mixed, p.carol.words.text()).ok());
  }
  for (std::size_t i = 0; i < kWrappedSecretsBytes; ++i) {
    mixed = *part;
    mixed.secrets[i] ^= 0x20;
    CHECK(!recover_user(mixed, p.carol.words.text()).ok());
  }
  // Who is not there, and who has no words: always the same bytes, that open with nothing.
  const auto server_key = p.f.random.id<Secret32>();
  const auto nobody = unknown_recovery_record(server_key, p.f.org, "nobody");
  const auto again = unknown_recovery_record(server_key, p.f.org, "nobody");
  CHECK((nobody.user == again.user && nobody.recovery_key == again.recovery_key &&
         nobody.secrets == again.secrets));
  const auto another = unknown_recovery_record(server_key, p.f.org, "another");
  CHECK((nobody.user != another.user && nobody.recovery_key != another.recovery_key &&
         nobody.secrets != another.secrets));
  REFUSED(recover_user(nobody, p.carol.words.text()), ErrorCode::kWrongKey);
  UserRecord none = p.carol.record;
  none.recovery_key.fill(0);
  CHECK(!recovery_record_of(none));
}

TEST_CASE("words: any one wrong letter is found and its word named") {
  SeededRandom random(seed());
  for (int round = 0; round < 20; ++round) {
    crypto::SecretBytes entropy(kRecoveryEntropyBytes);
    random.fill(entropy.mut());
    const auto words = words_of(entropy.view());
    const std::string good(words.text());
    CHECK(good.size() == 12 * 6 - 1);
    CHECK(parse_words(good)->view().size() == 16);
    CHECK(crypto::equal_constant_time(parse_words(good)->view(), entropy.view()));
    for (std::size_t i = 0; i < good.size(); ++i) {
      if (good[i] == ' ') continue;
      for (char c = 'a'; c <= 'z'; ++c) {
        if (c == good[i]) continue;
        std::string bad = good;
        bad[i] = c;
        const auto parsed = parse_words(bad);
        REFUSED(parsed, ErrorCode::kInvalidArgument);
        const std::string named = "recovery word " + std::to_string(i / 6 + 1) + " ";
        CHECK(parsed.error().message.find(named) == 0);
      }
    }
  }
}

TEST_CASE("words: exchanged, missing, added, and written otherwise") {
  SeededRandom random(seed());
  crypto::SecretBytes entropy(kRecoveryEntropyBytes);
  random.fill(entropy.mut());
  const std::string good(words_of(entropy.view()).text());
  for (std::size_t i = 0; i < kRecoveryWords; ++i) {
    for (std::size_t j = i + 1; j < kRecoveryWords; ++j) {
      std::string bad = good;
      for (std::size_t k = 0; k < 5; ++k)
        std::swap(bad[after_words(good, i) + k], bad[after_words(good, j) + k]);
      if (bad == good) continue;  // one word twice cannot be: its place is in it
      const auto parsed = parse_words(bad);
      REFUSED(parsed, ErrorCode::kInvalidArgument);
      CHECK(parsed.error().message.find("recovery word " + std::to_string(i + 1) + " ") == 0);
    }
  }
  CHECK(parse_words(std::string_view(good).substr(0, 65)).error().message.find("only 11") == 0);
  REFUSED(parse_words(good + " badas"), ErrorCode::kInvalidArgument);
  REFUSED(parse_words(""), ErrorCode::kInvalidArgument);
  std::string loud = good;
  for (char& c : loud) c = c == ' ' ? '\n' : static_cast<char>(std::toupper(c));
  MUST(parse_words("  " + loud + "\r\n"));
}
