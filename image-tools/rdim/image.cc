// rdim image ls, rm.
#include <CLI/CLI.hpp>

#include <unistd.h>

#include <iostream>

#include "common/base/parse.h"
#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

// The table stays readable: all names are in the JSON, and each has a row of its own.
std::string branches_text(const contract::ImageInfo& image) {
  if (image.branches.empty()) return "-";
  const std::size_t more = image.branches.size() - 1;
  return image.branches.front() +
         (more == 0 ? std::string() : " and " + std::to_string(more) + " more");
}

Status list(Session& session) {
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const std::vector<contract::ImageInfo> images, remote->list_images());
  Json json;
  json["images"] = Json::array();
  std::vector<std::vector<std::string>> rows = {{"NAME", "SIZE", "VERSION", "CREATED", "IN USE BY",
                                                 "CONFLICT OF", "CONFLICT BRANCHES",
                                                 "MAY HOLD UNSENT WRITES"}};
  for (const contract::ImageInfo& image : images) {
    json["images"].push_back(json_of(image));
    rows.push_back(
        {image.name, format_size(image.image_bytes),
         image.head.is_zero() ? std::string("none yet") : std::to_string(image.head_sequence),
         text_of_time(image.created_unix_ns), holder_text(image),
         image.conflict_of.empty() ? std::string("-") : image.conflict_of, branches_text(image),
         unsent_text(image)});
  }
  session.output.document(json);
  session.output.table(rows);
  return ok_status();
}

// Asks on the terminal; refuses without one.
Status confirm(Session& session, const std::string& name) {
  const Error refused =
      make_error(ErrorCode::kInvalidArgument, "image '" + name + "' was not removed",
                 "type its name when asked, or say --yes");
  if (session.output.json() || ::isatty(STDIN_FILENO) == 0) return refused;
  session.await_answer();
  std::cerr << "Remove image '" << name << "' and all its versions? Type its name: " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  if (answer != name) return refused;
  return ok_status();
}

struct RemoveOptions {
  std::string name;
  bool yes = false;
  bool force = false;
};

Status remove(Session& session, const RemoveOptions& options) {
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.name));
  const bool held = image.holder && image.holder->expires_in.count() > 0;
  if (held && !options.force) {
    Error error =
        make_error(ErrorCode::kLeaseHeld, "image '" + image.name + "' is in use",
                   "end its session there, or use --force: its unsent writes are lost then");
    error.holder = holder_text(image);
    return error;
  }
  if (!options.yes) DIMS_TRY(confirm(session, image.name));
  contract::ImageRemoval removal(image.id);
  if (held) {
    // Whoever holds it learns that it is lost.
    contract::LeaseRequest take;
    take.image = image.id;
    take.session = session.who().session;
    take.machine = session.who().machine;
    take.machine_name = session.who().machine_name;
    take.take_over = true;
    DIMS_ASSIGN(const contract::LeaseGrant grant, remote->acquire_lease(take));
    removal.lease = grant.lease;
    removal.token = grant.token;
  }
  DIMS_TRY(remote->remove_image(removal));
  Json json;
  json["removed"] = image.name;
  json["id"] = image.id.hex();
  session.output.document(json);
  session.output.text("removed image '" + image.name + "'");
  return ok_status();
}

}  // namespace

void add_image_commands(CLI::App& app, Command& run) {
  CLI::App* const group = app.add_subcommand("image", "Images: import, export, list, remove");
  group->require_subcommand(1);
  group->fallthrough();
  add_import_command(*group, run);
  add_export_command(*group, run);

  CLI::App* const ls = group->add_subcommand("ls", "List the images");
  ls->fallthrough();
  ls->callback([&run] { run = [](Session& session) { return finish(session, list(session)); }; });

  add_info_command(*group, run);
  add_resolve_command(*group, run);
  add_retention_command(*group, run);
  add_forget_command(*group, run);
  add_access_commands(*group, run);

  CLI::App* const rm = group->add_subcommand("rm", "Remove an image with all its versions");
  rm->fallthrough();
  const auto options = std::make_shared<RemoveOptions>();
  rm->add_option("NAME", options->name, "Which")->required();
  rm->add_flag("--yes", options->yes, "Do not ask");
  rm->add_flag("--force", options->force, "Also if a machine uses it");
  rm->callback([options, &run] {
    run = [options](Session& session) { return finish(session, remove(session, *options)); };
  });
}

}  // namespace dims::rdim
