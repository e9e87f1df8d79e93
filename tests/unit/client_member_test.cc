// Keys and tokens of a member: what is kept, what is believed.
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>
#include <catch2/catch.hpp>

#include "common/client/member_keys.h"
#include "common/client/org_folder.h"
#include "common/io/memory_file.h"
#include "tests/support/org_fixture.h"
#include "tests/support/seed.h"

namespace dims::client {
namespace {

using test::OrgFixture;
using trust::Access;
using trust::KeyScope;

// Grants for alice, of both epochs of her image once there are two.
Grants grants_of(OrgFixture& org) {
  return [&org](KeyScope scope, const trust::ScopeId& id) -> Result<std::vector<Bytes>> {
    std::vector<Bytes> out;
    for (std::uint32_t epoch = 1; org.state().epoch(scope, id, epoch) != nullptr; ++epoch) {
      auto made = trust::make_grant(org.state(), scope, id, epoch, org.key_of_epoch(id, epoch),
                                    org.alice.user, org.alice.user, org.alice.sign);
      if (made.ok()) out.push_back(std::move(*made));
    }
    return out;
  };
}

std::shared_ptr<const trust::OrgLog> shared_log(const OrgFixture& org) {
  auto log = trust::OrgLog::open(org.org, org.records);
  REQUIRE(log.ok());
  return std::make_shared<const trust::OrgLog>(std::move(*log));
}

format::VersionRecord version_by(OrgFixture& org, const ImageId& image,
                                 const crypto::SecretSigner& session) {
  format::VersionRecord version;
  version.org = org.org;
  version.image = image;
  version.image_epoch = 1;
  version.sequence = 1;
  version.machine = org.laptop.machine;
  version.time_unix_ns = org.now_s * 1'000'000'000;
  version.signer = session.public_key;
  return version;
}

}  // namespace

TEST_CASE("a member's keys hold every epoch that was granted, and seal with the newest") {
  OrgFixture org(test::seed());
  const auto session = crypto::SecretSigner::from_seed(crypto::SecretKey::random(org.random));
  const ImageWanted wanted{org.image, org.alice.private_domain, Access::kWrite};
  const trust::ScopeId id = trust::scope_id(org.image);
  auto first = image_keys(shared_log(org), org.alice, grants_of(org), {}, wanted,
                          org.laptop.machine, session);
  REQUIRE(first.ok());
  CHECK(first->image_epoch() == 1);
  CHECK(first->image_key(org.image) == org.key_of_epoch(id, 1));

  org.say(org.epoch(KeyScope::kImage, id, 2), org.alice.sign);
  auto second = image_keys(shared_log(org), org.alice, grants_of(org), {}, wanted,
                           org.laptop.machine, session);
  REQUIRE(second.ok());
  CHECK(second->image_epoch() == 2);
  CHECK(second->image_key(org.image) == org.key_of_epoch(id, 2));
  CHECK(second->image_key(version_by(org, org.image, session)) == org.key_of_epoch(id, 1));
  CHECK(second->local_key() == local_key_of(org.alice));
}

TEST_CASE("keys without a grant, and for more than the list allows, are refused") {
  OrgFixture org(test::seed());
  const auto session = crypto::SecretSigner::from_seed(crypto::SecretKey::random(org.random));
  const Grants none = [](KeyScope, const trust::ScopeId&) -> Result<std::vector<Bytes>> {
    return std::vector<Bytes>{};
  };
  const auto missing =
      image_keys(shared_log(org), org.alice, none, {},
                 {org.image, org.alice.private_domain, Access::kRead}, {}, session);
  REQUIRE(!missing.ok());
  CHECK(missing.error().code == ErrorCode::kPermissionDenied);
  const auto more = image_keys(shared_log(org), org.bob, grants_of(org), {},
                               {org.image, org.alice.private_domain, Access::kWrite}, {}, session);
  REQUIRE(!more.ok());
  CHECK(more.error().code == ErrorCode::kPermissionDenied);
  // Alice's grants are of no use to bob.
  const auto others = image_keys(shared_log(org), org.bob, grants_of(org), {},
                                 {org.image, org.alice.private_domain, Access::kRead}, {}, session);
  REQUIRE(!others.ok());
  CHECK(others.error().code == ErrorCode::kUntrusted);
}

TEST_CASE("a version counts if its session was certified by a writer, on a branch as well") {
  OrgFixture org(test::seed());
  const auto log = shared_log(org);
  const auto own = crypto::SecretSigner::from_seed(crypto::SecretKey::random(org.random));
  const auto session = crypto::SecretSigner::from_seed(crypto::SecretKey::random(org.random));
  const Bytes certificate = trust::encode_session(trust::make_session(
      log->state(), org.alice.user, org.laptop.machine, {{org.image, Access::kWrite}}, org.now_s,
      org.now_s + 3600, session, org.alice.sign));
  const Certificates source = [&](const ImageId&, const trust::PublicKey&) -> Result<Bytes> {
    return certificate;
  };
  const auto check = signer_check(log, org.image, source, own.public_key);
  CHECK(check(version_by(org, org.image, session)).ok());
  CHECK(check(version_by(org, org.random.id<ImageId>(), session)).ok());  // a branch of it
  CHECK(check(version_by(org, org.image, own)).ok());
  const auto stranger = crypto::SecretSigner::from_seed(crypto::SecretKey::random(org.random));
  const Status refused = check(version_by(org, org.image, stranger));
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kUntrusted);
  // The same certificate, said to be for another image.
  const auto elsewhere = signer_check(log, org.master, source, own.public_key);
  CHECK(!elsewhere(version_by(org, org.master, session)).ok());
}

TEST_CASE("what a folder remembers of the organisation comes back, and every bent byte is found") {
  OrgFixture org(test::seed());
  const KnownOrg known{"127.0.0.1:7400", org.org, org.records};
  io::MemoryFileSystem fs;
  REQUIRE(fs.make_folder("mem:").ok());
  const OrgFolder folder(fs, "mem:");
  CHECK(!folder.load()->has_value());
  REQUIRE(folder.save(known).ok());
  const auto back = folder.load();
  REQUIRE(back.ok());
  CHECK((*back)->records == known.records);
  CHECK((*back)->server == known.server);
  Bytes bytes = encode_org(known);
  for (std::size_t at = 0; at < bytes.size(); at += 1 + org.random.below(7)) {
    bytes[at] ^= 0x20;
    CHECK(!decode_org(bytes, "x").ok());
    bytes[at] ^= 0x20;
  }
  bytes.pop_back();
  CHECK(!decode_org(bytes, "x").ok());
}

TEST_CASE("what a folder pins only grows, whoever shares it, and is never seen torn") {
  OrgFixture org(test::seed());
  const auto path = std::filesystem::temp_directory_path() /
                    ("dims-org-" + std::to_string(::getpid()) + "-" + std::to_string(test::seed()));
  std::filesystem::create_directory(path);
  const auto known = [&](std::size_t records) {
    return KnownOrg{
        "127.0.0.1:7400",
        org.org,
        {org.records.begin(), org.records.begin() + static_cast<std::ptrdiff_t>(records)}};
  };
  const std::size_t all = org.records.size();
  REQUIRE(all >= 3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> people;
  for (int t = 0; t < 4; ++t) {
    people.emplace_back([&, t] {
      const OrgFolder folder(io::posix_file_system(), path);
      for (int i = 0; i < 20; ++i) {
        if (!folder.keep(known(1 + static_cast<std::size_t>(t + i) % all)).ok()) ++wrong;
        const auto now = folder.load();
        if (!now.ok() || !now->has_value()) ++wrong;
      }
    });
  }
  for (auto& thread : people) thread.join();
  CHECK(wrong == 0);
  const OrgFolder folder(io::posix_file_system(), path);
  REQUIRE(folder.keep(known(all)).ok());
  REQUIRE(folder.keep(known(1)).ok());
  CHECK((*folder.load())->records == org.records);
  KnownOrg fork = known(all);
  fork.records.back().back() ^= 1;
  const Status refused = folder.keep(fork);
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kOtherHistory);
  CHECK((*folder.load())->records == org.records);
  std::filesystem::remove_all(path);
}

TEST_CASE("a token is renewed before it ends and when the server has forgotten it") {
  ManualClock clock;
  SeededRandom random(test::seed());
  int logins = 0;
  bool away = false;
  LoginToken token(
      [&]() -> Result<Token> {
        ++logins;
        if (away) return make_error(ErrorCode::kUnavailable, "away");
        return Token{random.id<trust::SessionToken>(), std::chrono::seconds(100)};
      },
      {}, clock);
  const auto first = token.current();
  REQUIRE(first.ok());
  CHECK(*token.current() == *first);
  CHECK(logins == 1);
  clock.advance(std::chrono::seconds(95));
  const auto second = token.current();
  CHECK(logins == 2);
  token.refused(*first);  // an old one: nothing is lost
  CHECK(*token.current() == *second);
  token.refused(*second);
  away = true;
  CHECK(!token.current().ok());
  CHECK(!token.current().ok());  // not asked again at once
  CHECK(logins == 3);
  CHECK(!token.trouble().ok());
  away = false;
  clock.advance(std::chrono::seconds(2));
  CHECK(token.current().ok());
  CHECK(token.trouble().ok());
}

}  // namespace dims::client
