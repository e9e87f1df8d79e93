// rdim: the administrator's command line.
#include <CLI/CLI.hpp>

#include <sys/prctl.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstring>
#include <iostream>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "common/base/cli.h"
#include "common/crypto/hash.h"
#include "image-tools/rdim/session.h"

namespace {

using namespace dims;

// Before the arguments are understood, errors about them must already come in the form asked for.
bool asks_for_json(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const bool value_follows = argument == "-o" || argument == "--output";
    if (value_follows && i + 1 < argc && std::string_view(argv[i + 1]) == "json") return true;
    if (argument == "-ojson" || argument == "-o=json" || argument == "--output=json") return true;
  }
  return false;
}

rdim::ExitCode run(int argc, char** argv) {
  // Standard output belongs to the command: it may carry a disk or JSON.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("rdim"));
  spdlog::set_level(spdlog::level::warn);
  rdim::Signals signals;
  rdim::Session session(signals);
  session.output.use_json(asks_for_json(argc, argv));

  CLI::App app{"rdim: images on an RDIM server: keys, import, export, versions"};
  app.name("rdim");
  app.set_version_flag("--version", std::string("rdim ") + DIMS_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", session.options.server,
                 "The server: HOST:PORT, HOST:PORT#FINGERPRINT or unix:PATH")
      ->envname("RDIM_SERVER");
  app.add_option("--key", session.options.key_path, "The key file")->envname("RDIM_KEY");
  app.add_option("--user", session.options.people.user,
                 "Log in for this command only, instead of 'rdim login'")
      ->envname("RDIM_USER");
  app.add_option("--passphrase", session.options.people.passphrase,
                 "Where the passphrase comes from: - (asked), +FILE, -FD");
  app.add_option("--server-wait", session.options.server_wait,
                 "How long an import or export waits for a server that goes away meanwhile")
      ->capture_default_str();
  app.add_option("-o,--output", session.options.output, "plain or json, errors included")
      ->check(CLI::IsMember({"plain", "json"}));
  app.footer(
      "Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 4 refused (exists, conflict, in "
      "use),\n"
      "5 server or NBD export unreachable, 6 wrong key or no permission, 7 damaged data, 8 no "
      "space, 9 damage found and repaired, 130 interrupted.\n"
      "See rdim(1).");
  rdim::Command command;
  rdim::add_key_commands(app, command);
  rdim::add_image_commands(app, command);
  rdim::add_version_commands(app, command);
  rdim::add_maintenance_commands(app, command);
  rdim::add_organisation_commands(app, command);
  rdim::add_login_commands(app, command);
  rdim::add_user_commands(app, command);
  rdim::add_machine_commands(app, command);
  rdim::add_audit_command(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return static_cast<rdim::ExitCode>(app.exit(asked));
  } catch (const CLI::ParseError& error) {
    return session.output.error(make_error(ErrorCode::kInvalidArgument,
                                           command_line_error(app, error), "see 'rdim --help'"));
  }
  return command(session);
}

}  // namespace

int main(int argc, char** argv) {
  // Keys and passphrases must not reach a core dump.
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  ::prctl(PR_SET_DUMPABLE, 0);
  crypto::initialise();
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rdim: internal error: %s\n", error.what());
    return rdim::kExitFailed;
  }
}
