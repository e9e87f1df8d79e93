// rdim image info: one image in figures.
#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "image-tools/rdim/progress_bar.h"
#include "image-tools/rdim/session.h"
#include "image-tools/transfer/exporter.h"
#include "image-tools/transfer/figures.h"

namespace dims::rdim {
namespace {

struct InfoOptions {
  std::string name;
  bool fast = false;
  bool exact = false;
};

// Sizes of this many chunks are looked at, unless all are asked for.
constexpr std::uint64_t kSampleMax = 1024;

Result<transfer::VersionFigures> measure(Session& session, contract::Remote& remote,
                                         const contract::ImageInfo& image, bool exact) {
  DIMS_ASSIGN(const format::KeyFile key, session.key_for(image, trust::Access::kRead));
  DIMS_ASSIGN(const contract::VersionInfo head, transfer::find_version(remote, image, {}));
  const ProgressBar bar("reading", session.progress, session.output.json());
  return transfer::measure_version(remote, key, image, head, exact ? 0 : kSampleMax,
                                   session.progress);
}

Json figures_json(const transfer::VersionFigures& figures) {
  Json json;
  json["mapped_bytes"] = figures.mapped_bytes;
  json["leaves"] = figures.leaves;
  json["extents"] = figures.extents;
  json["distinct_chunks"] = figures.distinct_chunks;
  json["distinct_bytes"] = figures.chunk_bytes;
  json["sealed_bytes"] = figures.sealed_bytes;
  json["dedup_ratio"] = json_of_ratio(figures.mapped_bytes, figures.chunk_bytes);
  json["compression_ratio"] = json_of_ratio(figures.chunk_bytes, figures.sealed_bytes);
  json["reduction_ratio"] = json_of_ratio(figures.mapped_bytes, figures.sealed_bytes);
  json["estimated"] = !figures.exact;
  json["sampled_chunks"] = figures.sampled_chunks;
  return json;
}

void print(const Output& output, const transfer::VersionFigures& figures) {
  const std::string about = figures.exact ? std::string() : std::string("about ");
  output.table(
      {{"mapped", format_size(figures.mapped_bytes) + " in pages that are not zero"},
       {"chunks", std::to_string(figures.distinct_chunks) + " distinct, " +
                      std::to_string(figures.extents) + " extents in " +
                      std::to_string(figures.leaves) + " leaves"},
       {"stored",
        about + format_size(figures.sealed_bytes) + " for " + format_size(figures.chunk_bytes)},
       {"ratio", about + text_of_ratio(figures.mapped_bytes, figures.sealed_bytes) + " (" +
                     text_of_ratio(figures.mapped_bytes, figures.chunk_bytes) + " dedup x " +
                     text_of_ratio(figures.chunk_bytes, figures.sealed_bytes) + " compression)"}});
}

// For who waits for a hand-off.
std::string left_text(const contract::ImageInfo& image) {
  if (!image.holder || image.holder->unsent_bytes == 0) return "";
  return ", " + format_size(image.holder->unsent_bytes) + " not sent yet";
}

Status info(Session& session, const InfoOptions& options) {
  DIMS_ASSIGN(contract::Remote* const remote, session.remote());
  DIMS_ASSIGN(const contract::ImageInfo image, remote->find_image(options.name));
  DIMS_ASSIGN(const std::vector<contract::VersionInfo> versions,
              remote->list_versions(image.id, 0));
  Json json = json_of(image);
  json["versions"] = versions.size();
  std::optional<transfer::VersionFigures> figures;
  if (!options.fast && !image.head.is_zero()) {
    DIMS_ASSIGN(figures, measure(session, *remote, image, options.exact));
    json["figures"] = figures_json(*figures);
  }
  session.output.document(json);
  session.output.table(
      {{"name", image.name},
       {"id", image.id.hex()},
       {"size",
        format_size(image.image_bytes) + " (" + std::to_string(image.image_bytes) + " bytes)"},
       {"chunk mean", format_size(image.tree.chunk_mean_bytes)},
       {"head", image.head.is_zero()
                    ? std::string("none yet")
                    : "version " + std::to_string(image.head_sequence) + ", " + image.head.hex()},
       {"versions", std::to_string(versions.size())},
       {"created", text_of_time(image.created_unix_ns)},
       {"in use by", holder_text(image) + left_text(image)}});
  if (!image.unsent.empty()) session.output.table({{"may hold unsent writes", unsent_text(image)}});
  for (const std::string& branch : image.branches)
    session.output.table({{"conflict branch", branch}});
  if (!image.conflict_of.empty()) session.output.table({{"conflict of", image.conflict_of}});
  if (figures) print(session.output, *figures);
  return ok_status();
}

}  // namespace

void add_info_command(CLI::App& image, Command& run) {
  CLI::App* const command =
      image.add_subcommand("info", "One image in figures (needs the key, unless --fast)");
  command->fallthrough();
  const auto options = std::make_shared<InfoOptions>();
  command->add_option("NAME", options->name, "Which")->required();
  CLI::Option* const fast = command->add_flag("--fast", options->fast, "Do not walk the tree");
  command->add_flag("--exact", options->exact, "Look at every chunk's size, not at a sample")
      ->excludes(fast);
  command->callback([options, &run] {
    run = [options](Session& session) { return finish(session, info(session, *options)); };
  });
}

}  // namespace dims::rdim
