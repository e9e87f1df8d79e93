// Every I/O call of a scripted run fails once, in every way; nothing that was promised may be lost.
#include <catch2/catch.hpp>

#include "tests/crash/journal_model.h"
#include "tests/support/seed.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

// True if the whole script ran.
bool run_script(JournalModel& model, SimFileSystem& disk) {
  using ldim::WriteKind;
  for (int part = 0; part < 2; ++part) {
    auto opened = model.open(disk);
    if (!opened.ok()) return false;
    ldim::Journal& journal = **opened;
    for (std::uint64_t i = 0; i < 10; ++i) {
      if (!model.append(journal, WriteKind::kData, {i * 3000, 4096})) return false;
      if (i == 2 && !model.append(journal, WriteKind::kZero, {100, 100000})) return false;
      if (i == 5 && !model.append(journal, WriteKind::kData, {77, 30000})) return false;
      if (i % 4 == 1 && !model.flush(journal)) return false;
    }
    // The same place again and again: several files, nearly all of it garbage.
    for (std::uint64_t i = 0; i < 30; ++i) {
      if (!model.append(journal, WriteKind::kData, {i % 4 * 4096 + 77, 4096})) return false;
      if (i % 8 == 7 && !model.flush(journal)) return false;
      if (i == 20) model.offer(journal);
    }
    if (!model.merge(journal, 0)) return false;
    if (!model.append(journal, WriteKind::kData, {5000, 3000})) return false;
    if (!model.flush(journal)) return false;
    if (part == 1 && !model.merge(journal, 0)) return false;
    if (part == 0) continue;  // the next open finds the group
    if (!model.trim(journal, journal.synced().epoch)) return false;
    if (!model.append(journal, WriteKind::kTrim, {0, 8192})) return false;
    if (part == 1 && !model.flush(journal)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("an_error_at_any_call_loses_nothing_promised") {
  std::uint64_t calls = 0;
  {
    JournalModel model(7);
    SimFileSystem disk;
    REQUIRE(run_script(model, disk));
    calls = disk.calls();
  }
  REQUIRE(calls > 100);
  const Calls which = calls_to_fail();
  std::uint64_t hits = 0, tried = 0;
  for (std::uint64_t index = which.first; index < calls; index += which.step) {
    ++tried;
    for (const SimFault fault : {SimFault::kIo, SimFault::kSpace, SimFault::kShort}) {
      JournalModel model(7);
      SimFileSystem disk;
      disk.fail_call(index, fault);
      (void)run_script(model, disk);
      if (disk.fault_hit()) ++hits;
      disk.clear_faults();
      INFO("call " << index << " of " << calls << ", fault " << static_cast<int>(fault));
      // Killed and started again on the same machine, then a power cut; or the cut at once.
      for (int kind = 0; kind < 3; ++kind) {
        JournalModel fork = model;
        auto after = kind == 0 ? disk.copy()
                               : disk.after_power_cut(index * 3 + static_cast<std::uint64_t>(kind));
        auto opened = fork.open(*after);
        if (!opened.ok()) FAIL(opened.error().to_string());
        const std::string wrong = fork.check(**opened);
        if (!wrong.empty()) FAIL(wrong);
        fork.adopt(**opened);
        REQUIRE(fork.append(**opened, ldim::WriteKind::kData, {0, 100}));
        REQUIRE(fork.flush(**opened));
        const auto cut = after->after_power_cut(index);
        auto again = fork.open(*cut);
        if (!again.ok()) FAIL(again.error().to_string());
        const std::string still_wrong = fork.check(**again);
        if (!still_wrong.empty()) FAIL("after a cut: " << still_wrong);
      }
    }
  }
  CHECK(hits == tried * 3);
}
