// Every version that the server ever shows is byte-equal to a flush point of its guest's history,
// in order, whatever kills, power cuts and half-done commits came between. DIMS_TEST_SIZE =
// commits.
#include "tests/sim/sim_machine.h"

using namespace dims;
using namespace dims::sim;

namespace {

void one_stretch_of_life(World& world, SimMachine& machine) {
  SeededRandom& random = world.random;
  for (std::uint64_t i = 1 + random.below(6); i > 0; --i) {
    switch (random.below(10)) {
      case 0:
        REQUIRE(machine.zero());
        break;
      case 1:
      case 2:
        REQUIRE(machine.flush());
        break;
      case 3:
        machine.read_some();
        break;
      default:
        REQUIRE(machine.write());
    }
  }
}

void crash(World& world, SimMachine& machine) {
  SeededRandom& random = world.random;
  switch (random.below(4)) {
    case 0:
      machine.kill();
      break;
    case 1:
      machine.power_cut();
      break;
    case 2:  // in the middle of requests
      machine.arm_power_cut();
      for (int i = 0; i < 10 && (random.below(4) == 0 ? machine.flush() : machine.write()); ++i) {
      }
      machine.power_cut();
      break;
    default:  // between two steps of a commit
      machine.stop_behind(static_cast<ldim::CommitStep>(random.below(7)));
      (void)machine.commit().ok();
      if (random.below(2) == 0)
        machine.kill();
      else
        machine.power_cut();
  }
  if (random.below(8) == 0) world.server.restart();
  test::require_ok(machine.open());
}

}  // namespace

TEST_CASE("every_version_that_the_server_showed_is_a_flush_point_of_the_guest") {
  const std::uint64_t wanted = test::rounds(1000, 10000);
  std::uint64_t commits = 0;
  std::uint64_t versions = 0;
  std::uint64_t crashes = 0;
  for (std::uint64_t round = 0; commits < wanted; ++round) {
    const std::uint64_t seed = test::seed() + round;
    INFO("DIMS_TEST_SEED=" << seed);
    World world(seed, 2048);
    SimMachine machine(world, "pc", mix(seed), std::chrono::seconds(0), 0);
    test::require_ok(machine.open());
    for (int step = 0; step < 250 && commits < wanted; ++step) {
      one_stretch_of_life(world, machine);
      if (world.random.below(20) == 0) {
        crash(world, machine);
        ++crashes;
      } else if (world.random.below(40) == 0) {
        machine.end_session();
        test::require_ok(machine.open());
      }
      const auto done = machine.commit();
      REQUIRE((done.ok() || done.error().code == ErrorCode::kConflict));
      if (done.ok() && *done) ++commits;
      world.check_versions({&machine});
    }
    REQUIRE(machine.flush());
    machine.commit_all();
    machine.read_all();
    world.check_versions({&machine});
    CHECK(world.stamps_of_head(world.image) == machine.history().flushed());
    versions += world.versions_checked();
  }
  std::printf("%llu commits, %llu versions compared, %llu crashes\n",
              static_cast<unsigned long long>(commits), static_cast<unsigned long long>(versions),
              static_cast<unsigned long long>(crashes));
}
