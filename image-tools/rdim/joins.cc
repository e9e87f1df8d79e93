// rdim org joins: which join lines are open, and the end of one that fell into wrong hands.
#include <CLI/CLI.hpp>

#include "image-tools/rdim/people_text.h"
#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

using namespace trust;

constexpr std::size_t kKeyDigitsMin = 8;

// A name means all lines for it; the first digits of a key that one.
bool is_meant(const Join& join, const std::string& which) {
  return join.body.name == which ||
         (which.size() >= kKeyDigitsMin && join.body.key.hex().starts_with(which));
}

std::vector<const Join*> open_joins(const OrgState& org) {
  std::vector<const Join*> out;
  for (const Join* const join : org.joins())
    if (join->status == JoinStatus::kOpen) out.push_back(join);
  return out;
}

Status cancel(Session& session, const std::string& which) {
  DIMS_ASSIGN(People* const people, session.people());
  client::Member& member = people->member();
  std::vector<PublicKey> cancelled;
  DIMS_TRY(member.append([&](const OrgState& org) -> Result<std::vector<Body>> {
    std::vector<Body> out;
    cancelled.clear();
    for (const Join* const join : open_joins(org)) {
      if (!is_meant(*join, which)) continue;
      out.emplace_back(JoinCancel{join->body.key});
      cancelled.push_back(join->body.key);
    }
    return out;
  }));
  if (cancelled.empty()) {
    return make_error(ErrorCode::kNotFound, "no open join line is for '" + which + "'",
                      "'rdim org joins' shows which there are; one that was used is a user or a "
                      "machine now: 'rdim user rm', 'rdim machine revoke'");
  }
  DIMS_TRY(people->remember());
  Json json;
  json["cancelled"] = Json::array();
  for (const PublicKey& key : cancelled) {
    json["cancelled"].push_back(key.hex());
    session.output.text("the join line " + key.short_hex() + " is good for nothing any more");
  }
  session.output.document(json);
  return ok_status();
}

Status list_joins(Session& session) {
  DIMS_ASSIGN(People* const people, session.people());
  const OrgLog& log = people->member().log;
  const std::uint64_t now = client::unix_now_s();
  Json json;
  json["joins"] = Json::array();
  std::vector<std::vector<std::string>> rows = {{"KEY", "FOR", "NAME", "ROLE", "UNTIL", "BY"}};
  for (const Join* const join : open_joins(log.state())) {
    const JoinKey& body = join->body;
    DIMS_ASSIGN(const LogRecord record, decode_record(log.record(join->since_seq)));
    const std::string by = signer_text(log.state(), record.signer);
    const bool expired = body.expires_unix_s < now;
    const std::string role = body.for_machine ? "-" : std::string(role_name(body.role));
    json["joins"].push_back({{"key", body.key.hex()},
                             {"for", body.for_machine ? "machine" : "user"},
                             {"name", body.name.empty() ? Json(nullptr) : Json(body.name)},
                             {"role", body.for_machine ? Json(nullptr) : Json(role)},
                             {"made", json_of_time(record.time_unix_s * 1'000'000'000)},
                             {"until", json_of_time(body.expires_unix_s * 1'000'000'000)},
                             {"expired", expired},
                             {"by", by}});
    rows.push_back({body.key.hex().substr(0, kKeyDigitsMin), body.for_machine ? "machine" : "user",
                    body.name.empty() ? "any" : body.name, role,
                    text_of_time(body.expires_unix_s * 1'000'000'000) + (expired ? ", over" : ""),
                    by});
  }
  session.output.document(json);
  session.output.table(rows);
  return ok_status();
}

}  // namespace

void add_joins_command(CLI::App& org, Command& run) {
  const auto which = std::make_shared<std::string>();
  CLI::App* const joins = org.add_subcommand("joins", "Open join lines; or cancel one");
  joins->fallthrough();
  joins->add_option("--cancel", *which, "A user's or machine's name, or a key's first digits");
  joins->callback([which, &run] {
    run = [which](Session& session) {
      return finish(session, which->empty() ? list_joins(session) : cancel(session, *which));
    };
  });
}

}  // namespace dims::rdim
