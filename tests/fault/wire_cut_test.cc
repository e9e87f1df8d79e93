// The real wire, cut: the real server's services, a proxy that breaks connections at bytes that the
// seed chooses, the real client under the real disk. What each world does follows from the seed;
// when its bytes arrive does not, so a seed repeats a run's kind and not its every moment.
// DIMS_TEST_SIZE = faults.
#include "tests/fault/wire_world.h"
#include "tests/support/sizes.h"

#include <grpc/grpc.h>
#include <spdlog/spdlog.h>

using namespace dims;
using namespace dims::test;

namespace {

constexpr std::uint64_t kFaultsPerWorld = 150;
constexpr std::size_t kSideBySide = 5;  // most of them wait
constexpr std::chrono::minutes kStandstill{10};
constexpr std::uint64_t kEnoughForAll = 1500;  // faults in which every kind and call occurs

using Count = unsigned long long;

// Of each connection that breaks much is said. And gRPC, when its last part goes, may wait ten
// seconds for a thread of its own that watches over stalled writes: it does not go.
void be_quiet() {
  if (std::getenv("DIMS_TEST_LOG") == nullptr) {
    spdlog::set_level(spdlog::level::critical);
    setenv("GRPC_VERBOSITY", "NONE", 0);
  }
  static const bool kept = [] { return grpc_init(), true; }();
  (void)kept;
}

void print(const WireTotals& totals) {
  std::printf("%llu faults in %llu worlds:", Count{totals.faults}, Count{totals.worlds});
  for (std::size_t i = 0; i < kWireFaultKinds; ++i)
    std::printf(" %s %llu%s", name_of(static_cast<WireFaultKind>(i)), Count{totals.kinds[i]},
                i + 1 < kWireFaultKinds ? "," : "\n");
  std::printf("%llu bytes passed, %llu lost\n", Count{totals.bytes_passed},
              Count{totals.bytes_lost});
  std::printf("%-14s %8s %12s %8s\n", "call", "made", "met a fault", "cut");
  for (std::size_t i = 0; i < kWireCalls; ++i)
    std::printf("%-14s %8llu %12llu %8llu\n", kWireCallNames[i],
                Count{totals.counts.calls[i].calls}, Count{totals.counts.calls[i].met},
                Count{totals.counts.calls[i].failed});
  std::printf(
      "%llu versions compared, %llu reads, %llu flushes, %llu commits failed and were done again, "
      "%llu kills, %llu sessions ended, %llu fresh machines\n",
      Count{totals.versions}, Count{totals.reads}, Count{totals.flushes},
      Count{totals.commits_failed}, Count{totals.kills}, Count{totals.sessions},
      Count{totals.machines});
}

// Until the faults are used up; several at a time.
std::vector<std::string> run_worlds(WireTotals& totals) {
  std::mutex mutex;
  std::vector<std::string> wrong;
  std::atomic<std::size_t> running{kSideBySide};
  const auto lane = [&] {
    while (totals.faults < totals.wanted) {
      std::string trouble;
      try {
        WireWorld world(seed() + totals.begun++, totals);
        trouble = world.run(kFaultsPerWorld);
      } catch (...) {
        trouble = "a world could not be made";
      }
      const std::lock_guard lock(mutex);
      if (!trouble.empty()) wrong.push_back(trouble);
      if (!wrong.empty()) break;
    }
    --running;
  };
  std::vector<std::thread> lanes;
  for (std::size_t i = 0; i < kSideBySide; ++i) lanes.emplace_back(lane);
  // Somebody who waits for ever is told from somebody slow.
  std::uint64_t seen = 0;
  auto moved = std::chrono::steady_clock::now();
  while (running != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (totals.movement() != seen) moved = std::chrono::steady_clock::now();
    seen = totals.movement();
    if (std::chrono::steady_clock::now() - moved < kStandstill) continue;
    print(totals);
    std::printf("nothing moves any more\n");
    std::fflush(stdout);
    std::abort();
  }
  for (std::thread& one : lanes) one.join();
  return wrong;
}

}  // namespace

TEST_CASE("a_line_cut_at_any_byte_loses_nothing_and_makes_no_conflict") {
  be_quiet();
  WireTotals totals(rounds(2000, 50000));
  const std::vector<std::string> wrong = run_worlds(totals);
  print(totals);
  for (const std::string& one : wrong) FAIL_CHECK(one);
  const auto cut = [&](WireCall call) { return totals.counts.of(call).failed.load(); };
  CHECK(cut(WireCall::kPut) > 0);
  CHECK(cut(WireCall::kGet) > 0);
  if (totals.faults < kEnoughForAll) return;
  for (std::size_t i = 0; i < kWireFaultKinds; ++i) {
    INFO(name_of(static_cast<WireFaultKind>(i)));
    CHECK(totals.kinds[i] > 0);
  }
  // The others are rarer; they are printed.
  for (const WireCall call : {WireCall::kHello, WireCall::kOpenSession, WireCall::kRenewLease,
                              WireCall::kCommit, WireCall::kHas, WireCall::kWatch}) {
    INFO(kWireCallNames[static_cast<std::size_t>(call)]);
    CHECK(totals.counts.of(call).met > 0);
  }
}

// "Wrong data after a timeout": a caller leaves while its answers are under way, and the next one
// asks on the same stream.
TEST_CASE("an_answer_that_comes_after_its_caller_gave_up_is_nobodys") {
  be_quiet();
  struct GaveUp {};
  SeededRandom random(seed());
  WireServer server(random.next(), std::chrono::minutes(10));
  const auto clean = server.connect(server.local());
  const format::KeyFile key = format::generate_key_file(random);
  contract::ImageInfo image;
  image.id = random.id<ImageId>();
  image.name = "disk";
  image.image_bytes = 64 * kMiB;
  image.domain = key.domain;
  image.key_check = key.key_check(image.id);
  REQUIRE(clean->create_image(image).ok());
  std::vector<format::ObjectKey> keys;
  std::vector<Bytes> objects;
  std::vector<contract::Remote::PutItem> items;
  for (int i = 0; i < 24; ++i) {
    Bytes pages(8 * kPageBytes);
    random.fill(pages);
    auto sealed = format::seal_chunk(key.domain_key(), pages, false);
    keys.push_back(sealed.ref.object_key());
    objects.push_back(std::move(sealed.bytes));
  }
  for (std::size_t i = 0; i < keys.size(); ++i) items.push_back({keys[i], objects[i]});
  REQUIRE(clean->put(image.id, items, contract::Priority::kWriteBack).ok());

  std::uint64_t late = 0;
  const std::uint64_t turns = rounds(40, 2000);
  for (std::uint64_t turn = 0; turn < turns; ++turn) {
    BreakingProxy line(turn % 2 == 0 ? server.tcp() : server.local(), server.folder() + "/line",
                       {});
    const auto remote = server.connect(line.address(), [&](client::ClientOptions& options) {
      options.keys_per_request = turn % 4 < 2 ? 1 : 3;
    });
    REQUIRE(remote->hello().ok());
    const auto priority =
        random.below(2) == 0 ? contract::Priority::kDemand : contract::Priority::kPrefetch;
    // The first answer comes, the others are cut off somewhere and held.
    line.let_down(110'000 + random.below(120'000));
    CHECK_THROWS_AS(remote->get(image.id, std::span(keys).first(12), priority,
                                [](std::size_t, const Result<Bytes>&) { throw GaveUp(); }),
                    GaveUp);
    for (int i = 0; i < 500 && line.bytes_held_down() == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    late += line.bytes_held_down();
    // Others, or the same once more.
    const std::size_t first = random.below(13);
    const std::size_t count = 1 + random.below(12);
    std::vector<std::optional<Result<Bytes>>> got(count);
    Status status;
    std::thread next([&] {
      status =
          remote->get(image.id, std::span(keys).subspan(first, count), priority,
                      [&](std::size_t i, Result<Bytes> object) { got[i] = std::move(object); });
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(random.below(20)));
    line.let_down(BreakingProxy::kNoLimit);
    next.join();
    INFO("turn " << turn << ", keys " << first << " and " << count << " in all");
    require_ok(status);
    for (std::size_t i = 0; i < count; ++i) {
      REQUIRE(got[i].has_value());
      REQUIRE(got[i]->ok());
      CHECK((**got[i] == objects[first + i]));
    }
  }
  std::printf("%llu turns, %llu bytes came late\n", Count{turns}, Count{late});
  CHECK(late > 0);
}
