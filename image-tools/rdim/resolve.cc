// rdim image resolve: ends the conflict of an image and its branches.
#include <CLI/CLI.hpp>

#include "image-tools/rdim/session.h"
#include "image-tools/transfer/resolver.h"

namespace dims::rdim {
namespace {

struct ResolveOptions {
  std::string name;
  std::string keep;
};

Status resolve(Session& session, const ResolveOptions& options) {
  if (!session.is_member()) DIMS_TRY(session.key());
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.name));
  DIMS_ASSIGN(const format::KeyFile key, session.key_for(image, trust::Access::kWrite));
  DIMS_ASSIGN(const transfer::ResolveReport report,
              transfer::resolve_conflict(*remote, key, session.who(), system_clock(),
                                         system_random(), options.name, options.keep));
  Json json;
  json["name"] = options.name;
  json["kept"] = report.kept;
  json["version"] = report.version.hex();
  json["sequence"] = report.sequence;
  json["put_aside"] = Json::array();
  session.output.text("'" + options.name + "' is now what '" + report.kept + "' was, as version " +
                      std::to_string(report.sequence));
  for (const auto& side : report.put_aside) {
    json["put_aside"].push_back({{"name", side.name}, {"sequence", side.sequence}});
    session.output.text("  what '" + side.name + "' was is " + options.name + "@" +
                        std::to_string(side.sequence));
  }
  json["removed"] = report.removed;
  for (const std::string& branch : report.removed)
    session.output.text("  removed branch '" + branch + "'");
  session.output.document(json);
  return ok_status();
}

}  // namespace

void add_resolve_command(CLI::App& image, Command& run) {
  CLI::App* const command = image.add_subcommand(
      "resolve", "End a conflict: keep one side, put the others into the history");
  command->fallthrough();
  const auto options = std::make_shared<ResolveOptions>();
  command->add_option("NAME", options->name, "The image")->required();
  command->add_option("--keep", options->keep, "NAME, or the conflict branch to keep")->required();
  command->callback([options, &run] {
    run = [options](Session& session) { return finish(session, resolve(session, *options)); };
  });
}

}  // namespace dims::rdim
