#include "rdim-server/options.h"

#include <CLI/CLI.hpp>

#include "common/base/parse.h"
#include "rdim-server/catalog/retention.h"

#ifndef DIMS_VERSION
#define DIMS_VERSION "unknown"
#endif

namespace dims::server {
namespace {

std::chrono::milliseconds duration_of(const char* option, const std::string& text) {
  const auto parsed = parse_duration(text);
  if (!parsed.ok()) throw CLI::ValidationError(option, parsed.error().to_string());
  return *parsed;
}

std::uint64_t size_of(const char* option, const std::string& text) {
  const auto parsed = parse_size(text);
  if (!parsed.ok()) throw CLI::ValidationError(option, parsed.error().to_string());
  return *parsed;
}

// "init" and "fingerprint": a word, a folder, no server.
bool parse_setup(int argc, char** argv, Options& options, int& exit_code) {
  const bool init = options.verb == Verb::kInit;
  CLI::App app(init ? "Makes what a server needs before its organisation: store, certificate, and "
                      "the one-time secret for 'rdim init-org'."
                    : "Prints the SHA-256 of the server's certificate, by which clients know it.");
  app.name(init ? "rdim-server init" : "rdim-server fingerprint");
  app.add_option("--data", options.data, "Folder of the store")->required()->type_name("DIR");
  if (init) {
    app.add_flag("--renew", options.renew,
                 "Only replace the certificate: every client has to be told the new fingerprint");
  }
  try {
    app.parse(argc - 1, argv + 1);
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) == 0 ? kStopped : kUsage;
    return false;
  }
  return true;
}

}  // namespace

bool parse_options(int argc, char** argv, Options& options, int& exit_code) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word == "init" || word == "fingerprint") {
    options.verb = word == "init" ? Verb::kInit : Verb::kFingerprint;
    return parse_setup(argc, argv, options, exit_code);
  }
  CLI::App app("The remote data image manager: keeps images and their versions for LDIM and rdim.");
  app.name("rdim-server");
  app.set_version_flag("--version", std::string("rdim-server ") + DIMS_VERSION);
  app.footer("Also: 'rdim-server init' and 'rdim-server fingerprint', each with --help.");
  std::string term = "60s";
  app.add_option("--data", options.data, "Folder of the store; made at the first start")
      ->required()
      ->type_name("DIR");
  app.add_option("--listen", options.listen, "Address to serve; may be given several times")
      ->required()
      ->type_name("HOST:PORT|unix:PATH");
  app.add_option("--lease-term", term, "How long a lease lasts without being renewed")
      ->type_name("TIME")
      ->capture_default_str();
  std::string grace = "168h", interval = "24h", gc_rate = "64MiB", scrub_rate = "4MiB";
  app.add_option("--retention", options.retention,
                 "Which versions of an image keep their data: all, or last=,hourly=,daily=,weekly=")
      ->type_name("POLICY")
      ->capture_default_str();
  app.add_option("--upload-grace", grace,
                 "How long unused objects stay: they may be half an upload")
      ->type_name("TIME")
      ->capture_default_str();
  app.add_option("--gc-interval", interval, "Collect garbage so often; 0: only when asked")
      ->type_name("TIME")
      ->capture_default_str();
  app.add_option("--gc-rate", gc_rate, "What a collection may read a second; 0: no limit")
      ->type_name("SIZE")
      ->capture_default_str();
  app.add_option("--scrub-rate", scrub_rate,
                 "Read all objects again and again, so much a second; 0: never")
      ->type_name("SIZE")
      ->capture_default_str();
  app.add_option("--log-level", options.log_level, "What to log")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  app.add_option("--port-file", options.port_file,
                 "Write the TCP port here once the server answers (for port 0)")
      ->type_name("FILE");
  try {
    app.parse(argc, argv);
    const auto parsed = parse_duration(term);
    if (!parsed.ok()) throw CLI::ValidationError("--lease-term", parsed.error().to_string());
    if (*parsed < std::chrono::seconds(1)) {
      throw CLI::ValidationError("--lease-term", "a lease lasts at least 1s");
    }
    options.lease_term = *parsed;
    options.upload_grace = duration_of("--upload-grace", grace);
    options.gc_interval = duration_of("--gc-interval", interval);
    options.gc_rate = size_of("--gc-rate", gc_rate);
    options.scrub_rate = size_of("--scrub-rate", scrub_rate);
    const auto retention = catalog::parse_retention(options.retention);
    if (!retention.ok()) {
      throw CLI::ValidationError("--retention", retention.error().to_string());
    }
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) == 0 ? kStopped : kUsage;
    return false;
  }
  return true;
}

}  // namespace dims::server
