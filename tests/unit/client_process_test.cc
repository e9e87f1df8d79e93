// The client and its process: nothing of it runs before connect(), so a program may fork before;
// nothing of it runs after the end.
#include <catch2/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "common/client/client.h"

using namespace dims;

namespace {

std::size_t threads_now() {
  std::size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    (void)task;
    ++count;
  }
  return count;
}

// ThreadSanitizer has a thread of its own, but not in a child.
#if defined(__SANITIZE_THREAD__)
constexpr bool kExtraThreads = true;
#else
constexpr bool kExtraThreads = false;
#endif

// 0 when a client could be used and left no thread behind.
int use_client() {
  if (kExtraThreads) std::thread([] {}).join();  // its own begins with the first of ours
  const std::size_t before = threads_now();
  if (before != 1 && !kExtraThreads) return 1;
  client::ClientOptions options;
  options.address = "unix:/nonexistent/rdim.sock";
  for (int round = 0; round < 3; ++round) {
    auto remote = client::connect(options);
    if (!remote.ok()) return 2;
    const auto refused = (*remote)->hello();
    if (refused.ok() || refused.error().code != ErrorCode::kUnavailable) return 3;
    if ((*remote)->watch({}, {}).ok()) return 4;
    remote->reset();
  }
  // gRPC ends its own threads a moment after its last user has gone.
  for (int i = 0; i < 3000; ++i) {
    if (threads_now() == before) return 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return 5;
}

}  // namespace

TEST_CASE("a process that forks before it connects works and ends without threads left") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(use_client());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(use_client() == 0);
}
