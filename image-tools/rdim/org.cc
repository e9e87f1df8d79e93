// rdim init-org, rdim org: the organisation, its log and its policy.
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "common/client/passphrase.h"
#include "common/trust/record.h"
#include "image-tools/rdim/people_text.h"
#include "image-tools/rdim/root_key.h"
#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

using namespace trust;

struct InitOptions {
  std::string bootstrap;
  std::string name;
  std::string user = "admin";
};

// The first records, signed by the root key.
struct Founding {
  std::optional<OrgLog> log;
  std::vector<Bytes> records;
};
Result<Founding> found(const crypto::SecretSigner& root, const std::string& name,
                       const std::vector<Body>& bodies) {
  Founding out;
  const OrgId org = org_of(root.public_key);
  const std::uint64_t now = client::unix_now_s();
  OrgInit init{root.public_key, system_random().id<DomainId>(), name};
  const LogRecord first = make_record(org, nullptr, now, init, root);
  DIMS_ASSIGN(out.log, OrgLog::open(org, {first.bytes}));
  out.records.push_back(first.bytes);
  for (const Body& body : bodies) {
    const Position at = out.log->position();
    const LogRecord record = make_record(org, &at, now, body, root);
    DIMS_TRY(out.log->append(record.bytes, at));
    out.records.push_back(record.bytes);
  }
  return out;
}

Status init_org(Session& session, const InitOptions& options) {
  DIMS_TRY(check_name("the organisation's name", options.name));
  DIMS_TRY(check_name("the administrator's name", options.user));
  DIMS_ASSIGN(const RememberedPlace here, remembered_place(session.options.server));
  if (!here.place.org.is_zero()) {
    return make_error(ErrorCode::kAlreadyExists,
                      here.folder.path() + " belongs to an organisation already",
                      "set DIMS_CONFIG to another folder");
  }
  DIMS_ASSIGN(const crypto::SecretBytes text,
              client::read_line_of("+" + options.bootstrap, "The bootstrap secret"));
  const auto secret = Secret32::from_hex_text(text.text());
  if (!secret) {
    return make_error(ErrorCode::kInvalidArgument, options.bootstrap + " holds no bootstrap secret",
                      "name the file that 'rdim-server init' made");
  }
  DIMS_ASSIGN(const auto access,
              client::AccessClient::connect(here.place.server, here.place.known_servers));
  DIMS_ASSIGN(const LoginContext context, access->challenge());
  if (!context.org.is_zero()) {
    return make_error(ErrorCode::kAlreadyExists, "the server has an organisation already",
                      "ask its administrator for a join line");
  }
  DIMS_ASSIGN(const crypto::SecretBytes passphrase,
              client::read_passphrase(session.options.people.passphrase,
                                      "New passphrase of " + options.user, true));

  const crypto::SecretSigner root =
      crypto::SecretSigner::from_seed(crypto::SecretKey::random(system_random()));
  const OrgId org = org_of(root.public_key);
  DIMS_ASSIGN(NewUser admin, make_user(org, system_random().id<UserId>(), options.user,
                                       passphrase.view(), {}, system_random()));
  DIMS_ASSIGN(Founding founding,
              found(root, options.name,
                    {certificate_of(admin.secrets, options.user, Role::kAdministrator)}));
  // The organisation's domain, of which the administrator is the first writer.
  const crypto::SecretKey domain = crypto::SecretKey::random(system_random());
  const ScopeId scope = scope_id(founding.log->state().init().domain);
  KeyEpoch epoch;
  epoch.scope = KeyScope::kDomain;
  epoch.id = scope;
  epoch.epoch = 1;
  epoch.commitment = epoch_commitment(KeyScope::kDomain, scope, 1, domain.key());
  const Position at = founding.log->position();
  const LogRecord record = make_record(org, &at, client::unix_now_s(), epoch, admin.secrets.sign);
  DIMS_TRY(founding.log->append(record.bytes, at));
  founding.records.push_back(record.bytes);
  DIMS_ASSIGN(const Bytes grant,
              make_grant(founding.log->state(), KeyScope::kDomain, scope, 1, domain.key(),
                         admin.secrets.user, admin.secrets.user, admin.secrets.sign));

  const std::string server = pinned_address(here.place.server, context.server);
  // Before the server knows of it: an organisation whose root key is lost cannot be mended.
  // Words are shown before it, too.
  Json json;
  DIMS_TRY(keep_root_key(session.output, here.folder, root, json));
  session.output.note("Recovery words of '" + options.user + "', shown this once:");
  session.output.note("  " + std::string(admin.words.text()));
  DIMS_TRY(access->init_org(secret->view(), founding.records, encode_user_record(admin.record),
                            {grant}));
  DIMS_TRY(here.folder.save({server, org, founding.records}));

  json["organisation"] = options.name;
  json["id"] = org.hex();
  json["server"] = server;
  json["user"] = options.user;
  json["recovery_words"] = std::string(admin.words.text());
  session.output.document(json);
  session.output.text("made organisation '" + options.name + "' with administrator '" +
                      options.user + "'");
  session.output.table({{"organisation", org.hex()}, {"server", server}});
  return ok_status();
}

Status log(Session& session) {
  DIMS_ASSIGN(People* const people, session.people());
  const OrgLog& known = people->member().log;
  Json json;
  json["organisation"] = known.state().init().name;
  json["id"] = known.state().org().hex();
  json["records"] = Json::array();
  std::vector<std::vector<std::string>> rows = {{"RECORD", "TIME", "WHAT", "ABOUT", "BY"}};
  for (std::uint64_t seq = 0; seq < known.size(); ++seq) {
    DIMS_ASSIGN(const LogRecord record, decode_record(known.record(seq)));
    const std::string what(record_kind_name(record.kind()));
    const std::string about = about_of(known.state(), record);
    const std::string by = signer_text(known.state(), record.signer);
    json["records"].push_back({{"seq", seq},
                               {"time", json_of_time(record.time_unix_s * 1'000'000'000)},
                               {"what", what},
                               {"about", about},
                               {"by", by},
                               {"hash", record.hash.hex()}});
    rows.push_back(
        {std::to_string(seq), text_of_time(record.time_unix_s * 1'000'000'000), what, about, by});
  }
  session.output.document(json);
  session.output.table(rows);
  return ok_status();
}

struct PolicyOptions {
  std::string offline_login, escrow, offline_age, session_length;
  int offline_users = -1;
};

Status policy(Session& session, const PolicyOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  Policy wanted = member.org().policy();
  const Policy before = wanted;
  if (!options.offline_login.empty()) wanted.offline_login = options.offline_login == "yes";
  if (!options.escrow.empty()) wanted.escrow = options.escrow == "yes";
  if (options.offline_users >= 0)
    wanted.offline_users = static_cast<std::uint32_t>(options.offline_users);
  const auto seconds = [](const std::string& text, std::uint64_t& out) -> Status {
    if (text.empty()) return ok_status();
    DIMS_ASSIGN(const auto duration, parse_duration(text));
    out = static_cast<std::uint64_t>(duration.count() / 1000);
    return ok_status();
  };
  DIMS_TRY(seconds(options.offline_age, wanted.offline_max_age_s));
  DIMS_TRY(seconds(options.session_length, wanted.session_max_s));
  const bool changes = !(encode_body(Body(wanted)) == encode_body(Body(before)));
  if (changes) {
    DIMS_TRY(member.append(
        [&](const OrgState&) -> Result<std::vector<Body>> { return std::vector<Body>{wanted}; }));
    DIMS_TRY(people->remember());
  }
  Json json;
  json["offline_login"] = wanted.offline_login;
  json["offline_users"] = wanted.offline_users;
  json["offline_max_age_s"] = wanted.offline_max_age_s;
  json["session_max_s"] = wanted.session_max_s;
  json["escrow"] = wanted.escrow;
  session.output.document(json);
  const auto yes = [](bool on) { return std::string(on ? "yes" : "no"); };
  session.output.table({{"offline login", yes(wanted.offline_login)},
                        {"offline users", std::to_string(wanted.offline_users)},
                        {"offline max age", std::to_string(wanted.offline_max_age_s) + " s"},
                        {"session max", std::to_string(wanted.session_max_s) + " s"},
                        {"escrow", yes(wanted.escrow)}});
  return ok_status();
}

}  // namespace

void add_organisation_commands(CLI::App& app, Command& run) {
  CLI::App* const init =
      app.add_subcommand("init-org", "Make the organisation of a new server, once");
  init->fallthrough();
  const auto options = std::make_shared<InitOptions>();
  init->add_option("--bootstrap", options->bootstrap, "The file that 'rdim-server init' made")
      ->required();
  init->add_option("--name", options->name, "The organisation's name")->required();
  init->add_option("--admin", options->user, "The first administrator's name")
      ->capture_default_str();
  init->callback([options, &run] {
    run = [options](Session& session) { return finish(session, init_org(session, *options)); };
  });

  CLI::App* const group = app.add_subcommand("org", "The organisation's log and policy");
  group->require_subcommand(1);
  group->fallthrough();
  CLI::App* const shown = group->add_subcommand("log", "Every record, checked");
  shown->fallthrough();
  shown->callback([&run] { run = [](Session& session) { return finish(session, log(session)); }; });
  add_rescue_command(*group, run);
  add_joins_command(*group, run);
  CLI::App* const rules = group->add_subcommand("policy", "Show the policy, or change it");
  rules->fallthrough();
  const auto change = std::make_shared<PolicyOptions>();
  const auto yes_no = CLI::IsMember({"yes", "no"});
  rules->add_option("--offline-login", change->offline_login, "Without the server: yes or no")
      ->check(yes_no);
  rules->add_option("--offline-users", change->offline_users, "How many a machine remembers")
      ->check(CLI::Range(0, 64));
  rules->add_option("--offline-max-age", change->offline_age,
                    "How long after a login with the server, e.g. 720h");
  rules->add_option("--session-max", change->session_length, "How long a session may last");
  rules
      ->add_option("--escrow", change->escrow,
                   "Keys of all images, private ones too, are granted to administrators")
      ->check(yes_no);
  rules->callback([change, &run] {
    run = [change](Session& session) { return finish(session, policy(session, *change)); };
  });
}

}  // namespace dims::rdim
