// Enrolling and the machine's folder when answers are lost and files are damaged. Names:
// situation_outcome.
#include <fstream>

#include "common/trust/join_line.h"
#include "nbdkit-ldim/login/enroll.h"
#include "tests/contract/hostile_world.h"

using namespace dims;
using namespace dims::test;

namespace {

struct Joining {
  HostileWorld w;

  // Says what the administrator says, and gives a line for a machine.
  void say(const trust::Body& body) {
    w.f.say(body, w.f.admin.sign);
    access::OrgBook& book = w.world->control->book();
    REQUIRE(book.append(book.position(), {w.f.records.back()}).ok());
  }
  std::string line(const std::string& name) {
    trust::JoinLine out;
    out.address = w.proxy->address();
    out.org = w.f.org;
    out.for_machine = true;
    out.token = trust::make_join_token(w.random);
    say(trust::JoinKey{
        out.join_key().public_key, true, name, trust::Role::kUser, {}, w.f.now_s + 3600});
    out.position = w.f.log->position();
    return trust::encode_join_line(out);
  }
  void lose_answers(const std::string& method) {
    w.proxy->set_liar([method](const PassingReply& reply) {
      if (reply.method != method) return Told{{reply.message}, {}};
      return Told{{}, grpc::Status(grpc::StatusCode::UNAVAILABLE, "the line was cut")};
    });
  }
  std::size_t machines() {
    return w.world->control->book().with(
        [](const trust::OrgState& org) { return org.machines().size(); });
  }
  Result<ldim::Enrolled> enroll(const std::string& folder, const std::string& line) {
    w.next_minute();
    return ldim::enroll(folder, line, "", ldim::UseTpm::kNo);
  }
  void login_without_server(const std::string& folder) {
    w.proxy->set_away(true);
    const auto offline =
        ldim::log_in(HostileWorld::wish(folder, "disk"), as_bytes(HostileWorld::kPassphrase));
    INFO((offline.ok() ? "" : offline.error().to_string()));
    REQUIRE(offline.ok());
    CHECK(offline->offline);
    w.proxy->set_away(false);
  }
  static void write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    std::filesystem::permissions(path, std::filesystem::perms(0600));
  }
};

}  // namespace

TEST_CASE("the_answer_to_an_enrolment_is_lost_and_the_same_line_finishes_it") {
  Joining j;
  const std::string folder = j.w.folder.path + "/tablet", line = j.line("tablet");
  const std::size_t before = j.machines();
  j.lose_answers("Enroll");
  const auto lost = j.enroll(folder, line);
  REQUIRE(!lost.ok());
  INFO(lost.error().to_string());
  CHECK(lost.error().code == ErrorCode::kUnavailable);
  CHECK(j.machines() == before + 1);
  CHECK(!std::filesystem::exists(folder + "/machine"));
  j.w.proxy->honest();
  const auto again = j.enroll(folder, line);
  INFO((again.ok() ? "" : again.error().to_string()));
  REQUIRE(again.ok());
  CHECK(again->name == "tablet");
  CHECK(j.machines() == before + 1);
  CHECK(!std::filesystem::exists(folder + "/machine.new"));
  CHECK(j.w.login(folder, "disk").image == j.w.disk);
  // Elsewhere the line is spent.
  const auto elsewhere = j.enroll(folder + "2", line);
  REQUIRE(!elsewhere.ok());
  CHECK(elsewhere.error().code == ErrorCode::kPermissionDenied);
}

TEST_CASE("what_an_enrolment_left_that_the_server_never_heard_of_stops_no_other_one") {
  Joining j;
  const std::string folder = j.w.folder.path + "/tablet", first = j.line("tablet");
  j.w.proxy->set_interceptor(
      [](const std::string& method, const std::string&) -> std::optional<Told> {
        if (method != "Enroll") return std::nullopt;
        return Told{{}, grpc::Status(grpc::StatusCode::UNAVAILABLE, "the line was cut")};
      });
  REQUIRE(!j.enroll(folder, first).ok());
  REQUIRE(std::filesystem::exists(folder + "/machine.new"));
  j.w.proxy->honest();
  SECTION("the same line") { CHECK(j.enroll(folder, first)->name == "tablet"); }
  SECTION("another one") { CHECK(j.enroll(folder, j.line("slate"))->name == "slate"); }
  SECTION("a damaged file") {
    Joining::write(folder + "/machine.new", "MAC");
    CHECK(j.enroll(folder, first)->name == "tablet");
  }
  CHECK(j.w.login(folder, "disk").image == j.w.disk);
}

TEST_CASE("a_machine_is_enrolled_again_in_its_folder_and_its_users_log_in") {
  Joining j;
  const std::string folder = j.w.copy_folder(j.w.desk, "again");
  (void)j.w.login(folder, "disk");
  REQUIRE(std::filesystem::exists(folder + "/offline"));
  std::filesystem::remove(folder + "/machine");
  const auto enrolled = j.enroll(folder, j.line("again"));
  INFO((enrolled.ok() ? "" : enrolled.error().to_string()));
  REQUIRE(enrolled.ok());
  CHECK(!std::filesystem::exists(folder + "/offline"));
  CHECK(!std::filesystem::exists(folder + "/images"));
  CHECK(j.w.login(folder, "disk").image == j.w.disk);
  j.login_without_server(folder);
}

TEST_CASE("the_file_of_offline_logins_is_damaged_and_a_login_makes_it_anew") {
  Joining j;
  const std::string folder = j.w.copy_folder(j.w.desk, "again");
  for (const std::string& garbage : {std::string(), std::string("OFF1"), std::string(500, 'x')}) {
    Joining::write(folder + "/offline", garbage);
    CHECK(j.w.login(folder, "disk").image == j.w.disk);
    j.login_without_server(folder);
  }
}

TEST_CASE("the_list_of_caches_is_damaged_and_logins_and_wipes_go_on") {
  Joining j;
  const std::string folder = j.w.copy_folder(j.w.desk, "again");
  Joining::write(folder + "/caches", "x");
  auto wish = HostileWorld::wish(folder, "disk");
  wish.cache_folder = j.w.folder.path + "/cache";
  j.w.next_minute();
  const auto session = ldim::log_in(wish, as_bytes(HostileWorld::kPassphrase));
  INFO((session.ok() ? "" : session.error().to_string()));
  REQUIRE(session.ok());

  Joining::write(folder + "/caches", "x");
  REQUIRE(std::filesystem::exists(folder + "/offline"));
  j.say(trust::MachineWipe{j.w.f.desk.machine, true});
  j.w.next_minute();
  const auto wiped =
      ldim::log_in(HostileWorld::wish(folder, "disk"), as_bytes(HostileWorld::kPassphrase));
  REQUIRE(!wiped.ok());
  CHECK(wiped.error().message.find("erase") != std::string::npos);
  CHECK(!std::filesystem::exists(folder + "/offline"));
  CHECK(!std::filesystem::exists(folder + "/images"));
  CHECK(j.w.login(folder, "disk").image == j.w.disk);
}
