// The log in the hands of a malicious server or member: every kind of record exchanged, replayed,
// reordered, dropped, cut, bent, moved; and a log that forks or goes back.
#include <catch2/catch.hpp>

#include "common/base/wire.h"
#include "tests/unit/trust_must.h"

using namespace dims;
using namespace dims::trust;
using namespace dims::test;

namespace {

// The fixture's log and, behind it, one record of each kind.
struct LongLog {
  explicit LongLog(std::uint64_t random_seed) : f(random_seed) {
    first_extra = f.records.size();
    for (const Saying& saying : one_of_each(f)) f.say(saying.body, *saying.signer);
  }
  std::string kind(std::size_t at) const {
    return std::string(record_kind_name(decode_record(f.records[at])->kind()));
  }
  OrgFixture f;
  std::size_t first_extra = 0;
};

}  // namespace

TEST_CASE("log: all kinds are in the log that is tampered with") {
  const LongLog log(seed());
  std::set<RecordKind> kinds;
  for (const Bytes& bytes : log.f.records) kinds.insert(decode_record(bytes)->kind());
  CHECK(kinds.size() == std::size(kAllRecordKinds));
  MUST(OrgLog::open(log.f.org, log.f.records));
}

TEST_CASE("log: a bent byte anywhere in any kind of record is found") {
  const LongLog log(seed());
  SeededRandom random(seed());
  for (std::size_t at = 0; at < log.f.records.size(); ++at) {
    INFO(log.kind(at));
    const Bytes& good = log.f.records[at];
    for (std::size_t i = 0; i < good.size(); ++i) {
      Bytes bent = good;
      bent[i] ^= static_cast<std::uint8_t>(1u << random.below(8));
      const auto record = decode_record(bent);
      if (record.ok()) FAIL("byte " << i << " bent and taken");
    }
    for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, kRecordHeadBytes - 1,
                                  kRecordHeadBytes, good.size() / 2, good.size() - 1}) {
      CHECK(!decode_record(ByteView(good).first(cut)).ok());
    }
    Bytes longer = good;
    longer.push_back(0);
    CHECK(!decode_record(longer).ok());
  }
}

TEST_CASE("log: records dropped, replayed, exchanged or moved within a log are found") {
  const LongLog log(seed());
  const std::vector<Bytes>& good = log.f.records;
  const auto refused = [&](const std::vector<Bytes>& records, const std::string& what) {
    INFO(what);
    const auto opened = OrgLog::open(log.f.org, records);
    if (opened.ok()) FAIL("taken: " + what);
    const ErrorCode code = opened.error().code;
    CHECK((code == ErrorCode::kOtherHistory || code == ErrorCode::kUntrusted));
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    if (i + 1 < good.size()) {  // dropping the last is "cut short": the pin's matter
      auto dropped = good;
      dropped.erase(dropped.begin() + static_cast<std::ptrdiff_t>(i));
      refused(dropped, "dropped " + log.kind(i));
    }
    for (std::size_t j = i + 1; j < good.size(); ++j) {
      auto exchanged = good;
      std::swap(exchanged[i], exchanged[j]);
      refused(exchanged, log.kind(i) + " exchanged with " + log.kind(j));
    }
    // Replayed with its number made to fit: the signature does not.
    auto replayed = good[i];
    Bytes number;
    Writer(number).u64(good.size());
    std::copy(number.begin(), number.end(), replayed.begin() + 8);
    CHECK(decode_record(replayed).error().code == ErrorCode::kUntrusted);
  }
  // Sent twice, at its right place, a record is compared, not applied again.
  OrgLog twice = *OrgLog::open(log.f.org, good);
  MUST(twice.extend(good));
  CHECK(twice.position() == log.f.log->position());
}

TEST_CASE("log: a record of another organisation is refused, whoever signed it") {
  LongLog ours(seed());
  OrgFixture theirs(seed() + 1);
  for (const Saying& saying : one_of_each(theirs)) {
    const auto record = theirs.make(saying.body, *saying.signer);
    INFO(record_kind_name(record.kind()));
    REFUSED(ours.f.state().check(record), ErrorCode::kUntrusted);
    // The same words in our place, under their keys.
    const auto moved =
        forge(ours.f.org, ours.f.log->position(), ours.f.now_s, saying.body, *saying.signer);
    REFUSED(ours.f.state().check(moved), ErrorCode::kUntrusted);
  }
  REFUSED(OrgLog::open(ours.f.org, theirs.records), ErrorCode::kUntrusted);
  const Pin pin = theirs.log->pin();
  REFUSED(OrgLog::open(ours.f.org, ours.f.records, &pin), ErrorCode::kUntrusted);
}

TEST_CASE("log: another's key or proof in a certificate is refused") {
  OrgFixture f(seed());
  auto mallory = bare_user(f.org, f.random);
  auto cert = certificate_of(mallory, "mallory", Role::kUser);
  cert.keys.sign_key = new_signer(f.random).public_key;  // not his
  REFUSED(f.state().check(f.make(cert, f.admin.sign)), ErrorCode::kUntrusted);
  cert = certificate_of(mallory, "mallory", Role::kUser);
  cert.role = Role::kAdministrator;  // what he proved was less
  REFUSED(f.state().check(f.make(cert, f.admin.sign)), ErrorCode::kUntrusted);
  cert = certificate_of(f.alice, "mallory", Role::kUser);  // a key that is in use
  cert.user = mallory.user;
  cert.private_domain = mallory.private_domain;
  REFUSED(f.state().check(f.make(cert, f.admin.sign)), ErrorCode::kAlreadyExists);
  auto machine = make_machine(f.org, "box", f.random);
  auto machine_cert = machine.certificate();
  machine_cert.name = "box2";
  REFUSED(f.state().check(f.make(machine_cert, f.admin.sign)), ErrorCode::kUntrusted);
  machine.sign = f.laptop.sign.clone();
  REFUSED(f.state().check(f.make(machine.certificate(), f.admin.sign)), ErrorCode::kAlreadyExists);
  auto change = key_change_of(bare_user(f.org, f.random));
  change.user = f.bob.user;
  REFUSED(f.state().check(f.make(change, f.admin.sign)), ErrorCode::kUntrusted);
}

TEST_CASE("pin: a log that was rolled back or forked is refused at every record") {
  LongLog log(seed());
  const std::vector<Bytes> good = log.f.records;
  for (std::size_t at = 0; at < good.size(); ++at) {
    OrgLog seen = *OrgLog::open(log.f.org,
                                {good.begin(), good.begin() + static_cast<std::ptrdiff_t>(at) + 1});
    const Pin pin = seen.pin();
    MUST(OrgLog::open(log.f.org, good, &pin));  // longer is fine
    if (at > 0) {
      const std::vector<Bytes> shorter(good.begin(),
                                       good.begin() + static_cast<std::ptrdiff_t>(at));
      REFUSED(OrgLog::open(log.f.org, shorter, &pin), ErrorCode::kOtherHistory);
    }
    // The administrator himself says something else at the same place: a fork that he signed.
    if (at > 1) {
      std::vector<Bytes> fork(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(at));
      OrgLog forked = *OrgLog::open(log.f.org, fork);
      const Position before = forked.position();
      fork.push_back(make_record(log.f.org, &before, log.f.now_s + 1, Policy{}, log.f.root).bytes);
      MUST(OrgLog::open(log.f.org, fork));
      REFUSED(OrgLog::open(log.f.org, fork, &pin), ErrorCode::kOtherHistory);
      REFUSED(seen.extend({fork.back()}), ErrorCode::kOtherHistory);
    }
  }
  REFUSED(OrgLog::open(log.f.org, {}), ErrorCode::kNotFound);
  const Pin pin = log.f.log->pin();
  REFUSED(OrgLog::open(log.f.org, {}, &pin), ErrorCode::kOtherHistory);
}

TEST_CASE("pin: every bent byte of a kept pin is found") {
  const OrgFixture f(seed());
  const Bytes good = encode_pin(f.log->pin());
  CHECK(good.size() == 88);
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes bent = good;
    bent[i] ^= 0x40;
    CHECK(!decode_pin(bent).ok());
    CHECK(!decode_pin(ByteView(good).first(i)).ok());
  }
}

TEST_CASE("append: two who write at once cannot both win, and nothing is half taken") {
  OrgFixture f(seed());
  const Position at = f.log->position();
  const auto one = f.make(Policy{}, f.admin.sign);
  const auto two = f.make(Quota{kEveryone, 1, 1, 1}, f.admin.sign);
  MUST(f.log->append(one.bytes, at));
  REFUSED(f.log->append(two.bytes, at), ErrorCode::kConflict);
  REFUSED(f.log->append(two.bytes, f.log->position()), ErrorCode::kOtherHistory);
  CHECK(f.log->size() == f.records.size() + 1);
  REFUSED(check_record_time(one, f.now_s + kRecordSkew_s + 1), ErrorCode::kInvalidArgument);
  MUST(check_record_time(one, f.now_s - kRecordSkew_s));
}
