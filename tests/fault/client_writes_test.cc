// What other systems lost of their guests' writes. Names: situation_outcome.
#include <atomic>
#include <thread>
#include <nlohmann/json.hpp>

#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

void check_content(ldim::Disk& disk, const Bytes& wanted) {
  REQUIRE(difference(DiskFixture::read_all(disk), wanted) == "");
}

void check_head(FakeRemote& remote, const format::KeyFile& key, const Bytes& wanted) {
  const auto image = remote.find_image("disk");
  REQUIRE(image.ok());
  REQUIRE(difference(read_version(remote, key, image->id, image->head), wanted) == "");
}

}  // namespace

TEST_CASE("killed_without_a_flush_every_answered_write_is_there") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  // Killed again and again: what the second life appends must not overwrite what the first left.
  for (int life = 0; life < 5; ++life) {
    auto disk = t.open(fs, remote);
    check_content(*disk, guest);
    for (int i = 0; i < 20; ++i)
      write_at(*disk, guest, t.random.below(kMiB - 9000), 1 + t.random.below(9000),
               static_cast<std::uint8_t>(1 + t.random.below(255)));
    disk.reset();
  }
  auto disk = t.open(fs, remote);
  check_content(*disk, guest);
  DiskFixture::sync(*disk);
  check_head(remote, t.key.key, guest);
}

TEST_CASE("overlapping_parts_of_a_page_written_at_once_are_all_kept") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  // Eight writers, each with its own sector of every page.
  constexpr std::size_t kSector = 512;
  std::atomic<bool> failed{false};
  std::vector<std::thread> threads;
  for (std::size_t n = 0; n < 8; ++n) {
    threads.emplace_back([&, n] {
      for (std::size_t page = 0; page < 64; ++page) {
        const Bytes data(kSector, static_cast<std::uint8_t>(0x10 + n + page));
        if (!disk->write({page * kPageBytes + n * kSector, kSector}, data.data(), false).ok())
          failed = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(!failed);
  for (std::size_t page = 0; page < 64; ++page) {
    for (std::size_t n = 0; n < 8; ++n)
      std::fill_n(guest.begin() + static_cast<std::ptrdiff_t>(page * kPageBytes + n * kSector),
                  kSector, static_cast<std::uint8_t>(0x10 + n + page));
  }
  check_content(*disk, guest);
  disk.reset();
  disk = t.open(fs, remote);
  check_content(*disk, guest);
  DiskFixture::sync(*disk);
  check_content(*disk, guest);
  check_head(remote, t.key.key, guest);
}

TEST_CASE("zeroed_or_trimmed_ranges_never_show_the_masters_data") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest(kMiB, 0xcd);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  for (int i = 0; i < 60; ++i) {
    const std::uint64_t offset = t.random.below(kMiB - 20000);
    const std::uint64_t count = 1 + t.random.below(20000);
    require_ok(disk->zero({offset, count}, i % 2 == 0, i % 7 == 0));
    std::fill_n(guest.begin() + static_cast<std::ptrdiff_t>(offset), count, std::uint8_t{0});
    if (i % 10 == 9) check_content(*disk, guest);
    if (i == 30) DiskFixture::sync(*disk);
    if (i == 40) {
      disk.reset();
      disk = t.open(fs, remote);
    }
  }
  check_content(*disk, guest);
  DiskFixture::sync(*disk);
  check_content(*disk, guest);
  check_head(remote, t.key.key, guest);
}

TEST_CASE("sync_failed_once_no_later_flush_is_answered_and_nothing_flushed_is_lost") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  auto fs = std::make_unique<SimFileSystem>();
  {
    auto disk = t.open(*fs, remote);
    write_at(*disk, guest, 5000, 9000, 0x21);
    require_ok(disk->flush());
    const Bytes lost(4096, 0x22);
    require_ok(disk->write({200000, lost.size()}, lost.data(), false));
    fs->fail_next_sync();
    CHECK(!disk->flush().ok());
    CHECK(!disk->flush().ok());  // the kernel would say yes now
    CHECK(!disk->write({0, lost.size()}, lost.data(), true).ok());
    CHECK(disk->status(false)["journal"]["failed"].get<bool>());
  }
  fs = fs->after_power_cut(t.random.next());
  auto disk = t.open(*fs, remote);
  const Bytes found = DiskFixture::read_all(*disk);
  Bytes with = guest;
  std::fill_n(with.begin() + 200000, 4096, std::uint8_t{0x22});
  CHECK((found == guest || found == with));
}

TEST_CASE("cache_eviction_with_unsent_writes_drops_none_of_them") {
  DiskFixture t;
  t.options.cache_bytes = ldim::PageCache::kMinLimitBytes;
  FakeRemote remote;
  Bytes guest(40 * kMiB, 0);
  t.random.fill(guest);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  for (std::uint64_t i = 0; i < 40; ++i) write_at(*disk, guest, i * kMiB + 777, 6000, 0x5a);
  for (int pass = 0; pass < 2; ++pass) check_content(*disk, guest);
  CHECK(disk->status(false)["cache"]["evicted_pages"].get<std::uint64_t>() > 0);
  disk.reset();
  disk = t.open(fs, remote);
  check_content(*disk, guest);
  DiskFixture::sync(*disk);
  check_content(*disk, guest);
}

TEST_CASE("journal_full_the_guest_gets_no_space_and_goes_on_after_a_sync") {
  DiskFixture t;
  t.options.journal_bytes = 4 * kMiB;
  FakeRemote remote;
  Bytes guest(8 * kMiB, 1);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  for (int round = 0; round < 3; ++round) {
    Status full;
    for (std::uint64_t at = 0; full.ok() && at < guest.size(); at += 65536) {
      Bytes data(65536);
      t.random.fill(data);
      full = disk->write({at, data.size()}, data.data(), false);
      if (full.ok())
        std::copy(data.begin(), data.end(), guest.begin() + static_cast<std::ptrdiff_t>(at));
    }
    REQUIRE(!full.ok());
    CHECK(full.error().code == ErrorCode::kNoSpace);
    require_ok(disk->flush());  // what was accepted can always be flushed
    check_content(*disk, guest);
    DiskFixture::sync(*disk);
    check_head(remote, t.key.key, guest);
  }
}

TEST_CASE("a_write_that_waited_for_room_behind_its_resent_successors_changes_nothing_of_theirs") {
  // Its client has gone, come back and sent it again, with newer ones behind.
  DiskFixture t;
  t.options.journal_bytes = 4 * kMiB;
  t.options.write_back = ldim::WriteBackPolicy::kEager;
  FakeRemote remote;
  Bytes guest(8 * kMiB, 1);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  ldim::Disk* writes_to = nullptr;
  ByteRange waits;
  int asked = 0;
  // Asked by the write that has waited, before it goes on.
  const auto meanwhile = [&] {
    if (writes_to == nullptr || asked++ != 0) return false;
    remote.release(RemoteCall::kCommit);
    DiskFixture::sync(*writes_to);
    write_at(*writes_to, guest, waits.offset, waits.count, 0x71);
    write_at(*writes_to, guest, waits.offset + 5000, 10000, 0x72);
    require_ok(writes_to->flush());
    return false;
  };
  auto opened =
      ldim::Disk::open(t.options, {remote, fs, system_clock(), t.random, {}, meanwhile, {}});
  REQUIRE(opened.ok());
  const auto disk = std::move(opened).value();
  remote.hold(RemoteCall::kCommit);
  writes_to = disk.get();
  const Bytes data(65536, 0x70);
  for (std::uint64_t at = 0; asked == 0; at += data.size()) {
    REQUIRE(at < guest.size());
    waits = {at, data.size()};
    std::fill_n(guest.begin() + static_cast<std::ptrdiff_t>(at), data.size(), std::uint8_t{0x70});
    require_ok(disk->write(waits, data.data(), false));
  }
  check_content(*disk, guest);
  DiskFixture::sync(*disk);
  check_head(remote, t.key.key, guest);
}

TEST_CASE("a_client_that_goes_while_its_write_waits_for_room_writes_nothing_any_more") {
  DiskFixture t;
  t.options.journal_bytes = 4 * kMiB;
  FakeRemote remote;
  Bytes guest(8 * kMiB, 1);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  bool gone = false;
  bool asked = false;
  const auto is_gone = [&] { return asked = gone; };
  auto opened =
      ldim::Disk::open(t.options, {remote, fs, system_clock(), t.random, {}, is_gone, {}});
  REQUIRE(opened.ok());
  const auto disk = std::move(opened).value();
  gone = true;
  // Always the same place: what was overwritten is merged away, and there is room at once.
  Status last;
  for (int i = 0; i < 200 && last.ok(); ++i) {
    const Bytes data(65536, static_cast<std::uint8_t>(i));
    last = disk->write({0, data.size()}, data.data(), false);
    if (last.ok()) std::fill_n(guest.begin(), data.size(), static_cast<std::uint8_t>(i));
  }
  CHECK(asked);
  REQUIRE(!last.ok());
  CHECK(last.error().code == ErrorCode::kNoSpace);
  check_content(*disk, guest);
}

TEST_CASE("a_commit_that_arrives_late_behind_a_newer_one_moves_nothing") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 0, 5000, 1);
  remote.hold(RemoteCall::kCommit);  // the first commit hangs in the network
  REQUIRE(disk->sync(false, {}).ok());
  while (remote.waiting(RemoteCall::kCommit) == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  write_at(*disk, guest, 2000, 5000, 2);  // newer data in the same place, sealed behind it
  require_ok(disk->flush());
  check_content(*disk, guest);
  remote.release(RemoteCall::kCommit);
  DiskFixture::sync(*disk);
  check_content(*disk, guest);
  check_head(remote, t.key.key, guest);
}

TEST_CASE("a_guest_that_never_flushes_is_sealed_and_sent_all_the_same") {
  DiskFixture t;
  t.options.write_back = ldim::WriteBackPolicy::kEager;
  t.options.seal_after = std::chrono::milliseconds(50);
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 3000, 30000, 0x44);
  for (int i = 0; i < 1000 && !disk->status(false)["safe_to_switch_off"].get<bool>(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  check_head(remote, t.key.key, guest);
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("a_full_journal_waits_as_long_as_a_slow_link_carries_something") {
  using std::chrono::seconds;
  ldim::RoomWait wait{seconds(60)};
  std::uint64_t sent = 1'000'000;
  for (int minute = 0; minute < 100; ++minute) {  // a piece each minute but one second
    CHECK(!wait.over(seconds(1000 + minute * 59), sent));
    CHECK(!wait.over(seconds(1000 + minute * 59 + 58), sent));
    sent += 1;
  }
  CHECK(!wait.over(seconds(10'000), sent));
  CHECK(!wait.over(seconds(10'059), sent));
  CHECK(wait.over(seconds(10'060), sent));  // nothing moves any more
  ldim::RoomWait dead{seconds(60)};
  CHECK(!dead.over(seconds(5), 7));
  CHECK(dead.over(seconds(65), 7));
}
