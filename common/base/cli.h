// What a person is told when a command line does not fit. Header only, so that only programs need
// CLI11. Threads: one. Errors: none.
#pragma once

#include <string>
#include <CLI/CLI.hpp>

namespace dims {

// CLI11 says of "rdim fnord" that a subcommand is required.
inline std::string command_line_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  const auto words = app.remaining(true);  // a fallthrough passes them up
  if (dynamic_cast<const CLI::RequiredError*>(&error) == nullptr || words.empty())
    return error.what();
  std::string text = "there is no command '" + words.front() + "', but there are";
  const char* comma = " ";
  for (const CLI::App* command : at->get_subcommands([](const CLI::App*) { return true; })) {
    text += comma + command->get_name();
    comma = ", ";
  }
  return text;
}

}  // namespace dims
