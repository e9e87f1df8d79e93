// Two and three machines want one image; pauses beyond the lease, clocks off by an hour, a bad
// network, kills and power cuts. No commit with a stale token, and everything that a loser had
// flushed is in a version of its branch. DIMS_TEST_SIZE = pauses beyond the lease.
#include <nlohmann/json.hpp>

#include "tests/sim/sim_machine.h"

using namespace dims;
using namespace dims::sim;

namespace {

bool may_happen(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kStaleLease ||
         error.code == ErrorCode::kMissingObjects || error.code == ErrorCode::kLeaseHeld ||
         error.code == ErrorCode::kConflict;
}

struct Totals {
  std::uint64_t pauses = 0, versions = 0, branches = 0, stale = 0, worlds = 0;
};

class Writers {
 public:
  Writers(std::uint64_t seed, std::size_t count) : world_(seed, 512), random_(world_.random) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto off = std::chrono::seconds(static_cast<std::int64_t>(random_.below(7200)) - 3600);
      const int permille = static_cast<int>(random_.below(21)) - 10;
      machines_.push_back(std::make_unique<SimMachine>(world_, "pc" + std::to_string(i),
                                                       mix(seed + i), off, permille));
      all_.push_back(machines_.back().get());
    }
  }

  void live(int steps, Totals& totals) {
    for (SimMachine* machine : all_) {
      machine->remote().set_plan({static_cast<unsigned>(random_.below(20)), 1, 0});
    }
    for (int step = 0; step < steps; ++step) {
      SimMachine& machine = *all_[random_.below(all_.size())];
      if (!machine.is_open() && !open(machine)) continue;
      work(machine);
      event(machine, totals);
      if (!machine.is_open()) continue;
      const auto done = machine.commit();
      if (!done.ok()) {
        INFO(done.error().to_string());
        REQUIRE(may_happen(done.error()));
      }
      world_.check_versions(all_);
    }
    settle();
    totals.versions += world_.versions_checked();
    totals.branches += world_.server.catalog().list_images("", 1000).size() - 1;
    totals.stale += world_.server.stale_refused();
    ++totals.worlds;
  }

 private:
  bool open(SimMachine& machine) {
    // Mostly after the other's lease; else it waits for it, which costs real time.
    if (random_.below(12) != 0) world_.clock.advance(kLeaseTerm + std::chrono::seconds(1));
    const Status opened = machine.open();
    INFO((opened.ok() ? std::string() : opened.error().to_string()));
    REQUIRE((opened.ok() || may_happen(opened.error())));
    return opened.ok();
  }

  void work(SimMachine& machine) {
    for (std::uint64_t i = 1 + random_.below(4); i > 0; --i) {
      const std::uint64_t what = random_.below(10);
      if (what < 3)
        REQUIRE(machine.flush());
      else if (what == 3)
        machine.read_some();
      else
        REQUIRE(machine.write());
    }
  }

  void event(SimMachine& machine, Totals& totals) {
    const std::uint64_t what = random_.below(20);
    if (what < 6) {
      ++totals.pauses;
      world_.clock.advance(kLeaseTerm + std::chrono::seconds(1 + random_.below(7200)));
    } else if (what == 6) {
      machine.kill();
    } else if (what == 7) {
      machine.power_cut();
    } else if (what == 8) {
      machine.stop_behind(static_cast<ldim::CommitStep>(random_.below(7)));
      (void)machine.commit().ok();
      machine.kill();
    } else if (what == 9) {
      machine.end_session();
    } else if (what == 10) {
      world_.server.restart();
    } else if (what == 11) {
      machine.remote().deliver_late();
    }
  }

  // The network is good again: everybody's flushed writes arrive, on the image or on a branch.
  void settle() {
    for (SimMachine* machine : all_) {
      machine->remote().set_plan({});
      machine->remote().deliver_late();
    }
    for (SimMachine* machine : all_) {
      world_.clock.advance(kLeaseTerm + std::chrono::seconds(1));
      if (!machine->is_open()) test::require_ok(machine->open());
      REQUIRE(machine->flush());
      machine->commit_all();
      const auto image = ImageId::from_hex_text(machine->status()["image_id"].get<std::string>());
      REQUIRE(image.has_value());
      INFO("DIMS_TEST_SEED=" << world_.seed << " " << machine->status().dump());
      REQUIRE(world_.holds(hash_stamps(machine->history().flushed())));
      machine->read_all();
      world_.check_versions(all_);
    }
  }

  World world_;
  SeededRandom& random_;
  std::vector<std::unique_ptr<SimMachine>> machines_;
  std::vector<SimMachine*> all_;
};

}  // namespace

TEST_CASE("several_writers_never_commit_with_a_stale_token_and_lose_nothing_flushed") {
  const std::uint64_t wanted = test::rounds(1000, 20000);
  Totals totals;
  while (totals.pauses < wanted) {
    const std::uint64_t seed = test::seed() + totals.worlds;
    INFO("DIMS_TEST_SEED=" << seed);
    Writers writers(seed, 2 + seed % 2);
    writers.live(60, totals);
  }
  std::printf(
      "%llu pauses beyond the lease, %llu worlds, %llu versions compared, %llu branches, %llu "
      "stale "
      "tokens refused\n",
      static_cast<unsigned long long>(totals.pauses),
      static_cast<unsigned long long>(totals.worlds),
      static_cast<unsigned long long>(totals.versions),
      static_cast<unsigned long long>(totals.branches),
      static_cast<unsigned long long>(totals.stale));
  CHECK(totals.branches > 0);
}
