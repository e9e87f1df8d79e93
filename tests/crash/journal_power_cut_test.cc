// The power goes off at a random call, also while recovering. States: DIMS_CRASH_STATES (default
// 20000, large 1000000).
#include <catch2/catch.hpp>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "tests/crash/journal_model.h"
#include "tests/support/seed.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

std::uint64_t states_wanted() {
  const char* given = std::getenv("DIMS_CRASH_STATES");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : rounds(20'000, 1'000'000);
}

// Opens what a cut left, with up to two more cuts or kills while it recovers; then looks at every
// outcome.
std::string recover_and_check(JournalModel& model, std::unique_ptr<SimFileSystem>& disk,
                              std::uint64_t* states) {
  SeededRandom& random = model.random();
  for (int again = 0; again < 2 && random.below(3) == 0; ++again) {
    disk->stop_at_call(random.below(80));
    { const auto opened = model.open(*disk); }
    auto next = random.below(4) == 0 ? disk->copy() : disk->after_power_cut(random.next());
    ++*states;
    disk = std::move(next);
  }
  ++*states;
  auto opened = model.open(*disk);
  if (!opened.ok()) return "cannot open: " + opened.error().to_string();
  std::string wrong = model.check(**opened);
  if (wrong.empty()) {
    model.adopt(**opened);
    // What recovery has shown is durable: another cut changes nothing.
    opened = model.open(*(disk = disk->after_power_cut(random.next())));
    ++*states;
    if (!opened.ok()) return "cannot open again: " + opened.error().to_string();
    wrong = model.check(**opened);
    if (!wrong.empty())
      wrong = "after a second cut: " + wrong;
    else
      model.adopt(**opened);
  }
  return wrong;
}

}  // namespace

TEST_CASE("power_cut_at_any_moment_loses_nothing_flushed") {
  const std::uint64_t wanted = states_wanted();
  std::uint64_t states = 0;
  JournalModel::Seen seen;
  for (std::uint64_t run = 0; states < wanted; ++run) {
    const std::uint64_t run_seed = seed() + run;
    JournalModel model(run_seed);
    SeededRandom& random = model.random();
    auto disk = std::make_unique<SimFileSystem>();
    std::string wrong;
    for (int cycle = 0; cycle < 5 && wrong.empty(); ++cycle) {
      disk->stop_at_call(disk->calls() + random.below(200));
      if (random.below(20) == 0) disk->fail_next_sync();
      {
        auto opened = model.open(*disk);
        for (int i = 0; opened.ok() && i < 100 && model.step(**opened); ++i) {
        }
      }
      disk->clear_faults();
      // Several outcomes of one history; the last one goes on.
      for (int look = 0; look < 3 && wrong.empty(); ++look) {
        JournalModel fork = model;
        auto cut = random.below(6) == 0 ? disk->copy() : disk->after_power_cut(random.next());
        wrong = recover_and_check(fork, cut, &states);
      }
      if (!wrong.empty()) break;
      disk = random.below(6) == 0 ? disk->copy() : disk->after_power_cut(random.next());
      wrong = recover_and_check(model, disk, &states);
    }
    if (!wrong.empty()) FAIL("DIMS_TEST_SEED=" << run_seed << ": " << wrong);
    seen.merges += model.seen().merges;
    seen.groups += model.seen().groups;
  }
  std::printf("%llu states, %llu merges, %llu recoveries of a merged group\n",
              static_cast<unsigned long long>(states), static_cast<unsigned long long>(seen.merges),
              static_cast<unsigned long long>(seen.groups));
  CHECK(states >= wanted);
  CHECK(seen.groups > states / 50);
}

TEST_CASE("power_cut_or_kill_under_parallel_writes_keeps_a_prefix") {
  const std::uint64_t runs = std::max<std::uint64_t>(40, states_wanted() / 500);
  for (std::uint64_t run = 0; run < runs; ++run) {
    const std::uint64_t run_seed = seed() + run;
    JournalModel model(run_seed);
    SimFileSystem disk;
    auto opened = model.open(disk);
    REQUIRE(opened.ok());
    ldim::Journal& journal = **opened;
    disk.stop_at_call(disk.calls() + 20 + model.random().below(200));
    std::mutex mutex;
    struct Written {
      ldim::JournalRecord record;
      Bytes bytes;  // no two writes are alike
    };
    std::map<std::uint64_t, Written> returned;
    std::set<std::uint64_t> flushed;
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        SeededRandom random(run_seed * 8 + t);
        for (int i = 0; i < 200; ++i) {
          const std::uint64_t offset = random.below(kMiB);
          Bytes data(16 + random.below(9000));
          random.fill(data);
          const auto records = journal.append(ldim::WriteKind::kData, {offset, data.size()}, data);
          if (!records.ok()) return;
          {
            const std::lock_guard lock(mutex);
            for (const auto& record : *records) {
              const auto at = data.begin() + static_cast<std::ptrdiff_t>(record.range.offset) -
                              static_cast<std::ptrdiff_t>(offset);
              const auto count = static_cast<std::ptrdiff_t>(record.range.count);
              returned[record.order] = {record, Bytes(at, at + count)};
            }
          }
          if (random.below(8) != 0) continue;
          std::set<std::uint64_t> before;
          {
            const std::lock_guard lock(mutex);
            for (const auto& [order, write] : returned) before.insert(order);
          }
          if (!journal.flush().ok()) return;
          const std::lock_guard lock(mutex);
          flushed.insert(before.begin(), before.end());
        }
      });
    }
    for (auto& thread : threads) thread.join();
    for (int look = 0; look < 4; ++look) {
      const bool killed = look == 3;  // then everything that returned is there, flushed or not
      const auto cut = killed
                           ? disk.copy()
                           : disk.after_power_cut(run_seed * 3 + static_cast<std::uint64_t>(look));
      auto recovered = model.open(*cut);
      INFO("DIMS_TEST_SEED=" << run_seed);
      if (!recovered.ok()) FAIL(recovered.error().to_string());
      const auto records = (*recovered)->records(0, ~std::uint64_t{0});
      std::map<std::uint64_t, ldim::JournalRecord> found;
      for (const auto& record : records) found[record.order] = record;
      for (const std::uint64_t order : flushed) REQUIRE(found.count(order) == 1);
      const std::uint64_t last = records.empty() ? 0 : records.back().order;
      for (const auto& [order, write] : returned) {
        const ldim::JournalRecord& record = write.record;
        if (order > last && !killed) continue;
        REQUIRE(found.count(order) == 1);  // no hole
        REQUIRE(found[order].range == record.range);
        Bytes text(record.range.count);
        REQUIRE((*recovered)
                    ->read(found[order].location, record.range, record.range.offset, text)
                    .ok());
        REQUIRE((text == write.bytes));  // never another write's, nor an older one's
      }
    }
  }
}

TEST_CASE("power_cut_or_kill_under_parallel_writes_and_merges_keeps_the_newest_flushed_bytes") {
  constexpr std::uint64_t kThreads = 3;
  constexpr std::uint64_t kPagesEach = 6;
  const std::uint64_t runs = std::max<std::uint64_t>(40, states_wanted() / 500);
  std::uint64_t merged_files = 0;
  for (std::uint64_t run = 0; run < runs; ++run) {
    const std::uint64_t run_seed = seed() + run;
    JournalModel model(run_seed);
    SimFileSystem disk;
    auto opened = model.open(disk);
    REQUIRE(opened.ok());
    ldim::Journal& journal = **opened;
    disk.stop_at_call(disk.calls() + 100 + model.random().below(700));
    // Every page holds the number of its write.
    struct Page {
      std::uint32_t issued = 0;
      std::uint32_t returned = 0;
      std::uint32_t flushed = 0;
    };
    std::vector<Page> pages(kThreads * kPagesEach);
    std::atomic<std::uint64_t> running{kThreads};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        SeededRandom random(run_seed * 8 + t);
        for (std::uint32_t i = 1; i < 400; ++i) {
          const std::uint64_t page = t * kPagesEach + random.below(kPagesEach);
          Bytes data(kPageBytes);
          for (std::size_t at = 0; at < data.size(); at += sizeof i)
            std::memcpy(data.data() + at, &i, sizeof i);
          pages[page].issued = i;
          const ByteRange range{page * kPageBytes, kPageBytes};
          const auto records = journal.append(ldim::WriteKind::kData, range, data);
          if (!records.ok() && records.error().code != ErrorCode::kNoSpace) break;
          if (!records.ok()) {
            std::this_thread::yield();  // until merging has made room
            continue;
          }
          pages[page].returned = i;
          if (random.below(6) != 0) continue;
          if (!journal.flush().ok()) break;
          for (std::uint64_t p = t * kPagesEach; p < (t + 1) * kPagesEach; ++p)
            pages[p].flushed = pages[p].returned;
        }
        --running;
      });
    }
    while (running > 0) {
      const auto report = journal.merge({0, true, nullptr});
      if (report.ok()) merged_files += report->files;
      std::this_thread::yield();
    }
    for (auto& thread : threads) thread.join();
    for (std::uint64_t look = 0; look < 3; ++look) {
      const bool killed = look == 2;
      const auto cut = killed ? disk.copy() : disk.after_power_cut(run_seed * 3 + look);
      auto recovered = model.open(*cut);
      INFO("DIMS_TEST_SEED=" << run_seed << ", " << (killed ? "killed" : "cut"));
      if (!recovered.ok()) FAIL(recovered.error().to_string());
      std::vector<std::uint32_t> found(pages.size());
      for (const auto& record : (*recovered)->records(0, ~std::uint64_t{0})) {
        Bytes text(record.range.count);
        REQUIRE((*recovered)->read(record.location, record.range, record.range.offset, text).ok());
        std::memcpy(&found[page_of(record.range.offset)], text.data(), sizeof(std::uint32_t));
      }
      for (std::size_t p = 0; p < pages.size(); ++p) {
        INFO("page " << p << ", flushed " << pages[p].flushed << ", returned " << pages[p].returned
                     << ", issued " << pages[p].issued << ", found " << found[p]);
        REQUIRE(found[p] >= (killed ? pages[p].returned : pages[p].flushed));
        REQUIRE(found[p] <= pages[p].issued);
      }
    }
  }
  std::printf("%llu files merged away under parallel writes\n",
              static_cast<unsigned long long>(merged_files));
  CHECK(merged_files > runs);
}
