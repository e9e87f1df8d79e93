// rdim join, login, logout, whoami.
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "common/client/passphrase.h"
#include "common/trust/join_line.h"
#include "image-tools/rdim/keeper.h"
#include "image-tools/rdim/newcomer.h"
#include "image-tools/rdim/people_text.h"
#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

using namespace trust;

// The line itself, or where it comes from: it stands where a secret does.
Result<JoinLine> line_of(const std::string& given) {
  if (!given.starts_with('-') && !given.starts_with('+')) return parse_join_line(given);
  DIMS_ASSIGN(const crypto::SecretBytes text, client::read_line_of(given, "The join line"));
  return parse_join_line(text.text());
}

Status join(Session& session, const std::string& text) {
  DIMS_ASSIGN(const JoinLine line, line_of(text));
  if (line.for_machine) {
    return make_error(ErrorCode::kInvalidArgument, "this line is for a machine",
                      "use 'ldim enroll LINE' there");
  }
  DIMS_ASSIGN(const std::string config, config_folder());
  const client::OrgFolder folder(io::posix_file_system(), config);
  DIMS_ASSIGN(const auto known, folder.load());
  if (known && !(known->org == line.org)) {
    return make_error(ErrorCode::kAlreadyExists, config + " belongs to another organisation",
                      "set DIMS_CONFIG to another folder");
  }
  client::LoginPlace place;
  place.server = pinned_address(line.address, line.server);
  place.known_servers.path = client::user_known_servers();
  place.org = line.org;
  const crypto::SecretSigner key = line.join_key();
  const auto token = std::make_shared<client::LoginToken>(client::join_login(place, key));
  DIMS_ASSIGN(const auto access,
              client::AccessClient::connect(place.server, place.known_servers, token));
  DIMS_ASSIGN(OrgLog log,
              client::read_log(*access, line.org, known ? known->records : std::vector<Bytes>{}));
  if (!(log.state().hash_at(line.position.seq) == line.position.hash)) {
    return make_error(ErrorCode::kOtherHistory,
                      "the server's log is not the one that this line was made on",
                      "ask the administrator");
  }
  const Join* const wish = log.state().join(key.public_key);
  if (wish == nullptr || wish->status != JoinStatus::kOpen || wish->body.for_machine) {
    return make_error(ErrorCode::kPermissionDenied, "this join line was used or cancelled",
                      "ask the administrator for another");
  }
  const JoinKey body = wish->body;
  DIMS_ASSIGN(const crypto::SecretBytes passphrase,
              client::read_passphrase(session.options.people.passphrase,
                                      "New passphrase of " + body.name, true));
  DIMS_ASSIGN(const NewUser made,
              enroll_user(*access, log, {body.user, body.name, body.role}, passphrase.view(), key));
  DIMS_TRY(folder.save({place.server, line.org, client::records_of(log)}));
  Json json;
  json["user"] = body.name;
  json["role"] = std::string(role_name(body.role));
  json["organisation"] = log.state().init().name;
  json["server"] = place.server;
  json["recovery_words"] = std::string(made.words.text());
  session.output.document(json);
  session.output.text("you are '" + body.name + "' (" + std::string(role_name(body.role)) +
                      ") of '" + log.state().init().name + "'");
  print_words(session.output, made.words);
  return ok_status();
}

struct LoginOptions {
  std::string user;
  std::string lasts = "8h";
};

Status login(Session& session, const LoginOptions& options) {
  DIMS_ASSIGN(const auto lasts, parse_duration(options.lasts));
  session.options.people.user = options.user;
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  const std::uint64_t until =
      client::unix_now_s() + static_cast<std::uint64_t>(lasts.count() / 1000);
  DIMS_TRY(people->keep_login(until));
  const User* const user = member.org().user(member.secrets.user);
  Json json;
  json["user"] = user->name;
  json["role"] = std::string(role_name(user->role));
  json["organisation"] = member.org().init().name;
  json["server"] = people->server();
  json["until"] = json_of_time(until * 1'000'000'000);
  session.output.text("logged in as '" + user->name + "' until " +
                      text_of_time(until * 1'000'000'000));
  json["escrow"] = member.org().policy().escrow;
  if (member.org().policy().escrow)
    session.output.text(
        "administrators hold the keys of all images here, private ones too (escrow)");
  // Whoever joined meanwhile may wait for keys.
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const KeeperReport report, Keeper(*people, *remote).make_missing(nullptr));
  print_report(session.output, json, report);
  session.output.document(json);
  return ok_status();
}

Status logout(Session& session) {
  DIMS_ASSIGN(const std::string config, config_folder());
  DIMS_TRY(remove_login(config));
  session.output.document(Json{{"logged_in", false}});
  session.output.text("logged out");
  return ok_status();
}

}  // namespace

void add_login_commands(CLI::App& app, Command& run) {
  CLI::App* const joined = app.add_subcommand("join", "Become a user, with a join line");
  joined->fallthrough();
  const auto line = std::make_shared<std::string>();
  joined
      ->add_option("LINE", *line,
                   "What 'rdim user add' printed; or where it comes from: - (asked), +FILE, -FD")
      ->required();
  joined->callback([line, &run] {
    run = [line](Session& session) { return finish(session, join(session, *line)); };
  });

  CLI::App* const in = app.add_subcommand("login", "Log in for the commands that follow");
  in->fallthrough();
  const auto options = std::make_shared<LoginOptions>();
  in->add_option("USER", options->user, "Who")->required();
  in->add_option("--lasts", options->lasts, "For how long")->capture_default_str();
  in->callback([options, &run] {
    run = [options](Session& session) { return finish(session, login(session, *options)); };
  });

  CLI::App* const out = app.add_subcommand("logout", "Forget the login");
  out->fallthrough();
  out->callback(
      [&run] { run = [](Session& session) { return finish(session, logout(session)); }; });
}

}  // namespace dims::rdim
