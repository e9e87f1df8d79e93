// How fast the kernel copies a cached file into buffers that begin at, and behind, a page's
// boundary, and into what malloc gives (common/base/page_buffer.h). GB/s, in turn, medians.
// copy_bench [ROUNDS]. Not built by default: ninja copy_bench.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "common/base/page_buffer.h"

using namespace dims;

namespace {

constexpr std::size_t kFileBytes = 128 * kMiB;
constexpr std::size_t kReadBytes = 256 * kKiB;

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

double read_file(int fd, std::uint8_t* to) {
  const double from = seconds();
  for (std::size_t at = 0; at < kFileBytes; at += kReadBytes) {
    if (::pread(fd, to, kReadBytes, static_cast<off_t>(at)) != static_cast<ssize_t>(kReadBytes)) {
      std::perror("pread");
      std::exit(1);
    }
  }
  return kFileBytes / (seconds() - from) / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 9;
  const char* const temporary = std::getenv("TMPDIR");
  std::string path = std::string(temporary != nullptr ? temporary : "/tmp") + "/copy_bench.XXXXXX";
  const int fd = ::mkstemp(path.data());
  if (fd < 0) return std::perror(path.c_str()), 1;
  ::unlink(path.c_str());
  const Bytes content(kReadBytes, 7);
  for (std::size_t at = 0; at < kFileBytes; at += kReadBytes) {
    if (::write(fd, content.data(), kReadBytes) != static_cast<ssize_t>(kReadBytes))
      return std::perror("write"), 1;
  }
  PageBuffer aligned(kReadBytes + kPageBytes);
  Bytes from_malloc(kReadBytes);
  struct Place {
    std::string name;
    std::uint8_t* to;
    std::vector<double> speeds;
  };
  std::vector<Place> places;
  for (const unsigned behind : {0U, 16U, 64U, 2048U, 4080U})
    places.push_back({std::to_string(behind), aligned.data() + behind, {}});
  const auto behind = reinterpret_cast<std::uintptr_t>(from_malloc.data()) % kPageBytes;
  places.push_back({std::to_string(behind) + " (a vector)", from_malloc.data(), {}});
  for (int round = 0; round < rounds; ++round)
    for (Place& place : places) place.speeds.push_back(read_file(fd, place.to));
  for (Place& place : places) {
    std::sort(place.speeds.begin(), place.speeds.end());
    std::printf("%16s bytes behind a boundary: %5.2f GB/s (%.2f to %.2f)\n", place.name.c_str(),
                place.speeds[place.speeds.size() / 2], place.speeds.front(), place.speeds.back());
  }
  ::close(fd);
  return 0;
}
