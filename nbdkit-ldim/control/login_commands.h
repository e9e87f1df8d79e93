// ldim enroll, login, images: those that need no running LDIM but the machine's folder.
// Threads: the main thread. Errors: printed by the caller.
#pragma once

#include <functional>
#include <string>
#include <nlohmann/json_fwd.hpp>

#include "common/base/result.h"

namespace CLI {
class App;
}

namespace dims::ldim {

// What a command did: the same for people and as JSON.
struct Said {
  std::string json;
  std::string text;
};
using LoginCommand = std::function<Result<Said>()>;
// Adds the subcommands; `run` is set to what the chosen one does.
void add_login_commands(CLI::App& app, LoginCommand& run);

// For `ldim renew`: asks for the passphrase and logs in.
Result<nlohmann::json> answer_renewal(const nlohmann::json& begun, const std::string& passphrase);

}  // namespace dims::ldim
