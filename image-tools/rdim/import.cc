// rdim image import SOURCE NAME.
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "image-tools/media/source.h"
#include "image-tools/rdim/progress_bar.h"
#include "image-tools/rdim/session.h"
#include "image-tools/transfer/importer.h"

namespace dims::rdim {
namespace {

struct ImportCommand {
  std::string source;
  std::string name;
  std::string format;
  std::string chunk_mean = "64K";
  bool chunk_mean_given = false;
  bool update = false;
  bool fixed = false;
  bool no_compress = false;
  bool private_domain = false;
  unsigned threads = 0;
  unsigned upload_threads = 0;
};

Json report_json(const transfer::ImportReport& r, const ImportCommand& command,
                 const std::string& source) {
  Json json;
  json["name"] = command.name;
  json["image"] = r.image.hex();
  json["version"] = r.version.hex();
  json["sequence"] = r.sequence;
  json["resumed"] = r.resumed;
  json["unchanged"] = r.unchanged;
  json["source"] = source;
  json["image_bytes"] = r.image_bytes;
  json["read_bytes"] = r.read_bytes;
  json["data_bytes"] = r.data_bytes;
  json["zero_bytes"] = r.image_bytes - std::min(r.image_bytes, r.data_bytes);
  json["chunks"] = r.chunks;
  json["sealed_bytes"] = r.sealed_bytes;
  json["repeated_objects"] = r.repeated_objects;
  json["present_objects"] = r.present_objects;
  json["new_chunks"] = r.new_chunks;
  json["new_chunk_bytes"] = r.new_chunk_bytes;
  json["new_nodes"] = r.new_nodes;
  json["new_node_bytes"] = r.new_node_bytes;
  json["stored_bytes"] = r.new_chunk_bytes + r.new_node_bytes;
  json["compression_ratio"] = json_of_ratio(r.data_bytes, r.sealed_bytes);
  json["dedup_ratio"] = json_of_ratio(r.sealed_bytes, r.new_chunk_bytes);
  json["reduction_ratio"] = json_of_ratio(r.data_bytes, r.new_chunk_bytes + r.new_node_bytes);
  json["seconds"] = r.seconds;
  json["data_mb_per_second"] =
      r.seconds > 0 ? static_cast<double>(r.data_bytes) / r.seconds / 1e6 : 0.0;
  return json;
}

void print(const Output& output, const transfer::ImportReport& r, const ImportCommand& command) {
  if (r.unchanged) {
    output.text("'" + command.name + "' is unchanged: version " + std::to_string(r.sequence) +
                " stays");
  } else {
    output.text("imported '" + command.name + "' as version " + std::to_string(r.sequence) + ", " +
                r.version.hex() + (r.resumed ? " (went on with an unfinished import)" : ""));
  }
  char speed[64];
  std::snprintf(speed, sizeof speed, "%.1f s, %.0f MB/s of data", r.seconds,
                r.seconds > 0 ? static_cast<double>(r.data_bytes) / r.seconds / 1e6 : 0.0);
  output.table(
      {{"  disk", format_size(r.image_bytes) + ", " + format_size(r.data_bytes) + " not zero, " +
                      format_size(r.read_bytes) + " read"},
       {"  chunks",
        std::to_string(r.chunks) + ", " + std::to_string(r.new_chunks) + " new on the server"},
       {"  stored", format_size(r.new_chunk_bytes) + " of chunks, " +
                        format_size(r.new_node_bytes) + " of nodes"},
       {"  ratio", text_of_ratio(r.data_bytes, r.new_chunk_bytes + r.new_node_bytes) + " (" +
                       text_of_ratio(r.sealed_bytes, r.new_chunk_bytes) + " dedup x " +
                       text_of_ratio(r.data_bytes, r.sealed_bytes) + " compression)"},
       {"  time", std::string(speed)}});
}

// A member's import announces a new image before the server makes it.
Result<format::KeyFile> keys_for(Session& session, const ImportCommand& command,
                                 transfer::ImportOptions& options) {
  if (!session.is_member()) return session.key();
  DIMS_ASSIGN(People* const people, session.people());
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  // A name that one may not see is answered like one that is not there: the list tells.
  DIMS_ASSIGN(const std::vector<contract::ImageInfo> images, remote->list_images());
  for (const contract::ImageInfo& image : images) {
    if (image.name != command.name) continue;
    // No version says yet of which domain it is.
    if (command.private_domain && image.head.is_zero() &&
        !(image.domain == people->default_domain(true))) {
      return make_error(
          ErrorCode::kUntrusted,
          "the server says that the unfinished '" + image.name + "' is not of your private domain",
          "if its import began without --private, go on without it");
    }
    return session.key_for(image, trust::Access::kWrite);
  }
  if (command.update) {
    return make_error(ErrorCode::kNotFound, "there is no image '" + command.name + "' to update",
                      "leave --update away to make it");
  }
  DIMS_ASSIGN(People::NewImage made, people->new_image(command.private_domain));
  options.new_image = made.id;
  return std::move(made.keys);
}

Status import(Session& session, const ImportCommand& command) {
  transfer::ImportOptions options;
  options.name = command.name;
  options.update = command.update;
  options.compress = !command.no_compress;
  options.cut_mode = command.fixed ? tree::CutMode::kFixed : tree::CutMode::kContent;
  if (command.threads != 0) options.threads = command.threads;
  if (command.upload_threads != 0) options.upload_threads = command.upload_threads;
  DIMS_ASSIGN(const std::uint64_t mean, parse_size(command.chunk_mean));
  if (mean < kPageBytes || mean > format::kMaxChunkPages * kPageBytes) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--chunk-mean " + command.chunk_mean + " is out of range", "use 4K to 128K");
  }
  options.chunk_mean_bytes = static_cast<std::uint32_t>(mean);
  DIMS_ASSIGN(const format::KeyFile key, keys_for(session, command, options));
  DIMS_ASSIGN(contract::Remote* const remote, session.patient_remote());
  DIMS_ASSIGN(const auto source,
              media::open_source(command.source, {command.format, options.threads + 1}));
  Result<transfer::ImportReport> report = [&] {
    const ProgressBar bar("importing", session.progress, session.output.json());
    return transfer::import_image({*remote, *source, system_clock(), system_random()}, key,
                                  session.who(), options, session.progress);
  }();
  if (!report.ok()) return report.error();
  session.output.document(report_json(*report, command, source->description()));
  print(session.output, *report, command);
  return ok_status();
}

}  // namespace

void add_import_command(CLI::App& image, Command& run) {
  CLI::App* const command = image.add_subcommand("import", "Bring a disk to the server");
  command->fallthrough();
  const auto options = std::make_shared<ImportCommand>();
  command
      ->add_option("SOURCE", options->source,
                   "Raw file, block device, any format of qemu-img, or an NBD URI")
      ->required();
  command->add_option("NAME", options->name, "The image's name")->required();
  command->add_flag("--update", options->update, "Make a new version of an image that exists");
  command->add_option("--format", options->format,
                      "The source's format as qemu-img calls it (found out if not given)");
  command->add_option("--chunk-mean", options->chunk_mean, "Mean size of chunks, 4K to 128K")
      ->capture_default_str();
  command->add_flag("--fixed", options->fixed,
                    "Cut at fixed places (for measurements; deduplicates worse)");
  command->add_flag("--no-compress", options->no_compress, "Do not compress");
  command->add_flag("--private", options->private_domain,
                    "Seal in your private domain, not in the organisation's: for users' own disks");
  command->add_option("--threads", options->threads, "Threads that read, cut and seal")
      ->check(CLI::Range(1, 64));
  command
      ->add_option("--upload-threads", options->upload_threads,
                   "Batches on their way to the server at a time")
      ->check(CLI::Range(1, 64));
  command->callback([options, &run] {
    run = [options](Session& session) { return finish(session, import(session, *options)); };
  });
}

}  // namespace dims::rdim
