// rdim image export NAME[@VERSION] TARGET.
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "image-tools/media/target.h"
#include "image-tools/rdim/progress_bar.h"
#include "image-tools/rdim/session.h"
#include "image-tools/transfer/exporter.h"
#include "image-tools/transfer/importer.h"

namespace dims::rdim {
namespace {

struct ExportCommand {
  std::string name;
  std::string target;
  std::string format;
  bool force = false;
  unsigned threads = 4;
};

Status run_export(Session& session, const ExportCommand& command) {
  if (command.target == "-") session.output.use_stderr();
  const auto at = command.name.rfind('@');
  const std::string name = command.name.substr(0, at);
  const std::string which = at == std::string::npos ? std::string() : command.name.substr(at + 1);
  if (!session.is_member()) DIMS_TRY(session.key());  // names the mistake before it connects
  DIMS_ASSIGN(contract::Remote* const remote, session.patient_remote());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(name));
  DIMS_ASSIGN(const format::KeyFile key, session.key_for(image, trust::Access::kRead));
  DIMS_TRY(transfer::check_key(key, image));
  DIMS_ASSIGN(const contract::VersionInfo version, transfer::find_version(*remote, image, which));
  media::TargetOptions target_options;
  target_options.image_bytes = version.record.image_bytes;
  target_options.format = command.format;
  target_options.force = command.force;
  target_options.connections = command.threads;
  DIMS_ASSIGN(const auto target, media::open_target(command.target, target_options));
  Result<transfer::ExportReport> report = [&] {
    const ProgressBar bar("exporting", session.progress, session.output.json());
    return transfer::export_version(*remote, key, image, version, *target, {command.threads},
                                    session.progress);
  }();
  if (!report.ok()) return report.error();
  Json json;
  json["name"] = image.name;
  json["image"] = image.id.hex();
  json["version"] = version.id.hex();
  json["sequence"] = version.record.sequence;
  json["target"] = command.target;
  json["image_bytes"] = report->image_bytes;
  json["data_bytes"] = report->data_bytes;
  json["chunks"] = report->chunks;
  json["fetched_bytes"] = report->fetched_bytes;
  json["seconds"] = report->seconds;
  const double rate =
      report->seconds > 0 ? static_cast<double>(report->data_bytes) / report->seconds / 1e6 : 0.0;
  json["data_mb_per_second"] = rate;
  session.output.document(json);
  char speed[64];
  std::snprintf(speed, sizeof speed, "%.1f s, %.0f MB/s", report->seconds, rate);
  session.output.text("exported version " + std::to_string(version.record.sequence) + " of '" +
                      image.name + "' to " + command.target + ": " +
                      format_size(report->image_bytes) + ", " + format_size(report->data_bytes) +
                      " not zero, in " + speed);
  return ok_status();
}

}  // namespace

void add_export_command(CLI::App& image, Command& run) {
  CLI::App* const command =
      image.add_subcommand("export", "Write a version to a file, a device or an NBD export");
  command->fallthrough();
  const auto options = std::make_shared<ExportCommand>();
  command
      ->add_option("NAME[@VERSION]", options->name,
                   "Which: the head, or a sequence number, or a version id's start")
      ->required();
  command
      ->add_option("TARGET", options->target,
                   "A file, a block device, an NBD URI, or - for standard output")
      ->required();
  command->add_option("--format", options->format,
                      "raw, qcow2, vhdx, vmdk, vdi, ... (else by the file's ending, or raw)");
  command->add_flag("--force", options->force, "Overwrite an existing file, or a block device");
  command->add_option("--threads", options->threads, "Threads that fetch and open")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  command->callback([options, &run] {
    run = [options](Session& session) { return finish(session, run_export(session, *options)); };
  });
}

}  // namespace dims::rdim
