// Clock and Random: time and randomness come in through these, so that tests drive them from a
// seed. Threads: implementations are thread-safe. Units: nanoseconds.
#pragma once

#include <chrono>
#include <cstdint>

#include "common/base/bytes.h"

namespace dims {

class Clock {
 public:
  virtual ~Clock() = default;
  // CLOCK_BOOTTIME: runs on while the host sleeps. For leases, delays, ages.
  virtual std::chrono::nanoseconds boottime() = 0;
  // Nanoseconds since 1970 UTC. For people, and for what signed records say of their validity; no
  // lease or delay depends on it.
  virtual std::chrono::nanoseconds wall() = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutByteView out) = 0;

  template <typename IdType>
  IdType id() {
    IdType value;
    fill(value.mut());
    return value;
  }
  std::uint64_t u64() {
    std::uint8_t raw[8];
    fill(raw);
    std::uint64_t v;
    std::memcpy(&v, raw, sizeof v);
    return v;
  }
};

Clock& system_clock();
// The operating system's generator; for keys, salts and ids.
Random& system_random();

// A deterministic generator for tests (not for keys).
class SeededRandom : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}
  void fill(MutByteView out) override;
  std::uint64_t next();
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : next() % bound; }

 private:
  std::uint64_t state_;
};

class ManualClock : public Clock {
 public:
  std::chrono::nanoseconds boottime() override { return now_; }
  std::chrono::nanoseconds wall() override { return now_; }
  void advance(std::chrono::nanoseconds by) { now_ += by; }

 private:
  std::chrono::nanoseconds now_{std::chrono::hours(1)};
};

}  // namespace dims
