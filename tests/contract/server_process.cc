#include "tests/contract/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>
#include <catch2/catch.hpp>

namespace dims::test {
namespace {

constexpr std::chrono::seconds kStartWithin{60};

pid_t spawn(const std::vector<std::string>& arguments, const std::string& output) {
  std::vector<std::string> words{DIMS_RDIM_SERVER};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    const int fd = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  return pid;
}

int wait_for(pid_t pid) {
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string read_all(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

ServerProcess::ServerProcess(const std::string& data, const std::vector<std::string>& more) {
  const std::string port_file = data + ".port", log = data + ".log";
  std::filesystem::remove(port_file);
  std::vector<std::string> arguments{"--data",      data,          "--listen",
                                     "127.0.0.1:0", "--port-file", port_file};
  arguments.insert(arguments.end(), more.begin(), more.end());
  pid_ = spawn(arguments, log);
  const auto until = std::chrono::steady_clock::now() + kStartWithin;
  while (port_ == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const std::string text = read_all(port_file);
    if (!text.empty() && text.back() == '\n') port_ = std::stoi(text);
    const bool gone = waitpid(pid_, nullptr, WNOHANG) != 0;
    INFO(read_all(log));
    if (gone) pid_ = -1;
    REQUIRE(!gone);
    REQUIRE(std::chrono::steady_clock::now() < until);
  }
}

ServerProcess::~ServerProcess() {
  if (pid_ > 0) end(SIGKILL);
}

int ServerProcess::end(int signal_number) {
  kill(pid_, signal_number);
  const int code = wait_for(pid_);
  pid_ = -1;
  return code;
}

Outcome run_server(const std::vector<std::string>& arguments) {
  const auto output =
      std::filesystem::temp_directory_path() / ("dims-server-" + std::to_string(getpid()) + ".out");
  std::filesystem::remove(output);
  Outcome outcome;
  outcome.exit_code = wait_for(spawn(arguments, output.string()));
  outcome.output = read_all(output.string());
  std::filesystem::remove(output);
  return outcome;
}

}  // namespace dims::test
