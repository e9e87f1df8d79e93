// The journal's everyday: append, read, flush, reopen, trim, limits.
#include <catch2/catch.hpp>

#include <atomic>
#include <thread>

#include "common/io/memory_file.h"
#include "tests/unit/journal_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

TEST_CASE("what was appended is read back at any alignment, before and after a reopen") {
  JournalFixture f;
  auto journal = f.must_open();
  SeededRandom random(seed());
  struct Written {
    JournalRecord record;
    Bytes data;
  };
  std::vector<Written> written;
  for (int i = 0; i < 200; ++i) {
    const Bytes data = f.random_bytes(random, 1 + random.below(i % 10 == 0 ? 300000 : 9000));
    const std::uint64_t offset = random.below(kGiB);
    auto records = journal->append(WriteKind::kData, {offset, data.size()}, data);
    REQUIRE(records.ok());
    std::uint64_t done = 0;
    for (const JournalRecord& record : *records) {
      REQUIRE(record.range.offset == offset + done);
      written.push_back(
          {record, Bytes(data.begin() + static_cast<long>(done),
                         data.begin() + static_cast<long>(done + record.range.count))});
      done += record.range.count;
    }
    REQUIRE(done == data.size());
  }
  const auto check_all = [&](Journal& j) {
    for (const Written& w : written) {
      const std::uint64_t skip = random.below(w.data.size());
      Bytes out(1 + random.below(w.data.size() - skip));
      REQUIRE(j.read(w.record.location, w.record.range, w.record.range.offset + skip, out).ok());
      REQUIRE(std::equal(out.begin(), out.end(), w.data.begin() + static_cast<long>(skip)));
    }
  };
  check_all(*journal);
  const auto commit = journal->flush();
  REQUIRE(commit.ok());
  CHECK(commit->epoch == 1);
  CHECK(commit->journal == journal->id());
  check_all(*journal);

  const JournalId id = journal->id();
  journal.reset();
  journal = f.must_open();
  CHECK(journal->id() == id);
  CHECK(journal->synced() == *commit);
  const auto records = journal->records(0, 1);
  REQUIRE(records.size() == written.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    REQUIRE(records[i].order == written[i].record.order);
    REQUIRE(records[i].range == written[i].record.range);
    REQUIRE(records[i].epoch == 1);
    written[i].record = records[i];
  }
  check_all(*journal);
  CHECK(journal->stats().recovered_records == written.size());
}

TEST_CASE("zero and trim records come back with their kind") {
  JournalFixture f;
  auto journal = f.must_open();
  REQUIRE(journal->append(WriteKind::kZero, {5, 3 * kGiB}, {}).ok());
  REQUIRE(journal->append(WriteKind::kTrim, {4096, 8192}, {}).ok());
  REQUIRE(journal->flush().ok());
  journal = f.must_open();
  const auto records = journal->records(0, 99);
  REQUIRE(records.size() >= 2);
  std::uint64_t zeroed = 0;
  for (const auto& r : records) {
    if (r.kind == WriteKind::kZero) zeroed += r.range.count;
  }
  CHECK(zeroed == 3 * kGiB);
  CHECK(records.front().range.offset == 5);
  CHECK(records.back().kind == WriteKind::kTrim);
  CHECK(records.back().range == ByteRange{4096, 8192});
}

TEST_CASE("a bad request is refused and changes nothing") {
  JournalFixture f;
  auto journal = f.must_open();
  const Bytes data(10);
  CHECK(journal->append(WriteKind::kData, {0, 0}, {}).error().code == ErrorCode::kInvalidArgument);
  CHECK(journal->append(WriteKind::kData, {0, 9}, data).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(journal->append(WriteKind::kZero, {0, 10}, data).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(journal->append(WriteKind::kZero, {kMaxImageBytes - 1, 2}, {}).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(journal->trim(1).error().code == ErrorCode::kInvalidArgument);
  CHECK(journal->stats().records == 0);
  CHECK(journal->flush()->epoch == 0);
}

TEST_CASE("a flush of nothing costs nothing and epochs count up") {
  JournalFixture f;
  auto journal = f.must_open();
  CHECK(journal->flush()->epoch == 0);
  for (std::uint64_t epoch = 1; epoch <= 5; ++epoch) {
    REQUIRE(f.append(*journal, epoch * 4096, 100).ok());
    CHECK(journal->stats().open_epoch_bytes == 100);
    const auto commit = journal->flush();
    REQUIRE(commit.ok());
    CHECK(commit->epoch == epoch);
    CHECK(*journal->flush() == *commit);
    CHECK(journal->commit_id(epoch) == *commit);
    CHECK(journal->stats().open_epoch_bytes == 0);
  }
  CHECK(journal->commit_id(0)->digest.is_zero());
  CHECK(!journal->commit_id(6));
  CHECK(!(journal->commit_id(4)->digest == journal->commit_id(5)->digest));
  CHECK(journal->records(2, 4).size() == 2);
}

TEST_CASE("unsealed records are recovered and sealed as one epoch") {
  JournalFixture f;
  auto journal = f.must_open();
  REQUIRE(f.append(*journal, 0, 4096).ok());
  REQUIRE(journal->flush().ok());
  REQUIRE(f.append(*journal, 4096, 4096).ok());
  REQUIRE(f.append(*journal, 8192, 4096).ok());
  journal = f.must_open();
  CHECK(journal->synced().epoch == 2);
  CHECK(journal->records(1, 2).size() == 2);
  const auto commit = journal->synced();
  journal = f.must_open();
  CHECK(journal->synced() == commit);
  REQUIRE(f.append(*journal, 0, 1).ok());
  CHECK(journal->flush()->epoch == 3);
}

TEST_CASE("trimmed epochs stay away, and the last of them keeps its digest") {
  JournalFixture f;
  f.options.segment_bytes = 64 * kKiB;
  auto journal = f.must_open();
  for (int i = 0; i < 40; ++i) {
    REQUIRE(f.append(*journal, static_cast<std::uint64_t>(i) * 4096, 4096).ok());
    REQUIRE(journal->flush().ok());
  }
  const std::uint64_t before = journal->stats().bytes;
  const auto held = journal->records(0, 1);
  const auto commit = journal->commit_id(30);
  REQUIRE(journal->trim(30).ok());
  CHECK(journal->stats().bytes < before);
  CHECK(journal->stats().records == 10);
  CHECK(journal->commit_id(30) == commit);
  CHECK(!journal->commit_id(29));
  CHECK(journal->records(0, 100).size() == 10);
  Bytes out(4096);  // a location keeps its file readable
  CHECK(journal->read(held[0].location, held[0].range, 0, out).ok());
  CHECK(out == f.pattern(0, 4096));
  journal = f.must_open();
  CHECK(journal->stats().trimmed_epoch == 30);
  CHECK(journal->commit_id(30) == commit);
  CHECK(journal->records(0, 100).size() == 10);
  REQUIRE(journal->trim(40).ok());
  journal = f.must_open();
  CHECK(journal->records(0, 100).empty());
  CHECK(journal->synced().epoch == 40);
  CHECK(journal->stats().bytes <= f.options.segment_bytes + 64 * kKiB);
  REQUIRE(f.append(*journal, 0, 1).ok());
  CHECK(journal->flush()->epoch == 41);
}

TEST_CASE("a full journal says so, still flushes, and goes on after a trim") {
  JournalFixture f;
  f.options.segment_bytes = 64 * kKiB;
  f.options.limit_bytes = 256 * kKiB;
  auto journal = f.must_open();
  for (int round = 0; round < 5; ++round) {
    std::uint64_t accepted = 0;
    for (;;) {
      const auto result = f.append(*journal, accepted * 4096, 4096);
      if (!result.ok()) {
        REQUIRE(result.error().code == ErrorCode::kNoSpace);
        break;
      }
      ++accepted;
      REQUIRE(accepted < 1000);
    }
    CHECK(accepted > 20);
    CHECK(journal->stats().bytes <= f.options.limit_bytes);
    CHECK(journal->stats().free_bytes < 8192);
    const auto commit = journal->flush();
    REQUIRE(commit.ok());
    REQUIRE(journal->trim(commit->epoch).ok());
    CHECK(!journal->stats().failed);
    if (round == 2) journal = f.must_open();
  }
}

TEST_CASE("a write larger than a file spans several, or is refused as a whole") {
  JournalFixture f;
  f.options.segment_bytes = 64 * kKiB;
  f.options.limit_bytes = kMiB;
  auto journal = f.must_open();
  const Bytes data = f.pattern(0, 300 * kKiB);
  auto records = journal->append(WriteKind::kData, {100, data.size()}, data);
  REQUIRE(records.ok());
  for (std::size_t i = 1; i < records->size(); ++i)
    CHECK((*records)[i].order > (*records)[i - 1].order);
  const Bytes huge(2 * kMiB);
  const auto before = journal->stats();
  CHECK(journal->append(WriteKind::kData, {0, huge.size()}, huge).error().code ==
        ErrorCode::kNoSpace);
  CHECK(journal->stats().records == before.records);
  journal = f.must_open();
  Bytes back;
  for (const auto& r : journal->records(0, 9)) {
    Bytes part(r.range.count);
    REQUIRE(journal->read(r.location, r.range, r.range.offset, part).ok());
    back.insert(back.end(), part.begin(), part.end());
  }
  CHECK(back == data);
}

TEST_CASE("parallel overlapping appends are recovered in the order that they were told") {
  JournalFixture f;
  f.options.segment_bytes = 256 * kKiB;
  auto journal = f.must_open();
  constexpr int kThreads = 6;
  std::vector<std::vector<JournalRecord>> told(kThreads);
  std::vector<std::thread> threads;
  std::atomic<int> errors{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      SeededRandom random(seed() + static_cast<std::uint64_t>(t));
      for (int i = 0; i < 150; ++i) {
        const std::uint64_t offset = random.below(64 * kKiB);
        const Bytes data(1 + random.below(6000), static_cast<std::uint8_t>(t * 40 + i % 40));
        auto records = journal->append(WriteKind::kData, {offset, data.size()}, data);
        if (!records.ok())
          ++errors;
        else
          told[static_cast<std::size_t>(t)].insert(told[static_cast<std::size_t>(t)].end(),
                                                   records->begin(), records->end());
        if (random.below(20) == 0 && !journal->flush().ok()) ++errors;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  REQUIRE(errors == 0);
  std::vector<JournalRecord> all;
  for (const auto& one : told) all.insert(all.end(), one.begin(), one.end());
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.order < b.order; });
  Bytes expected(80 * kKiB);
  for (const auto& r : all) {
    Bytes part(r.range.count);
    REQUIRE(journal->read(r.location, r.range, r.range.offset, part).ok());
    std::copy(part.begin(), part.end(), expected.begin() + static_cast<long>(r.range.offset));
  }
  journal = f.must_open();
  const auto records = journal->records(0, ~std::uint64_t{0});
  REQUIRE(records.size() == all.size());
  Bytes recovered(80 * kKiB);
  std::uint64_t epoch = 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const auto& r = records[i];
    REQUIRE(r.order == all[i].order);
    if (all[i].epoch <= journal->synced().epoch) REQUIRE(r.epoch == all[i].epoch);
    REQUIRE(r.epoch >= epoch);
    epoch = r.epoch;
    Bytes part(r.range.count);
    REQUIRE(journal->read(r.location, r.range, r.range.offset, part).ok());
    std::copy(part.begin(), part.end(), recovered.begin() + static_cast<long>(r.range.offset));
  }
  CHECK(recovered == expected);
}
