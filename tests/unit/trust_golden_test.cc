// Binds the pages of trust's formats, the code, and files that were written once.
#include <catch2/catch.hpp>

#include "common/base/wire.h"
#include "common/crypto/aead.h"
#include "common/trust/join_line.h"
#include "common/trust/session.h"
#include "tests/unit/golden_pages.h"
#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

namespace {

crypto::SecretSigner counting_signer(std::uint8_t first) {
  Counting values(first);
  return crypto::SecretSigner::from_seed(crypto::SecretKey::random(values));
}

UserSecrets counting_user(const OrgId& org, std::uint8_t first) {
  Counting values(first);
  return bare_user(org, values);
}

// The records of a small log: one of each kind.
std::vector<LogRecord> golden_log() {
  const auto root = counting_signer(1);
  const OrgId org = org_of(root.public_key);
  Counting ids(0x80);
  const auto domain = ids.id<DomainId>();
  const auto user = counting_user(org, 0x20);
  auto renewed = counting_user(org, 0x45);
  renewed.user = user.user;
  Counting machine_values(0xb3);
  const auto machine = make_machine(org, "laptop", machine_values);
  const auto image = ids.id<ImageId>();
  const PublicKey join = counting_signer(9).public_key;
  const std::vector<Body> bodies{OrgInit{root.public_key, domain, "example"},
                                 certificate_of(user, "alice", Role::kAdministrator),
                                 UserState{user.user, UserStatus::kActive, Role::kAdministrator},
                                 key_change_of(renewed),
                                 machine.certificate(),
                                 JoinKey{join, true, "desk", Role::kUser, {}, 2'000'000'000},
                                 JoinCancel{join},
                                 MachineWipe{machine.machine, true},
                                 MachineRevoke{machine.machine},
                                 ImageAcl{image, kEveryone, Access::kRead},
                                 KeyEpoch{KeyScope::kImage, *ScopeId::from_view(image.view()), 1,
                                          ids.id<Digest>(), 7, ids.id<VersionId>()},
                                 Policy{true, 5, 2592000, 604800, false},
                                 Quota{user.user, 1 << 30, 10, 600}};
  std::vector<LogRecord> out;
  for (const Body& body : bodies) {
    const Position after = out.empty() ? Position{} : Position{out.back().seq, out.back().hash};
    out.push_back(make_record(org, out.empty() ? nullptr : &after, 1'800'000'000, body, root));
  }
  return out;
}

// Alice, her image with its first epoch, Bob who may read it, a machine.
struct GoldenOrg {
  GoldenOrg()
      : root(counting_signer(1)),
        org(org_of(root.public_key)),
        alice(counting_user(org, 0x20)),
        bob(counting_user(org, 0x45)),
        secret(ids.id<Secret32>()),
        image(ids.id<ImageId>()) {
    Counting machine_values(0xb3);
    const auto laptop = make_machine(org, "laptop", machine_values);
    machine = laptop.machine;
    const Bytes first = make_record(org, nullptr, 1'800'000'000,
                                    OrgInit{root.public_key, ids.id<DomainId>(), "example"}, root)
                            .bytes;
    log = *OrgLog::open(org, {first});
    const ScopeId id = scope_id(image);
    const Digest commitment = epoch_commitment(KeyScope::kImage, id, 1, secret);
    for (const Body& body :
         {Body(certificate_of(alice, "alice", Role::kUser)),
          Body(certificate_of(bob, "bob", Role::kUser)), Body(laptop.certificate()),
          Body(ImageAcl{image, alice.user, Access::kAdmin}),
          Body(KeyEpoch{KeyScope::kImage, id, 1, commitment, 0, {}})}) {
      const Position at = log->position();
      MUST(log->append(make_record(org, &at, 1'800'000'000, body, root).bytes, at));
    }
  }
  const OrgState& state() const { return log->state(); }

  crypto::SecretSigner root;
  OrgId org;
  UserSecrets alice, bob;
  Counting ids{0x80};
  Secret32 secret;
  ImageId image;
  MachineId machine;
  std::optional<OrgLog> log;
};

}  // namespace

TEST_CASE("golden: a log with one record of each kind") {
  const auto records = golden_log();
  CHECK(records.size() == std::size(kAllRecordKinds));
  Bytes made;
  Writer w(made);
  for (const LogRecord& record : records) w.string(record.bytes);
  const Bytes bytes = golden("org_log.hex", made);
  CHECK(bytes == made);
  std::vector<Bytes> read;
  for (Reader r(bytes); !r.at_end();) {
    const ByteView one = r.string();
    REQUIRE(r.ok());
    read.emplace_back(one.begin(), one.end());
  }
  const auto log = OrgLog::open(records[0].org, read);
  MUST(log);
  CHECK(log->state().user_named("alice") != nullptr);

  auto fields = page_table("org-log.md", "Record");
  CHECK(fields.at("end").offset == kRecordHeadBytes);
  const LogRecord& second = records[1];
  const auto at = [&](const char* name) { return part(second.bytes, fields.at(name)); };
  CHECK(as_text(at("magic")) == "LOG1");
  CHECK(number(at("format")) == 1);
  CHECK(number(at("kind")) == 2);
  CHECK(number(at("seq")) == 1);
  CHECK(equal(at("org"), second.org.view()));
  CHECK(equal(at("previous"), records[0].hash.view()));
  CHECK(number(at("time")) == 1'800'000'000);
  CHECK(equal(at("signer"), second.signer.view()));
  CHECK(number(at("body bytes")) == second.bytes.size() - kRecordHeadBytes - 64);
  CHECK(number(at("reserved")) == 0);
  CHECK(crypto::verify(second.signer, "log", second.org,
                       ByteView(second.bytes).first(second.bytes.size() - 64),
                       *Signature::from_view(ByteView(second.bytes).last(64))));
  // The page lists every kind with its number.
  const std::string page = read_text(std::string(DIMS_FORMAT_PAGES) + "/org-log.md");
  for (const RecordKind kind : kAllRecordKinds) {
    const std::string row = "| " + std::to_string(static_cast<int>(kind)) + " | `" +
                            std::string(record_kind_name(kind)) + "` |";
    INFO(row);
    CHECK(page.find(row) != std::string::npos);
  }
}

TEST_CASE("golden: a pin") {
  const auto records = golden_log();
  const Pin pin{records[3].org, {records[3].seq, records[3].hash}};
  const Bytes bytes = golden("log_pin.hex", encode_pin(pin));
  CHECK(bytes == encode_pin(pin));
  auto fields = page_table("org-log.md", "Pin");
  CHECK(fields.at("end").offset == bytes.size());
  CHECK(as_text(part(bytes, fields.at("magic"))) == "PIN1");
  CHECK(number(part(bytes, fields.at("seq"))) == 3);
  CHECK(equal(part(bytes, fields.at("hash")), records[3].hash.view()));
}

TEST_CASE("golden: a user's record opens with its words") {
  const OrgId org = org_of(counting_signer(1).public_key);
  const auto user = counting_user(org, 0x20);
  Counting values(3);
  UserRecord record;
  record.org = org;
  record.user = user.user;
  record.name = "alice";
  record.generation = 4;
  record.salt = values.id<crypto::Salt>();
  record.login_key = counting_signer(5).public_key;
  // The passphrase's part is left out: it would take a second to make here.
  const auto secrets = pack_secrets(user);
  const auto key = crypto::prf(user.user_key.key(), "user-secrets", {});
  Bytes ad(as_bytes("dims/user-secrets/1").begin(), as_bytes("dims/user-secrets/1").end());
  Writer w(ad);
  w.id(org);
  w.id(user.user);
  const Bytes wrapped = crypto::wrap(key, ad, secrets.view(), values);
  std::copy(wrapped.begin(), wrapped.end(), record.secrets.begin());
  const auto words = renew_words(record, user, values);
  const Bytes made = encode_user_record(record);
  const Bytes bytes = golden("user_record.hex", made);
  CHECK(bytes == made);
  CHECK(golden_text("recovery_words.txt", std::string(words.text()) + "\n") ==
        std::string(words.text()) + "\n");
  const auto read = decode_user_record(bytes);
  MUST(read);
  const auto opened = recover_user(*read, words.text());
  MUST(opened);
  CHECK(opened->private_secret.key() == user.private_secret.key());
  auto fields = page_table("user-record.md", "Record");
  CHECK(fields.at("end").offset == kUserRecordBytes);
  const auto at = [&](const char* name) { return part(bytes, fields.at(name)); };
  CHECK(as_text(at("magic")) == "USR1");
  CHECK(equal(at("user"), user.user.view()));
  CHECK(number(at("generation")) == 4);
  CHECK(number(at("memory")) == 65536);
  CHECK(number(at("passes")) == 3);
  CHECK(equal(at("salt"), record.salt.view()));
  CHECK(equal(at("login key"), record.login_key.view()));
  CHECK(is_all_zero(at("user key")));
  CHECK(equal(at("secrets"), record.secrets));
  CHECK(equal(at("recovery key"), record.recovery_key));
  CHECK(number(at("name bytes")) == 5);
  CHECK(as_text(at("name").first(5)) == "alice");
  CHECK(equal(at("signature"), record.signature.view()));
  const std::string page = read_text(std::string(DIMS_FORMAT_PAGES) + "/user-record.md");
  CHECK(page.find(words.text()) != std::string::npos);
}

TEST_CASE("golden: a grant opens") {
  const GoldenOrg f;
  const ScopeId id = scope_id(f.image);
  const auto made = make_grant(f.state(), KeyScope::kImage, id, 1, f.secret, f.bob.user,
                               f.alice.user, f.alice.sign);
  MUST(made);
  const Bytes bytes = golden("grant.hex", *made);  // boxes are never twice the same
  const auto opened = open_grant(f.state(), bytes, f.bob.user, f.bob.box);
  MUST(opened);
  CHECK(opened->key() == f.secret);
  auto fields = page_table("grant.md", "Grant");
  CHECK(fields.at("end").offset == kGrantBytes);
  const auto at = [&](const char* name) { return part(bytes, fields.at(name)); };
  CHECK(as_text(at("magic")) == "GRA1");
  CHECK(number(at("scope")) == 2);
  CHECK(equal(at("id"), id.view()));
  CHECK(number(at("epoch")) == 1);
  CHECK(equal(at("recipient"), f.bob.user.view()));
  CHECK(equal(at("recipient key"), crypto::sha256(f.bob.box.public_key.view()).view()));
  CHECK(equal(at("granter"), f.alice.user.view()));
  CHECK(number(at("seq")) == f.state().position().seq);
  CHECK(equal(at("hash"), f.state().position().hash.view()));
  CHECK(at("box").size() == kGrantBoxBytes);
}

TEST_CASE("golden: a session's certificate") {
  const GoldenOrg f;
  const auto key = counting_signer(0x33);
  ImageId counting_image;
  counting_image.bytes.fill(0x77);
  const auto certificate =
      make_session(f.state(), f.alice.user, f.machine,
                   {{f.image, Access::kWrite}, {counting_image, Access::kRead}}, 1'800'000'000,
                   1'800'000'060, key, f.alice.sign);
  const Bytes bytes = golden("session.hex", encode_session(certificate));
  CHECK(bytes == encode_session(certificate));
  auto fields = page_table("session.md", "Certificate");
  const auto at = [&](const char* name) { return part(bytes, fields.at(name)); };
  CHECK(as_text(at("magic")) == "SES1");
  CHECK(number(at("image count")) == 2);
  CHECK(equal(at("user"), f.alice.user.view()));
  CHECK(equal(at("machine"), f.machine.view()));
  CHECK(equal(at("session key"), key.public_key.view()));
  CHECK(number(at("from")) == 1'800'000'000);
  CHECK(number(at("to")) == 1'800'000'060);
  CHECK(number(at("seq")) == f.state().position().seq);
  CHECK(fields.at("end").offset + 2 * 20 + 2 * 64 == bytes.size());
}

TEST_CASE("golden: a join line and a machine's file") {
  Counting values(1);
  JoinLine line;
  line.address = "rdim.example:7440";
  line.server = values.id<Digest>();
  line.org = values.id<OrgId>();
  line.position = {77, values.id<Digest>()};
  line.for_machine = true;
  line.token = make_join_token(values);
  const std::string text = golden_text("join_line.txt", encode_join_line(line) + "\n");
  CHECK(text == encode_join_line(line) + "\n");
  const std::string page = read_text(std::string(DIMS_FORMAT_PAGES) + "/join-line.md");
  CHECK(page.find(text) != std::string::npos);
  CHECK(page_table("join-line.md", "Payload").at("end").offset == 128);

  auto machine = make_machine(line.org, "laptop", values);
  machine.server_address = line.address;
  machine.server = line.server;
  machine.obeyed_wipe_seq = 5;
  const auto made = encode_machine(machine, nullptr, values);
  const Bytes bytes = golden("machine.hex", made.view());
  CHECK(equal(bytes, made.view()));
  CHECK(decode_machine(bytes, nullptr)->name == "laptop");
}
