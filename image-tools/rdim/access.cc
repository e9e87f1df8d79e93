// rdim image access, grant, revoke, rotate: who may do what with an image, and has its keys.
#include <CLI/CLI.hpp>

#include <algorithm>

#include "image-tools/rdim/keeper.h"
#include "image-tools/rdim/people_text.h"
#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

using namespace trust;

struct AccessOptions {
  std::string image, user;
  std::string access = "read";
  bool all = false;
};

Result<UserId> whom(const OrgState& org, const std::string& name) {
  if (name == "everyone") return kEveryone;
  DIMS_ASSIGN(const User user, user_named(org, name));
  return user.id;
}

Status set_access(People& people, const ImageId& image, const UserId& user, Access access) {
  DIMS_TRY(people.member().append([&](const OrgState&) -> Result<std::vector<Body>> {
    return std::vector<Body>{ImageAcl{image, user, access}};
  }));
  return people.remember();
}

Status grant(Session& session, const AccessOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  Keeper keeper(*people, *remote);
  Json json;
  if (options.all) {
    DIMS_ASSIGN(const KeeperReport report, keeper.make_missing(nullptr));
    print_report(session.output, json, report);
    session.output.document(json);
    return ok_status();
  }
  if (options.image.empty() || options.user.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "an image and a user are missing",
                      "use 'rdim image grant NAME USER read|write|admin', or --all");
  }
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.image));
  DIMS_ASSIGN(const UserId user, whom(people->member().org(), options.user));
  DIMS_ASSIGN(const Access access, parse_access(options.access));
  DIMS_TRY(set_access(*people, image.id, user, access));
  DIMS_ASSIGN(const KeeperReport report, keeper.make_missing(&image.id));
  json["image"] = image.name;
  json["user"] = options.user;
  json["access"] = options.access;
  session.output.text("'" + options.user + "' may " + options.access + " '" + image.name + "'");
  print_report(session.output, json, report);
  session.output.document(json);
  return ok_status();
}

Status revoke(Session& session, const AccessOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.image));
  DIMS_ASSIGN(const UserId user, whom(people->member().org(), options.user));
  // New keys make everybody log in again: not for a slip of the pen.
  const auto list = people->member().org().image_list(image.id);
  const auto line =
      std::find_if(list.begin(), list.end(), [&](const ImageAcl& one) { return one.user == user; });
  const bool listed = line != list.end();
  // One that was cut off after it had changed the list is done by the next.
  if (!listed && !people->member().org().image_keys_due(image.id)) {
    return make_error(
        ErrorCode::kNotFound,
        "'" + options.user + "' has no access of his own to '" + image.name + "'",
        "'rdim image access " + image.name + "' shows who has; 'rdim image rotate' makes new keys");
  }
  KeeperReport report;
  if (listed) {
    const bool wrote = line->access >= Access::kWrite;
    DIMS_TRY(set_access(*people, image.id, user, Access::kNone));
    DIMS_ASSIGN(report, Keeper(*people, *remote).rotate({image.id}, wrote));
  } else {
    DIMS_ASSIGN(report, Keeper(*people, *remote).make_missing(&image.id));
  }
  Json json;
  json["image"] = image.name;
  json["user"] = options.user;
  json["access"] = "none";
  session.output.text("'" + options.user + "' has no access to '" + image.name +
                      "' any more; what he read before he may have kept");
  print_report(session.output, json, report);
  session.output.document(json);
  return ok_status();
}

Status rotate(Session& session, const AccessOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.image));
  DIMS_ASSIGN(const KeeperReport report, Keeper(*people, *remote).rotate({image.id}, true));
  Json json;
  json["image"] = image.name;
  session.output.text("'" + image.name + "' is written with new keys from now on");
  print_report(session.output, json, report);
  session.output.document(json);
  return ok_status();
}

Status show(Session& session, const AccessOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.image));
  const OrgState& org = people->member().org();
  Json json;
  json["image"] = image.name;
  json["access"] = Json::array();
  std::vector<std::vector<std::string>> rows = {{"USER", "ACCESS"}};
  for (const ImageAcl& line : org.image_list(image.id)) {
    const std::string user = user_text(org, line.user);
    const std::string access(access_name(line.access));
    json["access"].push_back({{"user", user}, {"access", access}});
    rows.push_back({user, access});
  }
  session.output.document(json);
  session.output.table(rows);
  return ok_status();
}

}  // namespace

void add_access_commands(CLI::App& image, Command& run) {
  const auto options = std::make_shared<AccessOptions>();
  const auto add = [&](const char* name, const char* text,
                       Status (*body)(Session&, const AccessOptions&)) {
    CLI::App* const command = image.add_subcommand(name, text);
    command->fallthrough();
    command->callback([options, body, &run] {
      run = [options, body](Session& session) { return finish(session, body(session, *options)); };
    });
    return command;
  };
  CLI::App* const granted = add("grant", "Let a user read, write or administer an image", grant);
  granted->add_option("NAME", options->image, "Which image");
  granted->add_option("USER", options->user, "Whom; or 'everyone'");
  granted->add_option("ACCESS", options->access, "read, write or admin")
      ->capture_default_str()
      ->check(CLI::IsMember({"read", "write", "admin"}));
  granted->add_flag("--all", options->all, "Only make grants that are missing, of all images");
  CLI::App* const revoked = add("revoke", "Take it away; begins new keys for what comes", revoke);
  revoked->add_option("NAME", options->image, "Which image")->required();
  revoked->add_option("USER", options->user, "Whose")->required();
  add("rotate", "New keys for what comes", rotate)
      ->add_option("NAME", options->image, "Which image")
      ->required();
  add("access", "Who may do what with it", show)
      ->add_option("NAME", options->image, "Which image")
      ->required();
}

}  // namespace dims::rdim
