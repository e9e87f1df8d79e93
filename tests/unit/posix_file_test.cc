// The kernel's files, where the kernel is told to fail.
#include <catch2/catch.hpp>

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "common/io/file.h"

using namespace dims;

namespace {

std::atomic<int> fail_syncs{0};  // so many from now on
std::atomic<int> syncs_running{0};
std::atomic<int> syncs_running_most{0};

}  // namespace

// Stands before the C library's for this program.
extern "C" int fdatasync(int fd) {
  const int running = ++syncs_running;
  if (running > syncs_running_most) syncs_running_most = running;
  const bool fails = fail_syncs > 0;
  if (fails) --fail_syncs;
  std::this_thread::yield();
  const int done = fails ? -1 : static_cast<int>(::syscall(SYS_fdatasync, fd));
  --syncs_running;
  if (fails) errno = EIO;
  return done;
}

TEST_CASE("a file whose sync failed once is never synced again") {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("dims-posix-file-" + std::to_string(::getpid())))
          .string();
  auto& fs = io::posix_file_system();
  {
    const auto file = fs.open(path, io::OpenMode::kCreate);
    REQUIRE(file.ok());
    const Bytes data(100, 7);
    REQUIRE((*file)->write_at(0, data).ok());
    REQUIRE((*file)->sync_data().ok());
    REQUIRE((*file)->write_at(50, data).ok());
    fail_syncs = 1;
    // All at once: the kernel tells one of them.
    std::atomic<int> told{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        if ((*file)->sync_data().ok()) ++told;
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(told == 0);
    CHECK(syncs_running_most == 1);
    CHECK((*file)->sync_data().error().code == ErrorCode::kIo);
  }
  // Opened anew it is another matter: the journal then writes again what was not proven synced.
  const auto again = fs.open(path, io::OpenMode::kReadWrite);
  REQUIRE(again.ok());
  CHECK((*again)->sync_data().ok());
  REQUIRE(fs.remove(path).ok());
}
