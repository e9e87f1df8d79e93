// rdim audit: what happened, as the server wrote it down.
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "image-tools/rdim/people_text.h"
#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

struct AuditOptions {
  std::string since, user;
  std::uint32_t limit = 100;
};

Status audit(Session& session, const AuditOptions& options) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  std::uint64_t since = 0;
  if (!options.since.empty()) {
    DIMS_ASSIGN(const auto age, parse_duration(options.since));
    since = client::unix_now_s() - static_cast<std::uint64_t>(age.count() / 1000);
  }
  trust::UserId user;
  if (!options.user.empty()) {
    DIMS_ASSIGN(const trust::User known, user_named(member.org(), options.user));
    user = known.id;
  }
  DIMS_ASSIGN(const auto lines, member.access->audit(since, options.limit, user));
  Json json;
  json["entries"] = Json::array();
  std::vector<std::vector<std::string>> rows = {
      {"TIME", "WHAT", "USER", "MACHINE", "IMAGE", "FROM", "DETAIL"}};
  for (const client::AuditLine& line : lines) {
    const std::string who =
        line.user.is_zero() ? std::string("-") : user_text(member.org(), line.user);
    const std::string machine = machine_text(member.org(), line.machine);
    const std::string image = line.image.is_zero() ? std::string("-") : line.image.short_hex();
    json["entries"].push_back(
        {{"number", line.number},
         {"time", json_of_time(line.time_unix_s * 1'000'000'000)},
         {"what", line.what},
         {"user", who},
         {"machine", machine},
         {"image", line.image.is_zero() ? Json(nullptr) : Json(line.image.hex())},
         {"address", line.address},
         {"detail", line.detail}});
    rows.push_back({text_of_time(line.time_unix_s * 1'000'000'000), line.what, who, machine, image,
                    line.address, line.detail});
  }
  session.output.document(json);
  session.output.table(rows);
  return ok_status();
}

}  // namespace

void add_audit_command(CLI::App& app, Command& run) {
  CLI::App* const command =
      app.add_subcommand("audit", "Logins, grants, commits, take-overs, removals; newest first");
  command->fallthrough();
  const auto options = std::make_shared<AuditOptions>();
  command->add_option("--since", options->since, "How far back, e.g. 24h");
  command->add_option("--limit", options->limit, "At most so many")->capture_default_str();
  command->add_option("--about", options->user, "Only of this user");
  command->callback([options, &run] {
    run = [options](Session& session) { return finish(session, audit(session, *options)); };
  });
}

}  // namespace dims::rdim
