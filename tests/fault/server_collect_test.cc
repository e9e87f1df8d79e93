// Garbage collection against everything else, step by step. Schedules: DIMS_TEST_SIZE (20,000;
// large 1,000,000); DIMS_TEST_SCHEDULE=N runs the Nth of the seed alone.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <catch2/catch.hpp>

#include "rdim-server/stores/store.h"
#include "tests/fault/server_collect_world.h"
#include "tests/fault/server_rig.h"
#include "tests/support/seed.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

constexpr std::size_t kSteps = 160;

struct Schedules {
  std::uint64_t from = 0, to = 0;
};
Schedules schedules(std::uint64_t wanted) {
  const char* const one = std::getenv("DIMS_TEST_SCHEDULE");
  if (one == nullptr) return {0, wanted};
  const std::uint64_t at = std::strtoull(one, nullptr, 0);
  return {at, at + 1};
}

std::string run_in_memory(const TreePool& pool, std::uint64_t seed, CollectWorld::Counts& sum) {
  ManualClock clock;
  clock.advance(std::chrono::hours(24 * 365));
  stores::MemoryObjectStore objects(clock);
  stores::MemoryRefStore refs;
  CollectWorld world(
      pool, seed, clock, [&](std::chrono::seconds by) { clock.advance(by); }, objects, refs);
  std::string wrong = world.run(kSteps);
  const CollectWorld::Counts& counts = world.counts();
  sum.commits += counts.commits;
  sum.missing += counts.missing;
  sum.branches += counts.branches;
  sum.removals += counts.removals;
  sum.collections += counts.collections;
  sum.swept += counts.swept;
  sum.spared += counts.spared;
  sum.dropped += counts.dropped;
  sum.restarts += counts.restarts;
  sum.steps_inside_commits += counts.steps_inside_commits;
  sum.saves += counts.saves;
  sum.resumed += counts.resumed;
  sum.resumed_sweeps += counts.resumed_sweeps;
  return wrong;
}

// One schedule whose restarts are power cuts: what was not synced is lost, a touch as well as an
// object. Empty: all is well.
std::string run_with_power_cuts(const TreePool& pool, std::uint64_t seed, const std::string& folder,
                                CollectWorld::Counts& sum) {
  ManualClock clock;
  clock.advance(std::chrono::hours(24 * 365));
  SeededRandom random(seed);
  const auto disk = std::make_shared<PowerFileSystem>();
  PowerEnv env(disk);
  stores::StoreOptions options;
  options.folder = folder;
  options.env = &env;
  options.write_buffer_bytes = 256 * kKiB;
  options.block_cache_bytes = kMiB;
  options.open_threads_max = 1;
  options.log_bytes_max = kGiB;
  auto store = stores::Store::open(options, clock, random);
  if (!store.ok()) return store.error().to_string();
  std::string wrong;
  CollectWorld world(
      pool, seed, clock, [&](std::chrono::seconds by) { clock.advance(by); }, (*store)->objects(),
      (*store)->refs());
  world.reopen = [&] {
    disk->cut();
    store->reset();
    disk->apply(random);
    store = stores::Store::open(options, clock, random);
    if (!store.ok()) {
      std::fprintf(stderr, "cannot open: %s\n", store.error().to_string().c_str());
      _exit(1);
    }
    return std::pair(&(*store)->objects(), &(*store)->refs());
  };
  wrong = world.run(kSteps);
  sum.restarts += world.counts().restarts;
  sum.resumed += world.counts().resumed;
  sum.resumed_sweeps += world.counts().resumed_sweeps;
  return wrong;
}

}  // namespace

TEST_CASE("collection_among_uploads_commits_branches_and_removals_takes_garbage_and_only_garbage") {
  spdlog::set_level(spdlog::level::err);  // its clock runs backwards, and that is told
  const TreePool pool(seed());
  const Schedules wanted = schedules(rounds(20'000, 1'000'000));
  CollectWorld::Counts sum;
  for (std::uint64_t n = wanted.from; n < wanted.to; ++n) {
    const std::string wrong = run_in_memory(pool, seed() + n, sum);
    INFO("DIMS_TEST_SEED=" << seed() << ", schedule " << n);
    REQUIRE(wrong == "");
  }
  std::printf(
      "%llu schedules, seed %llu: %llu commits (%llu sent again), %llu branches, %llu removals, "
      "%llu "
      "restarts,\n  %llu collections (%llu steps of them inside a commit), %llu objects swept, "
      "%llu "
      "spared, %llu versions let go,\n  %llu times a collection went on after a restart (%llu in "
      "its sweep), %llu saves\n",
      static_cast<unsigned long long>(wanted.to - wanted.from),
      static_cast<unsigned long long>(seed()), static_cast<unsigned long long>(sum.commits),
      static_cast<unsigned long long>(sum.missing), static_cast<unsigned long long>(sum.branches),
      static_cast<unsigned long long>(sum.removals), static_cast<unsigned long long>(sum.restarts),
      static_cast<unsigned long long>(sum.collections),
      static_cast<unsigned long long>(sum.steps_inside_commits),
      static_cast<unsigned long long>(sum.swept), static_cast<unsigned long long>(sum.spared),
      static_cast<unsigned long long>(sum.dropped), static_cast<unsigned long long>(sum.resumed),
      static_cast<unsigned long long>(sum.resumed_sweeps),
      static_cast<unsigned long long>(sum.saves));
  if (wanted.to - wanted.from >= 1000) REQUIRE(sum.resumed_sweeps > 0);
}

// A process each: RocksDB 7.8 ends itself now and then when a flush fails (server_error_test.cc).
TEST_CASE("the_same_on_the_engine_with_a_power_cut_at_every_restart") {
  spdlog::set_level(spdlog::level::off);
  const TreePool pool(seed());
  const Schedules wanted = schedules(std::max<std::uint64_t>(rounds(20'000, 1'000'000) / 500, 1));
  struct Shared {
    CollectWorld::Counts sum;
  };
  auto* const shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(shared != MAP_FAILED);
  new (shared) Shared();
  std::uint64_t aborted = 0;
  for (std::uint64_t n = wanted.from; n < wanted.to; ++n) {
    const std::string folder = scratch_folder();
    std::filesystem::remove_all(folder);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      signal(SIGABRT, SIG_DFL);
      const std::string wrong = run_with_power_cuts(pool, seed() + n, folder, shared->sum);
      if (!wrong.empty()) std::fprintf(stderr, "%s\n", wrong.c_str());
      _exit(wrong.empty() ? 0 : 1);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    std::filesystem::remove_all(folder);
    INFO("DIMS_TEST_SEED=" << seed() << ", schedule " << n);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) {
      ++aborted;
      continue;
    }
    REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  }
  std::printf(
      "%llu schedules on the engine, seed %llu: %llu power cuts, %llu times a collection went on "
      "(%llu in its sweep); %llu times the engine ended itself\n",
      static_cast<unsigned long long>(wanted.to - wanted.from),
      static_cast<unsigned long long>(seed()),
      static_cast<unsigned long long>(shared->sum.restarts),
      static_cast<unsigned long long>(shared->sum.resumed),
      static_cast<unsigned long long>(shared->sum.resumed_sweeps),
      static_cast<unsigned long long>(aborted));
  CHECK(aborted * 5 <= wanted.to - wanted.from);
  munmap(shared, sizeof(Shared));
}
