#include "image-tools/rdim/user_keys.h"

#include <CLI/CLI.hpp>

#include <thread>

#include <spdlog/spdlog.h>

#include "common/base/parse.h"
#include "common/client/passphrase.h"
#include "common/crypto/hash.h"
#include "image-tools/rdim/keeper.h"
#include "image-tools/rdim/people_text.h"
#include "image-tools/rdim/root_key.h"

namespace dims::rdim {
namespace {

using namespace trust;

constexpr int kRenewTries = 5;
constexpr std::chrono::milliseconds kSendPause{500};

struct KeyOptions {
  std::string name;
  std::string fresh;  // where the new passphrase comes from
  std::string words;
  bool compromised = false;
};

// Every key that was granted to somebody, opened with his keys of now.
struct Opened {
  KeyScope scope;
  ScopeId id;
  std::uint32_t epoch;
  crypto::SecretKey secret;
};
Result<std::vector<Opened>> open_all_grants(client::Member& member) {
  std::vector<Opened> out;
  DIMS_ASSIGN(const auto all, member.access->grants(KeyScope{}, {}, {}));
  for (const Bytes& bytes : all) {
    const auto grant = decode_grant(bytes);
    if (!grant.ok()) continue;
    auto secret = open_grant(member.org(), bytes, member.secrets.user, member.secrets.box);
    if (secret.ok()) out.push_back({grant->scope, grant->id, grant->epoch, std::move(*secret)});
  }
  return out;
}

// The same for the new keys, in a log that knows them: by the user himself, for himself.
Result<std::vector<Bytes>> seal_anew(const OrgState& org, const std::vector<Opened>& opened,
                                     const UserSecrets& secrets) {
  std::vector<Bytes> out;
  for (const Opened& one : opened) {
    DIMS_ASSIGN(out.emplace_back(), make_grant(org, one.scope, one.id, one.epoch, one.secret.key(),
                                               secrets.user, secrets.user, secrets.sign));
  }
  return out;
}

bool is_lost(const Status& status) {
  return !status.ok() && (status.error().code == ErrorCode::kUnavailable ||
                          status.error().code == ErrorCode::kDeadlineExceeded);
}

// New record, its record of the log, and grants, in one step. If the answer is lost, the very same
// is sent again: the server knows it. One that was restarted meanwhile has forgotten the login, and
// the old keys log in no more if it has the new ones: then a login with the new ones shows it.
Status send_new_keys(Session& session, People& people, const NewUser& made, ByteView passphrase) {
  client::Member& member = people.member();
  DIMS_ASSIGN(const auto patience, parse_duration(session.options.server_wait));
  const auto until = system_clock().boottime() + patience;
  for (int attempt = 1;; ++attempt) {
    DIMS_ASSIGN(const std::vector<Opened> opened, open_all_grants(member));
    const Position at = member.log.position();
    const LogRecord change = make_record(member.org().org(), &at, client::unix_now_s(),
                                         key_change_of(made.secrets), member.secrets.sign);
    OrgState next = member.org();
    DIMS_TRY(next.apply(change));
    DIMS_ASSIGN(const std::vector<Bytes> grants, seal_anew(next, opened, made.secrets));
    const auto send = [&] {
      return member.access->put_user_record(encode_user_record(made.record), at, {change.bytes},
                                            grants);
    };
    Status sent = send();
    const bool lost = is_lost(sent);
    if (lost) spdlog::warn("{}; trying for {}", sent.error().message, session.options.server_wait);
    while (is_lost(sent) && system_clock().boottime() < until) {
      std::this_thread::sleep_for(kSendPause);
      sent = send();
    }
    if (sent.ok()) return member.log.extend({change.bytes});
    if (lost) {
      DIMS_ASSIGN(const RememberedPlace here, remembered_place(people.server()));
      auto fresh = client::login_user(here.place, member.name, passphrase);
      if (fresh.ok()) {
        member = std::move(*fresh);
        return ok_status();
      }
    }
    if (lost && sent.error().code != ErrorCode::kConflict) {
      return make_error(sent.error().code,
                        sent.error().message + ": it is not known whether it has the new keys",
                        "try again with the new passphrase; if it is refused, nothing has changed "
                        "and the old one and its words are good");
    }
    if (sent.error().code != ErrorCode::kConflict || attempt == kRenewTries) return sent;
    DIMS_TRY(member.refresh());
  }
}

// New keys in the log; what was granted to the old ones is granted to the new ones with them. From
// the first step on somebody can log in: with the old passphrase until the server has taken the
// new record, with the new one and its words, which he has seen by then, after it.
Status renew(Session& session, People& people, ByteView passphrase, Json& json) {
  client::Member& member = people.member();
  DIMS_ASSIGN(NewUser made,
              renew_user(member.record, member.secrets, passphrase, {}, system_random()));
  session.output.note("Recovery words of the new keys, shown this once, before they are sent:");
  session.output.note("  " + std::string(made.words.text()));
  session.output.note("Write them down and keep them apart. If this fails, the old ones stay.");
  DIMS_ASSIGN(const RememberedPlace here, remembered_place(people.server()));
  DIMS_TRY(reseal_root_key(session.output, here.folder, member.secrets, json));
  DIMS_TRY(send_new_keys(session, people, made, passphrase));
  member.secrets = made.secrets.clone();
  member.record = made.record;
  json["recovery_words"] = std::string(made.words.text());
  return people.remember();
}

// Another user's login, an administrator's, stays.
Status end_login_of(const UserId& user) {
  DIMS_ASSIGN(const std::string config, config_folder());
  const auto login = load_login(config, system_clock());
  return login.ok() && !(login->secrets.user == user) ? ok_status() : remove_login(config);
}

// What the old keys could open is not written with any more.
Status rotate_own(Session& session, People& people, Json& json) {
  const client::Member& member = people.member();
  std::vector<ImageId> own;
  for (const ImageId& image : member.org().images_of(member.secrets.user))
    if (member.org().access(member.secrets.user, image) == Access::kAdmin) own.push_back(image);
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  const auto report = Keeper(people, *remote).rotate(own, true);
  if (!report.ok()) {
    Error error = report.error();
    error.message = "the new passphrase and keys are good, but the images have the old keys yet: " +
                    error.message;
    error.hint = "'rdim login " + member.name + "' makes those that are due";
    return error;
  }
  print_report(session.output, json, *report);
  return ok_status();
}

Status passwd(Session& session, const KeyOptions& options) {
  if (!options.name.empty()) session.options.people.user = options.name;
  if (session.options.people.user.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "whose passphrase?",
                      "use 'rdim user passwd NAME': the old passphrase is asked for");
  }
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  DIMS_ASSIGN(const crypto::SecretBytes passphrase,
              client::read_passphrase(options.fresh, "New passphrase of " + member.name, true));
  Json json;
  json["user"] = member.name;
  json["new_keys"] = options.compromised;
  if (options.compromised) {
    DIMS_TRY(renew(session, *people, passphrase.view(), json));
    DIMS_TRY(end_login_of(member.secrets.user));
    DIMS_TRY(rotate_own(session, *people, json));
  } else {
    DIMS_ASSIGN(UserRecord record, change_passphrase(member.record, member.secrets,
                                                     passphrase.view(), {}, system_random()));
    DIMS_TRY(member.access->put_user_record(encode_user_record(record), {}, {}, {}));
    member.record = std::move(record);
    DIMS_TRY(end_login_of(member.secrets.user));
  }
  session.output.document(json);
  session.output.text("the passphrase of '" + member.name + "' is changed; log in with it");
  return ok_status();
}

// With the words of paper instead of the passphrase, on any machine: the server gives what they
// open to anybody. Whoever has the user's own key then is the user, and logs in with it in the
// passphrase's place; the whole record and the log are checked after that as at every login.
Status recover(Session& session, const KeyOptions& options) {
  DIMS_TRY(check_name("the user's name", options.name));
  DIMS_ASSIGN(RememberedPlace here, remembered_place(session.options.server));
  DIMS_ASSIGN(const auto access,
              client::AccessClient::connect(here.place.server, here.place.known_servers));
  DIMS_ASSIGN(const LoginContext context, access->challenge());
  if (context.org.is_zero() || (!here.place.org.is_zero() && !(context.org == here.place.org))) {
    return make_error(
        ErrorCode::kUntrusted,
        "the server " + here.place.server +
            (context.org.is_zero() ? " has no organisation" : " belongs to another organisation"),
        "check the server's address; DIMS_CONFIG names another folder");
  }
  here.place.org = context.org;
  DIMS_ASSIGN(const crypto::SecretBytes words,
              client::read_line_of(options.words, "Recovery words of " + options.name));
  DIMS_ASSIGN(const RecoveryRecord sealed, access->recovery_record(context.org, options.name));
  DIMS_ASSIGN(UserSecrets secrets, recover_user(sealed, words.text()));
  DIMS_ASSIGN(const crypto::SecretBytes passphrase,
              client::read_passphrase(options.fresh, "New passphrase of " + options.name, true));
  PassphraseKeys keys;
  keys.login = secrets.sign.clone();
  DIMS_ASSIGN(
      const client::Member member,
      client::resume_member(here.place, options.name, std::move(secrets), std::move(keys), {}));
  DIMS_ASSIGN(const UserRecord fresh, change_passphrase(member.record, member.secrets,
                                                        passphrase.view(), {}, system_random()));
  DIMS_TRY(member.access->put_user_record(encode_user_record(fresh), {}, {}, {}));
  DIMS_TRY(here.folder.save({pinned_address(here.place.server, context.server), context.org,
                             client::records_of(member.log)}));
  session.output.document(Json{{"user", options.name}, {"recovered", true}});
  session.output.text("'" + options.name + "' has a new passphrase; the words stay good");
  return ok_status();
}

}  // namespace

void add_user_key_commands(CLI::App& user, Command& run) {
  const auto options = std::make_shared<KeyOptions>();
  CLI::App* const changed = user.add_subcommand("passwd", "Another passphrase; no data is touched");
  changed->fallthrough();
  changed->add_option("NAME", options->name, "Whose; else --user");
  changed->add_option("--new-passphrase", options->fresh, "Where it comes from: -, +FILE, -FD");
  changed->add_flag("--compromised", options->compromised,
                    "Somebody may know the old one: new keys, and new epochs of your images");
  changed->callback([options, &run] {
    run = [options](Session& session) { return finish(session, passwd(session, *options)); };
  });

  CLI::App* const words = user.add_subcommand("recover", "A new passphrase, with recovery words");
  words->fallthrough();
  words->add_option("NAME", options->name, "Whose")->required();
  words->add_option("--words", options->words, "Where they come from: - (asked), +FILE, -FD");
  words->add_option("--new-passphrase", options->fresh, "Where it comes from: -, +FILE, -FD");
  words->callback([options, &run] {
    run = [options](Session& session) { return finish(session, recover(session, *options)); };
  });
}

}  // namespace dims::rdim
