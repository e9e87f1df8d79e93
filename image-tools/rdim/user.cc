// rdim user add, ls, info, role, disable, enable, rm.
#include <algorithm>
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "image-tools/rdim/keeper.h"
#include "image-tools/rdim/people_text.h"
#include "image-tools/rdim/session.h"
#include "image-tools/rdim/user_keys.h"

namespace dims::rdim {
namespace {

using namespace trust;

struct AddOptions {
  std::string name;
  std::string role = "user";
  std::string lasts = "168h";
};

Status add(Session& session, const AddOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  JoinWish wish;
  wish.name = options.name;
  DIMS_ASSIGN(wish.role, parse_role(options.role));
  DIMS_ASSIGN(const auto lasts, parse_duration(options.lasts));
  wish.lasts_s = static_cast<std::uint64_t>(lasts.count() / 1000);
  DIMS_ASSIGN(const std::string line, make_join_line(*people, wish));
  Json json;
  json["user"] = options.name;
  json["role"] = options.role;
  json["join_line"] = line;
  session.output.document(json);
  session.output.text("give '" + options.name + "' this line, on a way that nobody else reads:");
  session.output.text(line);
  return ok_status();
}

// Only administrators and operators are told when somebody was last here.
std::map<UserId, client::SeenUser> seen_users(client::Member& member) {
  std::map<UserId, client::SeenUser> out;
  const auto seen = member.access->list_users();
  if (!seen.ok()) return out;
  for (const client::SeenUser& one : *seen) out[one.user] = one;
  return out;
}

Json json_of(const User& user, const std::map<UserId, client::SeenUser>& seen) {
  Json json;
  json["name"] = user.name;
  json["id"] = user.id.hex();
  json["role"] = std::string(role_name(user.role));
  json["status"] = std::string(status_name(user.status));
  json["sign_key"] = user.keys.sign_key.hex();
  const auto found = seen.find(user.id);
  json["last_login"] = found == seen.end()
                           ? Json(nullptr)
                           : json_of_time(found->second.last_login_unix_s * 1'000'000'000);
  json["used_bytes"] = found == seen.end() ? Json(nullptr) : Json(found->second.used_bytes);
  json["images"] = found == seen.end() ? Json(nullptr) : Json(found->second.images);
  return json;
}

Status list_users(Session& session) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  const auto seen = seen_users(member);
  Json json;
  json["users"] = Json::array();
  std::vector<std::vector<std::string>> rows = {{"NAME", "ROLE", "STATUS", "LAST LOGIN"}};
  for (const User* const user : member.org().users()) {
    json["users"].push_back(json_of(*user, seen));
    const auto found = seen.find(user->id);
    rows.push_back(
        {user->name, std::string(role_name(user->role)), std::string(status_name(user->status)),
         found == seen.end() ? std::string("-")
                             : text_of_time(found->second.last_login_unix_s * 1'000'000'000)});
  }
  json["waiting"] = Json::array();
  for (const Join* const join : member.org().joins()) {
    if (join->status != JoinStatus::kOpen || join->body.for_machine) continue;
    json["waiting"].push_back(join->body.name);
    rows.push_back({join->body.name, std::string(role_name(join->body.role)),
                    std::string("has a join line"), std::string("-")});
  }
  session.output.document(json);
  session.output.table(rows);
  return ok_status();
}

Status info(Session& session, const std::string& name) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  DIMS_ASSIGN(const User user, user_named(member.org(), name));
  Json json = json_of(user, seen_users(member));
  json["access"] = Json::array();
  std::vector<std::vector<std::string>> rows = {{"user", user.name},
                                                {"id", user.id.hex()},
                                                {"role", std::string(role_name(user.role))},
                                                {"status", std::string(status_name(user.status))},
                                                {"key", user.keys.sign_key.hex()}};
  for (const ImageId& image : member.org().images_of(user.id)) {
    const std::string access(access_name(member.org().access(user.id, image)));
    json["access"].push_back({{"image", image.hex()}, {"access", access}});
    rows.push_back({"image " + image.short_hex(), access});
  }
  session.output.document(json);
  session.output.table(rows);
  return ok_status();
}

struct StateOptions {
  std::string name;
  std::string role;
  bool yes = false;
};

// Who is removed already, too: what a command that was cut off left undone is done by the next.
Result<User> user_known(const OrgState& org, const std::string& name, UserStatus wanted) {
  const User* removed = nullptr;
  for (const User* const user : org.users())
    if (user->name == name && user->status == UserStatus::kRemoved) removed = user;
  if (wanted == UserStatus::kRemoved && org.user_named(name) == nullptr && removed != nullptr)
    return *removed;
  return user_named(org, name);
}

Status set_state(Session& session, const StateOptions& options, UserStatus status) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  DIMS_ASSIGN(const User user, user_known(member.org(), options.name,
                                          options.role.empty() ? status : UserStatus::kActive));
  Role role = user.role;
  if (!options.role.empty()) {
    DIMS_ASSIGN(role, parse_role(options.role));
    status = user.status;
  }
  if (status == UserStatus::kRemoved && !options.yes) {
    return make_error(ErrorCode::kInvalidArgument, "user '" + user.name + "' was not removed",
                      "say --yes: a removed user cannot be brought back");
  }
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  const std::vector<ImageId> images = member.org().images_of(user.id);
  if (user.status != status || user.role != role) {
    DIMS_TRY(member.append([&](const OrgState&) -> Result<std::vector<Body>> {
      return std::vector<Body>{UserState{user.id, status, role}};
    }));
    DIMS_TRY(people->remember());
  }
  Json json;
  json["user"] = user.name;
  json["status"] = std::string(status_name(status));
  json["role"] = std::string(role_name(role));
  session.output.text("user '" + user.name + "' is " + std::string(status_name(status)) + ", " +
                      std::string(role_name(role)));
  // Whoever loses a right keeps the keys that he had: new ones for what comes. Who does not may
  // have to wait for his no longer.
  Keeper keeper(*people, *remote);
  KeeperReport report;
  if (status == UserStatus::kRemoved && user.status != status) {
    DIMS_ASSIGN(report, keeper.rotate(images, true));
  }
  // And what he had otherwise: as an administrator under escrow, or before he was disabled.
  DIMS_ASSIGN(const KeeperReport rest, keeper.make_missing(nullptr));
  report.grants += rest.grants;
  report.epochs += rest.epochs;
  report.left.insert(report.left.end(), rest.left.begin(), rest.left.end());
  std::sort(report.left.begin(), report.left.end());
  report.left.erase(std::unique(report.left.begin(), report.left.end()), report.left.end());
  print_report(session.output, json, report);
  session.output.document(json);
  return ok_status();
}

struct QuotaOptions {
  std::string name;
  std::string bytes, images, requests;  // empty: as it is; 0: no limit
};

// Shows it, or says another one in the log.
Status quota(Session& session, const QuotaOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  UserId id = kEveryone;
  if (options.name != "everyone") {
    DIMS_ASSIGN(const User user, user_named(member.org(), options.name));
    id = user.id;
  }
  Quota wanted = member.org().quota(id);
  wanted.user = id;
  const Quota before = wanted;
  if (!options.bytes.empty()) {
    DIMS_ASSIGN(wanted.bytes, parse_size(options.bytes));
  }
  const auto number = [](const std::string& text, std::uint32_t& out) -> Status {
    if (text.empty()) return ok_status();
    DIMS_ASSIGN(const std::uint64_t value, parse_size(text));
    out = static_cast<std::uint32_t>(std::min<std::uint64_t>(value, ~std::uint32_t{0}));
    return ok_status();
  };
  DIMS_TRY(number(options.images, wanted.images));
  DIMS_TRY(number(options.requests, wanted.requests_per_minute));
  if (!(encode_body(Body(wanted)) == encode_body(Body(before)))) {
    DIMS_TRY(member.append(
        [&](const OrgState&) -> Result<std::vector<Body>> { return std::vector<Body>{wanted}; }));
    DIMS_TRY(people->remember());
  }
  client::QuotaUse use;
  if (!(id == kEveryone)) {
    DIMS_ASSIGN(use, member.access->quota(id));
  }
  Json json = {{"user", options.name},         {"bytes", wanted.bytes},
               {"images", wanted.images},      {"requests_per_minute", wanted.requests_per_minute},
               {"used_bytes", use.used_bytes}, {"used_images", use.images}};
  session.output.document(json);
  const auto limit = [](std::uint64_t value, const std::string& text) {
    return value == 0 ? std::string("no limit") : text;
  };
  session.output.table(
      {{"stored", format_size(use.used_bytes), limit(wanted.bytes, format_size(wanted.bytes))},
       {"images", std::to_string(use.images), limit(wanted.images, std::to_string(wanted.images))},
       {"requests a minute", "",
        limit(wanted.requests_per_minute, std::to_string(wanted.requests_per_minute))}});
  return ok_status();
}

}  // namespace

void add_user_commands(CLI::App& app, Command& run) {
  CLI::App* const group = app.add_subcommand("user", "Users of the organisation");
  group->require_subcommand(1);
  group->fallthrough();

  CLI::App* const added = group->add_subcommand("add", "Print a join line for a new user");
  added->fallthrough();
  const auto wish = std::make_shared<AddOptions>();
  added->add_option("NAME", wish->name, "Who")->required();
  added->add_option("--role", wish->role, "user, operator or administrator")
      ->capture_default_str()
      ->check(CLI::IsMember({"user", "operator", "administrator"}));
  added->add_option("--lasts", wish->lasts, "How long the line is good")->capture_default_str();
  added->callback([wish, &run] {
    run = [wish](Session& session) { return finish(session, add(session, *wish)); };
  });

  CLI::App* const ls = group->add_subcommand("ls", "List them");
  ls->fallthrough();
  ls->callback(
      [&run] { run = [](Session& session) { return finish(session, list_users(session)); }; });

  const auto options = std::make_shared<StateOptions>();
  CLI::App* const shown = group->add_subcommand("info", "One user, and what he may do");
  shown->fallthrough();
  shown->add_option("NAME", options->name, "Who")->required();
  shown->callback([options, &run] {
    run = [options](Session& session) { return finish(session, info(session, options->name)); };
  });

  const auto change = [&](const char* name, const char* text, UserStatus status) {
    CLI::App* const command = group->add_subcommand(name, text);
    command->fallthrough();
    command->add_option("NAME", options->name, "Who")->required();
    command->callback([options, status, &run] {
      run = [options, status](Session& session) {
        return finish(session, set_state(session, *options, status));
      };
    });
    return command;
  };
  change("disable", "No login any more, until enabled again", UserStatus::kDisabled);
  change("enable", "Allow login again", UserStatus::kActive);
  change("rm", "Remove for good; begins new keys for what comes", UserStatus::kRemoved)
      ->add_flag("--yes", options->yes, "Do not ask");
  change("role", "Another role", UserStatus::kActive)
      ->add_option("ROLE", options->role, "user, operator or administrator")
      ->required()
      ->check(CLI::IsMember({"user", "operator", "administrator"}));

  const auto limits = std::make_shared<QuotaOptions>();
  CLI::App* const limited =
      group->add_subcommand("quota", "What a user may have; show it, or change it");
  limited->fallthrough();
  limited->add_option("NAME", limits->name, "Who; everyone: who has none of his own")->required();
  limited->add_option("--bytes", limits->bytes, "Stored in his private domain; 0: no limit");
  limited->add_option("--images", limits->images, "How many images; 0: no limit");
  limited->add_option("--requests", limits->requests, "Requests a minute; 0: no limit");
  limited->callback([limits, &run] {
    run = [limits](Session& session) { return finish(session, quota(session, *limits)); };
  });

  add_user_key_commands(*group, run);
}

}  // namespace dims::rdim
