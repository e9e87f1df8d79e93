// The real rdim before a server that lies about images, their domains and heads. Names:
// situation_outcome.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "tests/contract/hostile_world.h"

using namespace dims;
using namespace dims::test;
using trust::Access;
using trust::KeyScope;

namespace {

// Carol at her desk.
struct Desk {
  HostileWorld w;
  std::string home = w.folder.path + "/home", output = w.folder.path + "/output";

  Desk() {
    std::filesystem::create_directories(home);
    std::ofstream(home + "/secret") << HostileWorld::kPassphrase << "\n";
    std::filesystem::permissions(home + "/secret", std::filesystem::perms(0600));
    require_exit(0, {"login", "carol", "--passphrase", "+" + home + "/secret"});
  }
  // Its exit code; what it printed is in `said`.
  int rdim(std::vector<std::string> words) {
    // Log records are of about now; the fixture has let minutes pass.
    w.world->clock.advance(system_clock().wall() - w.world->clock.wall());
    words.insert(words.begin(), DIMS_RDIM);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::vector<std::string> settings{"DIMS_CONFIG=" + home, "HOME=" + home,
                                      "XDG_RUNTIME_DIR=" + home,
                                      "RDIM_SERVER=" + w.proxy->address()};
    for (char** one = environ; *one != nullptr; ++one)
      if (std::string_view(*one).find("SAN_OPTIONS=") != std::string_view::npos)
        settings.emplace_back(*one);
    std::vector<char*> envp;
    for (std::string& one : settings) envp.push_back(one.data());
    envp.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, output.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    pid_t pid = 0;
    const int rc = posix_spawn(&pid, argv[0], &files, nullptr, argv.data(), envp.data());
    posix_spawn_file_actions_destroy(&files);
    REQUIRE(rc == 0);
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    std::ifstream in(output);
    said = {std::istreambuf_iterator<char>(in), {}};
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void require_exit(int code, const std::vector<std::string>& words) {
    const int got = rdim(words);
    INFO(said);
    REQUIRE(got == code);
  }
  void say(const trust::Body& body, const crypto::SecretSigner& signer) {
    w.f.say(body, signer);
    access::OrgBook& book = w.world->control->book();
    REQUIRE(book.append(book.position(), {w.f.records.back()}).ok());
  }
  std::optional<trust::Epoch> epoch(KeyScope scope, const trust::ScopeId& id) {
    return w.world->control->book().with([&](const trust::OrgState& org) {
      const trust::Epoch* const found = org.epoch(scope, id);
      return found == nullptr ? std::optional<trust::Epoch>{} : std::optional<trust::Epoch>(*found);
    });
  }
  std::string said;
};

}  // namespace

TEST_CASE("anothers_image_is_said_to_be_of_ones_private_domain_and_he_gets_no_key_of_it") {
  Desk d;
  const trust::UserSecrets &bob = d.w.f.bob, &carol = d.w.carol.secrets;
  const auto domain = trust::scope_id(carol.private_domain);
  // Bob's own, which carol may read.
  const ImageId his = d.w.random.id<ImageId>();
  d.say(trust::ImageAcl{his, bob.user, Access::kAdmin}, bob.sign);
  d.say(d.w.f.epoch(KeyScope::kImage, trust::scope_id(his), 1), bob.sign);
  d.say(trust::ImageAcl{his, carol.user, Access::kRead}, bob.sign);
  d.w.make_image(his, "bobs", bob.private_domain, bob);
  const auto lie = [&](const ImageId& image) {
    d.w.proxy->set_liar([&, image](const PassingReply& reply) {
      if (reply.method != "ListImages") return Told{{reply.message}, {}};
      auto list = parsed<v1::ListImagesReply>(reply.message);
      for (auto& one : *list.mutable_images())
        if (one.id() == field(image.view())) one.set_domain(field(carol.private_domain.view()));
      return Told{{list.SerializeAsString()}, {}};
    });
  };
  const std::vector<std::string> login{"login", "carol", "--passphrase", "+" + d.home + "/secret"};
  lie(his);
  d.require_exit(0, login);
  CHECK(!d.epoch(KeyScope::kDomain, domain));
  // The organisation's, which carol wrote and bob may write.
  lie(d.w.common);
  d.require_exit(0, login);
  CHECK(!d.epoch(KeyScope::kDomain, domain));
  // One of hers that he may write: he needs the key.
  d.w.proxy->honest();
  d.say(trust::ImageAcl{d.w.scratch, bob.user, Access::kWrite}, carol.sign);
  d.require_exit(0, login);
  CHECK(d.epoch(KeyScope::kDomain, domain));
}

TEST_CASE("the_server_lies_about_the_head_when_new_keys_begin_and_none_begin") {
  Desk d;
  const auto scope = trust::scope_id(d.w.scratch);
  const auto head = d.w.world->catalog->get_image(d.w.scratch);
  REQUIRE(head.ok());
  const auto lie = [&](const std::function<void(v1::Image&)>& bend) {
    d.w.proxy->set_liar([&, bend](const PassingReply& reply) {
      if (reply.method != "GetImage") return Told{{reply.message}, {}};
      auto image = parsed<v1::Image>(reply.message);
      if (image.id() == field(d.w.scratch.view())) bend(image);
      return Told{{image.SerializeAsString()}, {}};
    });
  };
  const auto refused = [&] {
    const int code = d.rdim({"image", "rotate", "scratch"});
    INFO(d.said);
    CHECK(code != 0);
    CHECK(d.said.find("no new keys were begun") != std::string::npos);
  };
  const std::vector<std::function<void(v1::Image&)>> lies{
      [](v1::Image& image) { image.set_head_sequence(std::uint64_t{1} << 40); },
      [&](v1::Image& image) {
        const auto other = d.w.world->catalog->get_version(d.w.other, {}, 0);
        image.set_head(field(other->id.view()));
        image.set_head_sequence(other->record.sequence);
      }};
  for (const auto& bend : lies) {
    lie(bend);
    (void)d.rdim({"image", "rotate", "scratch"});
    INFO(d.said);
    CHECK(d.epoch(KeyScope::kImage, scope)->body.epoch == 1);
  }
  lie(lies.front());
  refused();
  d.w.proxy->honest();
  d.require_exit(0, {"image", "rotate", "scratch"});
  auto now = d.epoch(KeyScope::kImage, scope);
  CHECK(now->body.epoch == 2);
  CHECK(now->body.last_sequence == head->head_sequence);
  CHECK(now->body.last_version == head->head);
  // Said to have no version any more, or to be gone.
  lie([](v1::Image& image) {
    image.set_head("");
    image.set_head_sequence(0);
  });
  refused();
  d.w.proxy->set_interceptor(
      [](const std::string& method, const std::string& request) -> std::optional<Told> {
        if (method != "GetImage" || parsed<v1::GetImageRequest>(request).id().empty())
          return std::nullopt;
        return Told{{}, grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "access denied")};
      });
  d.w.proxy->set_liar({});
  (void)d.rdim({"image", "rotate", "scratch"});
  INFO(d.said);
  now = d.epoch(KeyScope::kImage, scope);
  CHECK(now->body.last_sequence == head->head_sequence);
  CHECK(now->body.last_version == head->head);
}

TEST_CASE("a_version_is_left_out_of_a_list_and_those_below_are_not_trusted") {
  Desk d;
  d.require_exit(0, {"version", "ls", "disk"});
  const auto second = d.w.world->catalog->get_version(d.w.disk, {}, 2);
  REQUIRE(second.ok());
  d.w.proxy->set_liar([&](const PassingReply& reply) {
    if (reply.method == "ListVersions" &&
        parsed<v1::Version>(reply.message).id() == field(second->id.view()))
      return Told{};
    return Told{{reply.message}, {}};
  });
  CHECK(d.rdim({"version", "ls", "disk"}) != 0);
  INFO(d.said);
  CHECK(d.said.find("is none that the one above it came from") != std::string::npos);
}
