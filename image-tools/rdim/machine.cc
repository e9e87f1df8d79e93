// rdim machine token, ls, revoke, wipe.
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "image-tools/rdim/people_text.h"
#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

using namespace trust;

struct MachineOptions {
  std::string name;
  std::string lasts = "24h";
  bool unsent_too = false;
  bool yes = false;
};

Status token(Session& session, const MachineOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  JoinWish wish;
  wish.for_machine = true;
  wish.name = options.name;
  DIMS_ASSIGN(const auto lasts, parse_duration(options.lasts));
  wish.lasts_s = static_cast<std::uint64_t>(lasts.count() / 1000);
  DIMS_ASSIGN(const std::string line, make_join_line(*people, wish));
  Json json;
  json["join_line"] = line;
  json["machine"] = options.name.empty() ? Json(nullptr) : Json(options.name);
  session.output.document(json);
  session.output.text("on the machine, as root: ldim enroll LINE, with this line, good once:");
  session.output.text(line);
  return ok_status();
}

Status list_machines(Session& session) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  std::map<MachineId, client::SeenMachine> seen;
  if (const auto told = member.access->list_machines(); told.ok())
    for (const client::SeenMachine& one : *told) seen[one.machine] = one;
  Json json;
  json["machines"] = Json::array();
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATUS", "LAST SEEN", "ADDRESS"}};
  for (const Machine* const machine : member.org().machines()) {
    const client::SeenMachine& here = seen[machine->id];
    const bool due = machine->wipe && here.wiped_seq < machine->wipe->seq;
    const std::string status = machine->wipe      ? (due ? "to be wiped" : "wiped")
                               : machine->revoked ? "revoked"
                                                  : "enrolled";
    json["machines"].push_back(
        {{"name", machine->name},
         {"id", machine->id.hex()},
         {"revoked", machine->revoked},
         {"wipe", machine->wipe ? Json(machine->wipe->seq) : Json(nullptr)},
         {"wiped", machine->wipe && !due},
         {"last_seen", json_of_time(here.last_seen_unix_s * 1'000'000'000)},
         {"address", here.last_address.empty() ? Json(nullptr) : Json(here.last_address)}});
    rows.push_back({machine->name, status, text_of_time(here.last_seen_unix_s * 1'000'000'000),
                    here.last_address.empty() ? std::string("-") : here.last_address});
  }
  session.output.document(json);
  session.output.table(rows);
  return ok_status();
}

Status say(Session& session, const MachineOptions& options, bool wipe) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  DIMS_ASSIGN(const Machine machine, machine_named(member.org(), options.name));
  if (options.unsent_too && !options.yes) {
    return make_error(ErrorCode::kInvalidArgument, "machine '" + machine.name + "' was not wiped",
                      "say --yes too: writes that are on no server would be lost");
  }
  DIMS_TRY(member.append([&](const OrgState&) -> Result<std::vector<Body>> {
    if (!wipe) return std::vector<Body>{MachineRevoke{machine.id}};
    return std::vector<Body>{MachineWipe{machine.id, !options.unsent_too}};
  }));
  DIMS_TRY(people->remember());
  Json json;
  json["machine"] = machine.name;
  json[wipe ? "wipe" : "revoked"] = true;
  session.output.document(json);
  session.output.text(
      wipe ? "machine '" + machine.name + "' erases its keys and caches at its next contact" +
                 (options.unsent_too ? ", unsent writes too" : "; unsent writes stay, sealed")
           : "machine '" + machine.name + "' is revoked: the server refuses it from now on");
  return ok_status();
}

}  // namespace

void add_machine_commands(CLI::App& app, Command& run) {
  CLI::App* const group = app.add_subcommand("machine", "Machines of the organisation");
  group->require_subcommand(1);
  group->fallthrough();
  const auto options = std::make_shared<MachineOptions>();

  CLI::App* const made = group->add_subcommand("token", "Print a join line for 'ldim enroll'");
  made->fallthrough();
  made->add_option("NAME", options->name, "The name that it must take; else its own choice");
  made->add_option("--lasts", options->lasts, "How long the line is good")->capture_default_str();
  made->callback([options, &run] {
    run = [options](Session& session) { return finish(session, token(session, *options)); };
  });

  CLI::App* const ls = group->add_subcommand("ls", "List them");
  ls->fallthrough();
  ls->callback(
      [&run] { run = [](Session& session) { return finish(session, list_machines(session)); }; });

  CLI::App* const revoked = group->add_subcommand("revoke", "The server refuses it from now on");
  revoked->fallthrough();
  revoked->add_option("NAME", options->name, "Which")->required();
  revoked->callback([options, &run] {
    run = [options](Session& session) { return finish(session, say(session, *options, false)); };
  });

  CLI::App* const wiped =
      group->add_subcommand("wipe", "It erases its keys and caches at its next contact");
  wiped->fallthrough();
  wiped->add_option("NAME", options->name, "Which")->required();
  wiped->add_flag("--unsent-too", options->unsent_too,
                  "Erase journals with unsent writes as well; they are lost");
  wiped->add_flag("--yes", options->yes, "Do not ask");
  wiped->callback([options, &run] {
    run = [options](Session& session) { return finish(session, say(session, *options, true)); };
  });
}

}  // namespace dims::rdim
