#include "rdim-server/options.h"

#include <CLI/CLI.hpp>

#include "common/base/parse.h"

#ifndef DIMS_VERSION
#define DIMS_VERSION "unknown"
#endif

namespace dims::server {

bool parse_options(int argc, char** argv, Options& options, int& exit_code) {
  CLI::App app("The remote data image manager: keeps images and their versions for LDIM and rdim.");
  app.name("rdim-server");
  app.set_version_flag("--version", std::string("rdim-server ") + DIMS_VERSION);
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
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) == 0 ? kStopped : kUsage;
    return false;
  }
  return true;
}

}  // namespace dims::server
