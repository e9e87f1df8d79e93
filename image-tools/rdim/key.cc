// rdim key: key files.
#include <CLI/CLI.hpp>

#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

// Ids only: no secret is ever printed.
void show(const Session& session, const std::string& path, const format::KeyFile& key, bool made) {
  Json json;
  json["file"] = path;
  json["organisation"] = key.org.hex();
  json["domain"] = key.domain.hex();
  json["signer"] = key.signing.public_key.hex();
  session.output.document(json);
  if (made) session.output.text("made " + path);
  session.output.table({{"organisation", key.org.hex()},
                        {"domain", key.domain.hex()},
                        {"signer", key.signing.public_key.hex()}});
  if (made)
    session.output.text("Keep a copy in a safe place: without this file the images are lost.");
}

Status make(const Session& session, const std::string& path) {
  const format::KeyFile key = format::generate_key_file(system_random());
  DIMS_TRY(format::create_key_file(path, key));
  show(session, path, key, true);
  return ok_status();
}

Status show_file(const Session& session, const std::string& path) {
  DIMS_ASSIGN(const format::KeyFile key, format::load_key_file(path));
  show(session, path, key, false);
  return ok_status();
}

}  // namespace

void add_key_commands(CLI::App& app, Command& run) {
  CLI::App* const group = app.add_subcommand(
      "key", "Key files: who has one can read and write the images made with it");
  group->require_subcommand(1);
  group->fallthrough();
  const auto path = std::make_shared<std::string>();

  CLI::App* const fresh =
      group->add_subcommand("new", "Make a key file; an existing one is never overwritten");
  fresh->fallthrough();
  fresh->add_option("FILE", *path, "Where to")->required();
  fresh->callback([path, &run] {
    run = [path](Session& session) { return finish(session, make(session, *path)); };
  });

  CLI::App* const shown = group->add_subcommand("show", "Show a key file's ids, not its secrets");
  shown->fallthrough();
  shown->add_option("FILE", *path, "Which")->required();
  shown->callback([path, &run] {
    run = [path](Session& session) { return finish(session, show_file(session, *path)); };
  });
}

}  // namespace dims::rdim
