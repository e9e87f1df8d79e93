// The real rdim-server as a child process on a port of its own. Threads: one owner. It is killed at
// the end of the test if it still runs. Errors: a failed start fails the test.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace dims::test {

class ServerProcess {
 public:
  // Starts it on 127.0.0.1:0 and waits until it answers.
  explicit ServerProcess(const std::string& data, const std::vector<std::string>& more = {});
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }
  pid_t pid() const { return pid_; }
  // Sends the signal and waits; the exit code, or 128 + the signal that ended it.
  int end(int signal_number);

 private:
  pid_t pid_ = -1;
  int port_ = 0;
};

struct Outcome {
  int exit_code = 0;
  std::string output;  // both streams
};
// Runs it to its own end.
Outcome run_server(const std::vector<std::string>& arguments);

}  // namespace dims::test
