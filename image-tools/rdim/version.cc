// rdim version: an image's history.
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "image-tools/rdim/session.h"
#include "image-tools/transfer/importer.h"

namespace dims::rdim {
namespace {

struct ListOptions {
  std::string name;
  std::uint32_t limit = 0;
};

Error not_in_line(const contract::ImageInfo& image, const format::VersionRecord& record) {
  return make_error(ErrorCode::kUntrusted,
                    "version " + std::to_string(record.sequence) + " of '" + image.name +
                        "' is none that the one above it came from",
                    "do not use it; ask whoever runs the server");
}

ExitCode list(Session& session, const ListOptions& options) {
  std::optional<format::KeyFile> key;
  const auto remote = session.remote();
  if (!remote.ok()) return session.output.error(remote.error());
  const auto image = (*remote)->find_image(options.name);
  if (!image.ok()) return session.output.error(image.error());
  if (session.has_key() || session.is_member()) {
    auto loaded = session.key_for(*image, trust::Access::kRead);
    if (!loaded.ok()) return session.output.error(loaded.error());
    key = std::move(loaded).value();
  }
  const auto versions = (*remote)->list_versions(image->id, options.limit);
  if (!versions.ok()) return session.output.error(versions.error());

  Json json;
  json["name"] = image->name;
  json["image"] = image->id.hex();
  json["versions"] = Json::array();
  std::vector<std::vector<std::string>> rows = {
      {"VERSION", "ID", "TIME", "MACHINE", "SIZE", "PARENT"}};
  Status problem;
  VersionId next = image->head;
  for (const contract::VersionInfo& version : *versions) {
    const format::VersionRecord& record = version.record;
    Status trusted = key ? transfer::check_record(*key, *image, version) : ok_status();
    // Newer ones may have come since.
    if (record.sequence <= image->head_sequence) {
      if (trusted.ok() && key && !(version.id == next)) trusted = not_in_line(*image, record);
      next = record.parent;
    }
    if (!trusted.ok() && problem.ok()) problem = trusted;
    const bool head = version.id == image->head;
    Json entry;
    entry["sequence"] = record.sequence;
    entry["id"] = version.id.hex();
    entry["head"] = head;
    entry["gone"] = version.gone;
    entry["time"] = json_of_time(record.time_unix_ns);
    entry["machine"] = record.machine.hex();
    entry["image_bytes"] = record.image_bytes;
    entry["parent"] = record.parent.is_zero() ? Json(nullptr) : Json(record.parent.hex());
    entry["root"] = record.root.id.is_zero() ? Json(nullptr) : Json(record.root.id.hex());
    entry["journal"] =
        record.commit.journal.is_zero() ? Json(nullptr) : Json(record.commit.journal.hex());
    entry["signer"] = record.signer.hex();
    entry["trusted"] = key ? Json(trusted.ok()) : Json(nullptr);
    json["versions"].push_back(entry);
    rows.push_back({std::to_string(record.sequence) + (head           ? " (head)"
                                                       : version.gone ? " (let go)"
                                                                      : ""),
                    version.id.short_hex(), text_of_time(record.time_unix_ns),
                    record.machine.short_hex(), format_size(record.image_bytes),
                    record.parent.is_zero() ? std::string("-") : record.parent.short_hex()});
  }
  if (!problem.ok()) json["error"] = json_of(problem.error())["error"];
  session.output.document(json);
  session.output.table(rows);
  if (problem.ok()) return kExitOk;
  return session.output.json() ? exit_code_of(problem.error().code)
                               : session.output.error(problem.error());
}

}  // namespace

void add_version_commands(CLI::App& app, Command& run) {
  CLI::App* const group = app.add_subcommand("version", "Versions of an image");
  group->require_subcommand(1);
  group->fallthrough();
  CLI::App* const ls = group->add_subcommand(
      "ls", "List them, newest first; with --key their signer is checked too");
  ls->fallthrough();
  const auto options = std::make_shared<ListOptions>();
  ls->add_option("NAME", options->name, "Of which image")->required();
  ls->add_option("--limit", options->limit, "At most so many");
  ls->callback(
      [options, &run] { run = [options](Session& session) { return list(session, *options); }; });
}

}  // namespace dims::rdim
