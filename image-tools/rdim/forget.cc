// rdim image forget: a machine that may hold unsent writes is named no longer.
#include <CLI/CLI.hpp>

#include "image-tools/rdim/session.h"

namespace dims::rdim {
namespace {

struct ForgetOptions {
  std::string name;
  std::string machine;
};

Status forget(Session& session, const ForgetOptions& options) {
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.name));
  DIMS_ASSIGN(contract::Admin* const admin, session.admin());
  Json json;
  json["name"] = image.name;
  json["forgotten"] = Json::array();
  for (const contract::HolderInfo& machine : image.unsent) {
    if (machine.machine_name != options.machine && machine.machine.hex() != options.machine)
      continue;
    DIMS_TRY(admin->forget_unsent(image.id, machine.machine));
    json["forgotten"].push_back(machine.machine.hex());
  }
  // One that only read stands in no list: its id is all there is.
  if (const auto id = MachineId::from_hex_text(options.machine); id && json["forgotten"].empty()) {
    DIMS_TRY(admin->forget_unsent(image.id, *id));
    json["forgotten"].push_back(id->hex());
  }
  if (json["forgotten"].empty()) {
    return make_error(ErrorCode::kNotFound,
                      "image '" + image.name + "' names no machine '" + options.machine +
                          "' as one that may hold unsent writes",
                      "see 'rdim image info " + image.name + "'");
  }
  session.output.document(json);
  session.output.text("machine '" + options.machine + "' is forgotten; should it come back after " +
                      "all, what it has not sent becomes a branch");
  return ok_status();
}

}  // namespace

void add_forget_command(CLI::App& image, Command& run) {
  CLI::App* const command = image.add_subcommand(
      "forget", "Stop naming a machine as one that may hold unsent writes of an image");
  command->fallthrough();
  const auto options = std::make_shared<ForgetOptions>();
  command->add_option("NAME", options->name, "The image")->required();
  command->add_option("MACHINE", options->machine, "The machine's name or id")->required();
  command->callback([options, &run] {
    run = [options](Session& session) { return finish(session, forget(session, *options)); };
  });
}

}  // namespace dims::rdim
