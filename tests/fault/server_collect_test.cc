// Garbage collection against everything else, step by step. Schedules: DIMS_TEST_SIZE (20,000;
// large 1,000,000); DIMS_TEST_SCHEDULE=N runs the Nth of the seed alone.
#include <unistd.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <catch2/catch.hpp>

#include "rdim-server/stores/store.h"
#include "tests/fault/server_collect_world.h"
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
      "spared, %llu versions let go\n",
      static_cast<unsigned long long>(wanted.to - wanted.from),
      static_cast<unsigned long long>(seed()), static_cast<unsigned long long>(sum.commits),
      static_cast<unsigned long long>(sum.missing), static_cast<unsigned long long>(sum.branches),
      static_cast<unsigned long long>(sum.removals), static_cast<unsigned long long>(sum.restarts),
      static_cast<unsigned long long>(sum.collections),
      static_cast<unsigned long long>(sum.steps_inside_commits),
      static_cast<unsigned long long>(sum.swept), static_cast<unsigned long long>(sum.spared),
      static_cast<unsigned long long>(sum.dropped));
}

TEST_CASE("the_same_on_the_engine") {
  spdlog::set_level(spdlog::level::err);
  const TreePool pool(seed());
  const Schedules wanted = schedules(std::max<std::uint64_t>(rounds(20'000, 1'000'000) / 2000, 1));
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("dims-collect-" + std::to_string(getpid())))
          .string();
  for (std::uint64_t n = wanted.from; n < wanted.to; ++n) {
    std::filesystem::remove_all(folder);
    ManualClock clock;
    clock.advance(std::chrono::hours(24 * 365));
    stores::StoreOptions options;
    options.folder = folder;
    options.write_buffer_bytes = kMiB;
    const auto store = stores::Store::open(options, clock, system_random());
    REQUIRE(store.ok());
    CollectWorld world(
        pool, seed() + n, clock, [&](std::chrono::seconds by) { clock.advance(by); },
        (*store)->objects(), (*store)->refs());
    INFO("DIMS_TEST_SEED=" << seed() << ", schedule " << n);
    REQUIRE(world.run(kSteps) == "");
  }
  std::filesystem::remove_all(folder);
}
