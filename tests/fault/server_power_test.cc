// The server's power goes at any call of the engine. States: DIMS_TEST_SIZE (2,000; large 50,000).
#include <spdlog/spdlog.h>

#include <array>
#include <cstdio>
#include <thread>
#include <catch2/catch.hpp>

#include "tests/fault/server_rig.h"
#include "tests/support/seed.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

// What a cut left opens, maybe after further cuts while it recovers, and is whole.
std::string recover(ServerRig& rig, std::uint64_t* cuts) {
  for (int again = 0; again < 2 && rig.random().below(4) == 0; ++again) {
    rig.disk().cut_after(rig.random().below(40));
    (void)rig.open();
    rig.disk().cut();
    rig.close();
    rig.disk().apply(rig.random());
    ++*cuts;
  }
  const Status opened = rig.open();
  if (!opened.ok()) return "cannot open: " + opened.error().to_string();
  return rig.look();
}

struct Lives {
  std::uint64_t cuts = 0, commits = 0;
  std::string failure;
};

// Stores that are written to, cut and recovered up to 25 times each, until there were enough cuts.
void live_and_cut(Lives& lives, std::uint64_t first_seed, std::uint64_t wanted) {
  for (std::uint64_t now = first_seed; lives.cuts < wanted; ++now) {
    const std::string where = ", DIMS_TEST_SEED=" + std::to_string(now) + " (the run's first life)";
    ServerRig rig(now);
    if (!rig.open().ok() || !rig.make_image().ok()) {
      lives.failure = "no new store" + where;
      return;
    }
    for (int life = 0; life < 25 && lives.cuts < wanted; ++life) {
      rig.disk().cut_after(rig.random().below(160));
      if (rig.acquire().ok()) {
        while (rig.commit_once().ok()) {
        }
      }
      rig.disk().cut();
      rig.close();
      rig.disk().apply(rig.random());
      ++lives.cuts;
      lives.failure = recover(rig, &lives.cuts);
      if (!lives.failure.empty()) {
        lives.failure += where;
        return;
      }
    }
    lives.commits += rig.commits();
  }
}

}  // namespace

TEST_CASE("server_power_cut_at_any_call_keeps_every_acknowledged_commit") {
  spdlog::set_level(spdlog::level::off);
  // Two at a time: a life waits for the engine's threads most of the time.
  const std::uint64_t wanted = rounds(2'000, 50'000);
  std::array<Lives, 2> sides;
  std::vector<std::thread> threads;
  for (std::size_t side = 0; side < sides.size(); ++side) {
    threads.emplace_back(
        [&, side] { live_and_cut(sides[side], seed() + side * 1'000'000, wanted / sides.size()); });
  }
  for (auto& thread : threads) thread.join();
  for (const Lives& side : sides) REQUIRE(side.failure == "");
  std::printf("%llu power cuts, seed %llu: %llu acknowledged commits, none lost\n",
              static_cast<unsigned long long>(sides[0].cuts + sides[1].cuts),
              static_cast<unsigned long long>(seed()),
              static_cast<unsigned long long>(sides[0].commits + sides[1].commits));
}
