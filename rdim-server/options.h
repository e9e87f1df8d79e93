// The command line of rdim-server. Threads: one. Errors: usage errors end the program (exit code
// 2).
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace dims::server {

struct Options {
  std::string data;
  std::vector<std::string> listen;
  std::chrono::milliseconds lease_term{60'000};
  std::string log_level = "info";
  std::string port_file;
};

// What main returns.
enum ExitCode : int {
  kStopped = 0,      // by a signal, cleanly
  kFailed = 1,       // something failed while it ran
  kUsage = 2,        // the command line is wrong
  kStoreFailed = 3,  // the store cannot be opened
  kListenFailed = 4  // an address cannot be listened on
};

// Fills `options`, or returns an exit code (also for --help and --version, which print and end).
bool parse_options(int argc, char** argv, Options& options, int& exit_code);

}  // namespace dims::server
