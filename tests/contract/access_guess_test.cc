// Guessing: a wrong passphrase and a name that nobody has look alike, and only guesses are counted.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/contract/login_world.h"

using namespace dims;
using namespace dims::test;
using namespace dims::trust;

namespace {

// Everything that one try of a passphrase gets to see.
struct Conversation {
  std::vector<std::size_t> lengths;  // of each reply
  std::vector<std::string> fields;   // that are set, of each reply
  grpc::StatusCode code = grpc::StatusCode::OK;
  std::string text, details;
};

std::string fields_of(const google::protobuf::Message& message) {
  std::vector<const google::protobuf::FieldDescriptor*> set;
  message.GetReflection()->ListFields(message, &set);
  std::string out;
  for (const auto* field : set) out += field->name() + " ";
  return out;
}

Conversation converse(LoginWorld& w, const std::string& name, const std::string& passphrase) {
  Conversation out;
  const auto heard = [&](const google::protobuf::Message& reply) {
    out.lengths.push_back(reply.ByteSizeLong());
    out.fields.push_back(fields_of(reply));
  };
  // As login_user() of common/client does it: record, challenge, login.
  const v1::LoginRecord record = w.login_record(name);
  heard(record);
  auto keys =
      passphrase_keys(as_bytes(passphrase), *crypto::Salt::from_view(as_bytes(record.salt())),
                      {record.memory_kib(), record.passes()});
  REQUIRE(keys.ok());
  grpc::ClientContext call;
  v1::ChallengeReply challenge;
  REQUIRE(w.world.people->Challenge(&call, {}, &challenge).ok());
  heard(challenge);
  const LoginContext here{w.org, *LoginNonce::from_view(as_bytes(challenge.nonce())), Digest{},
                          MachineId{}};
  v1::LoginReply reply;
  const grpc::Status status = w.send(w.request(name, keys->login, here), &reply);
  heard(reply);
  out.code = status.error_code();
  out.text = status.error_message();
  out.details = status.error_details();
  return out;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// How far from chance the ranks of one are: Mann-Whitney, as a normal deviate.
double mann_whitney_z(const std::vector<double>& a, const std::vector<double>& b) {
  double u = 0;
  for (const double x : a)
    for (const double y : b) u += x < y ? 1.0 : x == y ? 0.5 : 0.0;
  const double n = static_cast<double>(a.size()), m = static_cast<double>(b.size());
  return (u - n * m / 2) / std::sqrt(n * m * (n + m + 1) / 12);
}

}  // namespace

TEST_CASE("a_wrong_passphrase_and_an_unknown_name_hold_the_same_conversation") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  const Conversation wrong = converse(w, "ann", "wrong");
  for (const std::string& name : {std::string("zoe"), std::string("ann2"), std::string("x")}) {
    const Conversation unknown = converse(w, name, "wrong");
    CHECK(unknown.lengths == wrong.lengths);
    CHECK(unknown.fields == wrong.fields);
    CHECK(unknown.code == wrong.code);
    CHECK(unknown.text == wrong.text);
    CHECK(unknown.details == wrong.details);
  }
  CHECK(wrong.code == grpc::StatusCode::PERMISSION_DENIED);
  CHECK(wrong.fields.back().empty());
}

TEST_CASE("what_an_unknown_name_is_told_is_the_same_after_a_restart") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  std::map<std::string, std::string> salts;
  for (int i = 0; i < 20; ++i) {
    const std::string name = "nobody" + std::to_string(i);
    salts[name] = w.login_record(name).salt();
  }
  const auto again = access::AccessControl::open(w.world.refs, w.world.clock, w.random, {});
  REQUIRE(again.ok());
  std::set<std::string> different;
  for (const auto& [name, salt] : salts) {
    CHECK(field((*again)->desk().login_record(name).salt.view()) == salt);
    different.insert(salt);
  }
  CHECK(different.size() == salts.size());
}

TEST_CASE("only_guesses_count_not_logins_that_were_right") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  const auto key = w.login_key("ann", "correct horse");
  const auto guess = crypto::SecretSigner::from_seed(crypto::SecretKey::random(w.random));
  const auto guessed = [&] { return w.send(w.request("ann", guess, w.here())).error_code(); };
  // A busy host.
  for (std::size_t i = 0; i < 5 * access::kGuessesPerMinute; ++i)
    REQUIRE(w.send(w.request("ann", key, w.here())).ok());
  // Right ones in between win nobody another guess.
  for (std::size_t i = 0; i < access::kGuessesPerMinute; ++i) {
    CHECK(guessed() == grpc::StatusCode::PERMISSION_DENIED);
    if (i + 1 < access::kGuessesPerMinute) CHECK(w.send(w.request("ann", key, w.here())).ok());
  }
  CHECK(guessed() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  w.world.clock.advance(std::chrono::seconds(61));
  CHECK(w.send(w.request("ann", key, w.here())).ok());
}

TEST_CASE("ten_guesses_from_one_place_whatever_names_and_machines_are_given") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  const auto laptop = make_machine(w.org, "laptop", w.random);
  w.tell(laptop.certificate());
  const auto guess = crypto::SecretSigner::from_seed(crypto::SecretKey::random(w.random));
  const auto one = [&](const std::string& name, const MachineId& machine, bool proved) {
    LoginContext context = w.here();
    context.machine = machine;
    auto request = w.request(name, guess, context);
    if (!machine.is_zero()) request.set_machine(field(machine.view()));
    if (proved)
      request.set_machine_signature(field(sign_machine_login(context, laptop.sign).view()));
    return w.send(request).error_code();
  };
  SECTION("names are changed") {
    for (std::size_t i = 0; i < access::kGuessesPerMinute; ++i)
      CHECK(one("user" + std::to_string(i), {}, false) == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(one("another", {}, false) == grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  SECTION("and machines are made up, which is no way out") {
    for (std::size_t i = 0; i < access::kGuessesPerMinute; ++i)
      CHECK(one("user" + std::to_string(i), w.random.id<MachineId>(), false) ==
            grpc::StatusCode::PERMISSION_DENIED);
    CHECK(one("another", w.random.id<MachineId>(), false) == grpc::StatusCode::RESOURCE_EXHAUSTED);
    // Nor does it shut the door of a machine that only was named.
    CHECK(one("another", laptop.machine, true) == grpc::StatusCode::PERMISSION_DENIED);
  }
  SECTION("an enrolled machine has ten of its own") {
    for (std::size_t i = 0; i < access::kGuessesPerMinute; ++i)
      CHECK(one("user" + std::to_string(i), laptop.machine, true) ==
            grpc::StatusCode::PERMISSION_DENIED);
    CHECK(one("another", laptop.machine, true) == grpc::StatusCode::RESOURCE_EXHAUSTED);
    CHECK(one("another", {}, false) == grpc::StatusCode::PERMISSION_DENIED);
  }
}

// test_access "[.measure]": not judged, for time is the machine's.
TEST_CASE("no_flood_of_guesses_locks_everybody_out_for_ever") {
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  access::LoginDesk& desk = w.world.control->desk();
  const auto guess = [&](int number, int place) {
    const access::Peer peer{"ipv4:place" + std::to_string(place) + ":1", {}};
    return desk.recovery_record("user" + std::to_string(number), peer).ok();
  };
  int taken = 0;
  SECTION("from one place") {
    for (int i = 0; i < 100'100; ++i) taken += guess(i, 0) ? 1 : 0;
    CHECK(taken == access::kGuessesPerMinute);
    CHECK(guess(0, 1));
  }
  SECTION("from more places than are remembered") {
    for (int i = 0; i < 50'100; ++i) taken += guess(i, i) ? 1 : 0;
    CHECK(taken == 50'000);
    w.world.clock.advance(std::chrono::seconds(61));
    CHECK(guess(60'000, 60'000));
  }
}

TEST_CASE("time_of_a_wrong_passphrase_and_of_an_unknown_name", "[.measure]") {
  constexpr int kRounds = 200;
  LoginWorld w;
  REQUIRE(w.init(kSecret).ok());
  const auto guess = crypto::SecretSigner::from_seed(crypto::SecretKey::random(w.random));
  std::map<std::string, std::map<std::string, std::vector<double>>> took;
  const auto timed = [](const auto& work) {
    const auto from = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - from)
        .count();
  };
  for (int i = 0; i < kRounds + 20; ++i) {
    std::vector<std::string> names = {"ann", "zoe"};
    if (i % 2 == 1) std::swap(names[0], names[1]);
    for (const std::string& name : names) {
      w.world.clock.advance(std::chrono::seconds(61));
      const double record = timed([&] { (void)w.login_record(name); });
      const auto request = w.request(name, guess, w.here());
      const double login = timed([&] { (void)w.send(request); });
      if (i < 20) continue;  // warm
      took["GetLoginRecord"][name].push_back(record);
      took["LoginUser"][name].push_back(login);
    }
  }
  for (const auto& [call, by_name] : took) {
    const auto& known = by_name.at("ann");
    const auto& unknown = by_name.at("zoe");
    std::printf(
        "%s, %d each, interleaved: wrong passphrase %.1f us, unknown name %.1f us (medians); "
        "Mann-Whitney z %.2f\n",
        call.c_str(), kRounds, median(known), median(unknown), mann_whitney_z(known, unknown));
  }
}
