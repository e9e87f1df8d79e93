// A damaged journal: what can be proven is a state that the guest flushed, and the damaged files
// stay as they are.
#include <catch2/catch.hpp>

#include <map>

#include "nbdkit-ldim/journal/salvage.h"
#include "nbdkit-ldim/journal/segment.h"
#include "tests/support/corruptors.h"
#include "tests/support/sizes.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

constexpr std::uint64_t kPages = 16;

using Model = std::map<std::uint64_t, std::uint8_t>;  // page -> what was written there last

struct SalvageFixture : JournalFixture {
  explicit SalvageFixture(std::uint64_t random_seed = seed()) : JournalFixture(random_seed) {
    fs = &disk;
    options.segment_bytes = 64 * kKiB;
    options.limit_bytes = 2 * kMiB;
    target = options;
    target.folder = "/salvaged";
    REQUIRE(disk.make_folder(options.folder).ok());
    states[0] = model;
  }
  void write(Journal& journal, int times) {
    for (int i = 0; i < times; ++i) {
      const std::uint64_t page = random.below(kPages);
      const auto salt = static_cast<std::uint8_t>(1 + random.below(250));
      REQUIRE(append(journal, page * kPageBytes, kPageBytes, salt).ok());
      model[page] = salt;
    }
  }
  void flush(Journal& journal) {
    const auto flushed = journal.flush();
    REQUIRE(flushed.ok());
    states[flushed->epoch] = model;
  }
  std::string path(std::uint64_t number) const { return segment_path(options.folder, number); }
  Result<SalvageReport> salvage(std::uint64_t committed = 0) {
    std::map<std::string, Bytes> before;
    const auto names = disk.list(options.folder);
    for (const auto& name : *names) before[name] = disk.peek(options.folder + "/" + name);
    auto report = salvage_journal(disk, options, target, committed, clock, random);
    for (const auto& name : *names) CHECK(disk.peek(options.folder + "/" + name) == before[name]);
    return report;
  }
  // What the new journal's records make of what the server has.
  Model salvaged(Model on_server) {
    auto opened = Journal::open(disk, target, clock, random);
    REQUIRE(opened.ok());
    for (const auto& record : (*opened)->records(0, ~std::uint64_t{0})) {
      Bytes data(record.range.count);
      REQUIRE((*opened)->read(record.location, record.range, record.range.offset, data).ok());
      const auto first =
          static_cast<std::uint8_t>(record.range.offset * 31 + (record.range.offset >> 8) * 7);
      on_server[record.range.offset / kPageBytes] = static_cast<std::uint8_t>(data[0] - first);
    }
    return on_server;
  }

  SimFileSystem disk;
  JournalOptions target;
  Model model;
  std::map<std::uint64_t, Model> states;  // after each epoch
};

}  // namespace

TEST_CASE("salvage_of_a_whole_journal_is_refused") {
  SalvageFixture fixture;
  auto journal = fixture.must_open();
  fixture.write(*journal, 5);
  fixture.flush(*journal);
  journal.reset();
  const auto report = fixture.salvage();
  REQUIRE(!report.ok());
  CHECK(report.error().code == ErrorCode::kInvalidArgument);
}

TEST_CASE("salvage_keeps_the_flushed_epochs_in_front_of_the_damage_and_counts_the_rest") {
  SalvageFixture fixture;
  auto journal = fixture.must_open();
  std::vector<JournalRecord> records;
  for (int epoch = 0; epoch < 6; ++epoch) {
    fixture.write(*journal, 4);
    fixture.flush(*journal);
  }
  const auto all = journal->records(0, 6);
  REQUIRE(all.size() == 24);
  const auto& bad = all[13];  // the second of epoch 4
  journal.reset();
  flip_bit(fixture.disk, bad.location.segment->file().path(), bad.location.file_offset + 700);
  CHECK(!fixture.open().ok());
  const auto report = fixture.salvage(1);
  REQUIRE(report.ok());
  CHECK(report->last_epoch == 3);
  CHECK(report->epochs == 2);
  CHECK(report->writes == 8);
  CHECK(report->lost_writes >= 12);
  CHECK(report->damage.find("damaged") != std::string::npos);
  CHECK(fixture.salvaged(fixture.states[1]) == fixture.states[3]);
}

TEST_CASE("salvage_of_a_journal_larger_than_the_usual_limit_has_room") {
  SalvageFixture fixture;
  fixture.target.limit_bytes = 4 * fixture.target.segment_bytes;
  auto journal = fixture.must_open();
  for (int epoch = 0; epoch < 20; ++epoch) {
    fixture.write(*journal, 10);
    fixture.flush(*journal);
  }
  const auto bad = journal->records(19, 20).front();
  journal.reset();
  flip_bit(fixture.disk, bad.location.segment->file().path(), bad.location.file_offset + 700);
  const auto report = fixture.salvage();
  INFO((report.ok() ? std::string() : report.error().to_string()));
  REQUIRE(report.ok());
  CHECK(report->epochs == 19);
}

TEST_CASE("salvage_with_the_first_file_gone_proves_nothing_and_says_so") {
  SalvageFixture fixture;
  auto journal = fixture.must_open();
  fixture.write(*journal, 40);
  fixture.flush(*journal);
  journal.reset();
  remove_file(fixture.disk, fixture.path(1));
  const auto report = fixture.salvage();
  REQUIRE(!report.ok());
  CHECK(report.error().code == ErrorCode::kCorrupt);
  CHECK(report.error().message.find("nothing of the journal") == 0);
}

// Any damage, anywhere, also with merged files: what comes out is a state that was flushed, or
// nothing.
TEST_CASE("salvage_after_any_damage_gives_a_flushed_state_or_nothing") {
  const std::uint64_t wanted = rounds(150, 5'000);
  std::uint64_t salvaged = 0, nothing = 0, not_damaged = 0;
  for (std::uint64_t round = 0; round < wanted; ++round) {
    INFO("DIMS_TEST_SEED=" << seed() + round << " (the run's first round)");
    SalvageFixture fixture(seed() + round);
    SeededRandom& random = fixture.random;
    std::uint64_t committed = 0;
    {
      auto journal = fixture.must_open();
      for (std::uint64_t epochs = 2 + random.below(14); epochs > 0; --epochs) {
        fixture.write(*journal, static_cast<int>(1 + random.below(6)));
        fixture.flush(*journal);
        if (random.below(8) == 0) {
          MergeWish wish;
          wish.urgent = true;
          REQUIRE(journal->merge(wish).ok());
        }
        if (random.below(8) == 0) {
          const std::uint64_t epoch = 1 + random.below(journal->synced().epoch);
          committed = std::max(committed, journal->group_end(epoch));
          REQUIRE(journal->trim(committed).ok());
        }
      }
      if (random.below(2) == 0) fixture.write(*journal, 3);
    }
    const auto names = fixture.disk.list(fixture.options.folder);
    REQUIRE(names.ok());
    const std::string path = fixture.options.folder + "/" + (*names)[random.below(names->size())];
    const std::uint64_t size = fixture.disk.peek(path).size();
    const std::uint64_t kind = random.below(4);
    INFO("damage " << kind << " to " << path << " of " << size << " bytes, committed "
                   << committed);
    switch (kind) {
      case 0:
        flip_bit(fixture.disk, path, random.below(size));
        break;
      case 1:
        zero_sector(fixture.disk, path, random.below(size / 512) * 512);
        break;
      case 2:
        remove_file(fixture.disk, path);
        break;
      default:
        truncate_tail(fixture.disk, path, random.below(size));
        break;
    }
    const auto report = fixture.salvage(committed);
    if (!report.ok()) {
      report.error().code == ErrorCode::kInvalidArgument ? ++not_damaged : ++nothing;
      REQUIRE((report.error().code == ErrorCode::kInvalidArgument ||
               report.error().code == ErrorCode::kCorrupt));
      continue;
    }
    ++salvaged;
    INFO("last epoch " << report->last_epoch << ", " << report->epochs << " epochs, "
                       << report->writes << " writes: " << report->damage);
    const std::uint64_t last = std::max(report->last_epoch, committed);
    REQUIRE(fixture.states.count(last) == 1);
    REQUIRE(fixture.salvaged(fixture.states[committed]) == fixture.states[last]);
  }
  std::printf("%llu damages: %llu salvaged, %llu with nothing provable, %llu not in the way\n",
              static_cast<unsigned long long>(wanted), static_cast<unsigned long long>(salvaged),
              static_cast<unsigned long long>(nothing),
              static_cast<unsigned long long>(not_damaged));
  CHECK(salvaged > wanted / 20);
}
