#include "nbdkit-ldim/control/login_commands.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "common/base/parse.h"
#include "common/client/passphrase.h"
#include "common/crypto/hash.h"
#include "nbdkit-ldim/control/renewal.h"
#include "nbdkit-ldim/login/enroll.h"
#include "nbdkit-ldim/login/login.h"

namespace dims::ldim {
namespace {

using nlohmann::json;

struct Options {
  std::string machine, line, name, user, passphrase;
  std::string tpm = "auto";
};

// The line itself, or where it is: on the command line everybody on the machine can read it.
Result<std::string> join_line_of(const std::string& given) {
  if (given.empty() || (given.front() != '-' && given.front() != '+')) return given;
  DIMS_ASSIGN(const crypto::SecretBytes line, client::read_line_of(given, "Join line"));
  return std::string(line.text());
}

Result<Said> enroll_here(const Options& options) {
  DIMS_ASSIGN(const std::string line, join_line_of(options.line));
  DIMS_ASSIGN(const Enrolled enrolled, enroll(options.machine, line, options.name,
                                              options.tpm == "yes"  ? UseTpm::kYes
                                              : options.tpm == "no" ? UseTpm::kNo
                                                                    : UseTpm::kAuto));
  const json out = {{"machine", enrolled.name},
                    {"id", enrolled.machine.hex()},
                    {"organisation", enrolled.organisation},
                    {"server", enrolled.server},
                    {"folder", options.machine},
                    {"sealed", enrolled.sealed},
                    {"tpm", enrolled.tpm}};
  return Said{out.dump(2), "this is machine '" + enrolled.name + "' of '" + enrolled.organisation +
                               "'; its keys are in " + options.machine +
                               (enrolled.tpm ? ", sealed by the TPM" : "")};
}

Result<Said> show_images(const Options& options) {
  DIMS_ASSIGN(const crypto::SecretBytes passphrase,
              client::read_passphrase(options.passphrase, "Passphrase of " + options.user, false));
  DIMS_ASSIGN(const ImageList list, list_images(options.machine, options.user, passphrase.view()));
  json out = {{"user", list.user},
              {"offline", list.offline},
              {"escrow", list.escrow},
              {"images", json::array()}};
  std::string text =
      "logged in as '" + list.user + "'" +
      (list.offline ? " without the server: images that are in caches here work" : "");
  if (list.escrow)
    text += "\nadministrators hold the keys of all images here, private ones too (escrow)";
  for (const UserImage& image : list.images) {
    const std::string access(trust::access_name(image.access));
    out["images"].push_back({{"name", image.name},
                             {"image_bytes", image.image_bytes},
                             {"sequence", image.sequence},
                             {"access", access}});
    text += "\n  " + image.name + "  " + format_size(image.image_bytes) + "  version " +
            std::to_string(image.sequence) + "  " + access;
  }
  return Said{out.dump(2), text};
}

void prepare() {
  // Standard output belongs to the command.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("ldim"));
  spdlog::set_level(spdlog::level::warn);
  // Keys and passphrases must not reach a core dump.
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  ::prctl(PR_SET_DUMPABLE, 0);
  crypto::initialise();
}

}  // namespace

Result<json> answer_renewal(const json& begun, const std::string& passphrase) {
  prepare();
  DIMS_ASSIGN(
      const crypto::SecretBytes secret,
      client::read_passphrase(passphrase, "Passphrase of " + Renewal::user_of(begun), false));
  return Renewal::answer(begun, secret.view());
}

void add_login_commands(CLI::App& app, LoginCommand& run) {
  const auto options = std::make_shared<Options>();
  options->machine = default_machine_folder();
  const auto command = [&](const char* name, const char* text,
                           Result<Said> (*body)(const Options&)) {
    CLI::App* const added = app.add_subcommand(name, text);
    added->fallthrough();
    added->add_option("--machine", options->machine, "The machine's folder")
        ->envname("DIMS_MACHINE")
        ->capture_default_str();
    added->callback([options, body, &run] {
      run = [options, body] {
        prepare();
        return body(*options);
      };
    });
    return added;
  };
  CLI::App* const enrolled =
      command("enroll", "Make this machine one of the organisation's", enroll_here);
  enrolled
      ->add_option("LINE", options->line,
                   "What 'rdim machine token' printed; or - (asked), +FILE, -FD")
      ->required();
  enrolled->add_option("--tpm", options->tpm, "Seal the machine's keys with its TPM")
      ->check(CLI::IsMember({"yes", "no", "auto"}))
      ->capture_default_str();
  enrolled->add_option("--name", options->name,
                       "The machine's name; else the line's, or the host's");
  for (const auto& [name, text] :
       {std::pair{"login",
                  "Check a user's passphrase; keep what he needs to log in without the "
                  "server; list his images"},
        std::pair{"images", "The same: the images that a user may use here"}}) {
    CLI::App* const added = command(name, text, show_images);
    added->add_option("USER", options->user, "Who")->required();
    added->add_option("--passphrase", options->passphrase, "- (asked), +FILE, -FD");
  }
}

}  // namespace dims::ldim
