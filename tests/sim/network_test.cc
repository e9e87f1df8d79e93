// The network loses, repeats, delays, reorders and cuts calls, hangs and pauses for up to an hour:
// one writer never conflicts with itself, nothing flushed is lost, every version is a flush point,
// and what is read is right. DIMS_TEST_SIZE = faults.
#include <nlohmann/json.hpp>

#include "tests/sim/sim_machine.h"

using namespace dims;
using namespace dims::sim;

namespace {

// What a broken network may make of an attempt; everything else is a bug.
bool may_happen(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kStaleLease ||
         error.code == ErrorCode::kMissingObjects;
}

void guest_works(World& world, SimMachine& machine, bool online) {
  SeededRandom& random = world.random;
  for (std::uint64_t i = 1 + random.below(5); i > 0; --i) {
    const std::uint64_t what = random.below(10);
    if (what == 0)
      REQUIRE(machine.zero());
    else if (what < 3)
      REQUIRE(machine.flush());
    else if (what == 3 && online)
      machine.read_some();
    else
      REQUIRE(machine.write());
  }
}

void open_again(SimMachine& machine) {
  Status opened;
  for (int tries = 0; tries < 40; ++tries) {
    opened = machine.open();
    if (opened.ok()) return;
    INFO(opened.error().to_string());
    REQUIRE(may_happen(opened.error()));
  }
  test::require_ok(opened);
}

void run_world(std::uint64_t seed, int steps, std::uint64_t& faults, std::uint64_t& versions) {
  INFO("DIMS_TEST_SEED=" << seed);
  World world(seed, 1024);
  SeededRandom& random = world.random;
  SimMachine machine(world, "pc", mix(seed), std::chrono::seconds(0), 0);
  test::require_ok(machine.open());
  const NetworkPlan plan{static_cast<unsigned>(5 + random.below(40)), 3, 0};
  machine.remote().set_plan(plan);
  bool online = true;
  for (int step = 0; step < steps; ++step) {
    guest_works(world, machine, online);
    const std::uint64_t event = random.below(60);
    if (event == 0) {
      online = false;
      machine.remote().set_available(false);
    } else if (event < 4 && !online) {
      online = true;
      machine.remote().set_available(true);
    } else if (event == 5) {
      world.server.restart();
    } else if (event == 6 && online) {
      if (random.below(2) == 0)
        machine.kill();
      else
        machine.power_cut();
      open_again(machine);
    } else if (event == 7 && online) {
      machine.stop_behind(static_cast<ldim::CommitStep>(random.below(7)));
      (void)machine.commit().ok();
      machine.kill();
      open_again(machine);
    } else if (event == 8) {
      world.clock.advance(std::chrono::seconds(1 + random.below(3600)));
    }
    const auto done = machine.commit();
    if (!done.ok()) {
      INFO(done.error().to_string());
      REQUIRE(may_happen(done.error()));
    }
    world.check_versions({&machine});
  }
  machine.remote().set_available(true);
  machine.remote().set_plan({});
  machine.remote().deliver_late();
  REQUIRE(machine.flush());
  machine.commit_all();
  machine.remote().deliver_late();
  machine.read_all();
  world.check_versions({&machine});
  CHECK(world.stamps_of_head(world.image) == machine.history().flushed());
  // One writer: nothing is a conflict.
  CHECK(world.server.catalog().list_images("", 100).size() == 1);
  faults += machine.remote().faults();
  versions += world.versions_checked();
}

}  // namespace

TEST_CASE("a_broken_network_loses_nothing_and_makes_no_conflict") {
  const std::uint64_t wanted = test::rounds(2000, 50000);
  std::uint64_t faults = 0;
  std::uint64_t versions = 0;
  std::uint64_t rounds = 0;
  for (; faults < wanted; ++rounds) run_world(test::seed() + rounds, 150, faults, versions);
  std::printf("%llu faults, %llu versions compared, %llu worlds\n",
              static_cast<unsigned long long>(faults), static_cast<unsigned long long>(versions),
              static_cast<unsigned long long>(rounds));
}
