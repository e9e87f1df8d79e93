// What every simulation shares: one clock, clocks that are off, a generator for
// several threads.
//
// Threads: thread-safe. Units: nanoseconds. A simulation prints its seed; DIMS_TEST_SEED=N repeats
// it.
#pragma once

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <string>

#include "common/base/clock.h"
#include "tests/support/seed.h"
#include "tests/support/sizes.h"

namespace dims::sim {

// Time stands still but for advance().
class SimClock : public Clock {
 public:
  std::chrono::nanoseconds boottime() override { return std::chrono::nanoseconds(now_.load()); }
  std::chrono::nanoseconds wall() override {
    return boottime() + std::chrono::seconds(1'700'000'000);
  }
  void advance(std::chrono::nanoseconds by) { now_.fetch_add(by.count()); }

 private:
  std::atomic<std::int64_t> now_{std::chrono::nanoseconds(std::chrono::hours(5)).count()};
};

// The clock of one machine: it shows another time and may run faster or slower.
class SkewedClock : public Clock {
 public:
  SkewedClock(SimClock& truth, std::chrono::seconds off, int permille)
      : truth_(truth), off_(off), permille_(permille) {}
  std::chrono::nanoseconds boottime() override {
    const auto now = truth_.boottime();
    return now + now / 1000 * permille_ + off_;
  }
  std::chrono::nanoseconds wall() override { return truth_.wall() + off_; }

 private:
  SimClock& truth_;
  const std::chrono::seconds off_;
  const int permille_;
};

class LockedRandom : public Random {
 public:
  explicit LockedRandom(std::uint64_t seed) : random_(seed) {}
  void fill(MutByteView out) override {
    const std::lock_guard lock(mutex_);
    random_.fill(out);
  }

 private:
  std::mutex mutex_;
  SeededRandom random_;
};

inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace dims::sim
