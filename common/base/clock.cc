#include "common/base/clock.h"

#include <sys/random.h>
#include <time.h>

#include <atomic>
#include <cstdlib>

namespace dims {
namespace {

std::chrono::nanoseconds read_clock(clockid_t which) {
  timespec ts{};
  clock_gettime(which, &ts);
  return std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec);
}

class SystemClock : public Clock {
 public:
  std::chrono::nanoseconds boottime() override { return read_clock(CLOCK_BOOTTIME); }
  std::chrono::nanoseconds wall() override { return read_clock(CLOCK_REALTIME); }
};

class SystemRandom : public Random {
 public:
  void fill(MutByteView out) override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = getrandom(out.data() + done, out.size() - done, 0);
      if (n > 0) done += static_cast<std::size_t>(n);
      // Without randomness no key is safe: there is nothing sensible to go on with.
      else if (errno != EINTR)
        std::abort();
    }
  }
};

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

Random& system_random() {
  static SystemRandom random;
  return random;
}

std::uint64_t SeededRandom::next() {
  // splitmix64: small, well distributed, and the same everywhere.
  // Tests hand one to parts with threads of their own: each number is drawn once.
  constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15ull;
  std::uint64_t z = std::atomic_ref(state_).fetch_add(kStep, std::memory_order_relaxed) + kStep;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void SeededRandom::fill(MutByteView out) {
  std::size_t i = 0;
  while (i < out.size()) {
    const std::uint64_t v = next();
    const std::size_t n = std::min<std::size_t>(8, out.size() - i);
    std::memcpy(out.data() + i, &v, n);
    i += n;
  }
}

}  // namespace dims
