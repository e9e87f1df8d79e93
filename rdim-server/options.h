// The command line of rdim-server. Threads: one. Errors: usage errors end the program (exit code
// 2).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace dims::server {

// What the first word asks for.
enum class Verb { kServe, kInit, kFingerprint };

struct Options {
  Verb verb = Verb::kServe;
  bool renew = false;  // init: a new certificate in the place of the old one
  std::string data;
  std::vector<std::string> listen;
  std::chrono::milliseconds lease_term{60'000};
  std::string retention = "last=10,hourly=24,daily=14,weekly=8";
  std::chrono::milliseconds upload_grace{std::chrono::hours(24 * 7)};
  std::chrono::milliseconds gc_interval{std::chrono::hours(24)};
  std::uint64_t gc_rate = 64 << 20;
  std::uint64_t scrub_rate = 4 << 20;
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
