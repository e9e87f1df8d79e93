// Sessions: what a start, a restart, another machine, a lost reply and a power cut do to the base
// and to unsent writes.
#include <atomic>
#include <thread>
#include <nlohmann/json.hpp>

#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;
using ldim::CommitStep;

TEST_CASE("a second machine sees what the first synced and fetches only what changed") {
  DiskFixture t;
  FakeRemote remote;
  Bytes content = random_content(t.random, 8 * kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem first_fs;
  io::MemoryFileSystem second_fs;
  {  // the second machine has cached everything of version 1
    auto second = t.open(second_fs, remote);
    CHECK(difference(DiskFixture::read_all(*second), content) == "");
    require_ok(second->client_connected());
    second->client_left(true);
    require_ok(second->close(std::chrono::seconds(1)));
  }
  {
    auto first = t.open(first_fs, remote);
    write_at(*first, content, kMiB + 100, 9000, 0x11);
    write_at(*first, content, 5 * kMiB, 4096, 0x22);
    DiskFixture::sync(*first);
    write_at(*first, content, 6 * kMiB, 50,
             0x33);  // flushed at close, sent by nobody: manual write-back
    DiskFixture::sync(*first);
    require_ok(first->client_connected());
    first->client_left(true);
    require_ok(first->close(std::chrono::seconds(1)));
  }
  auto second = t.open(second_fs, remote);
  const auto before = second->status(false)["fetched"]["chunks"].get<std::uint64_t>();
  CHECK(difference(DiskFixture::read_all(*second), content) == "");
  const auto fetched = second->status(false)["fetched"]["chunks"].get<std::uint64_t>() - before;
  CHECK(fetched >= 1);
  CHECK(fetched <= 5);  // three small writes: their chunks, nothing else
  require_ok(second->close(std::chrono::seconds(1)));
}

TEST_CASE(
    "restart under a running guest after another machine has committed: the disk does not change, "
    "unsent writes become a branch") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, 2 * kMiB);
  const Bytes original = guest;
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  std::string session;
  {
    auto disk = t.open(fs, remote);
    require_ok(disk->client_connected());
    write_at(*disk, guest, 4096, 8192, 0xaa);
    require_ok(disk->flush());
    session = disk->status(false)["session"]["id"];
    // Killed: no close.
  }
  remote.server().expire_leases();
  Bytes others = original;
  std::fill_n(others.begin() + kMiB, 10000, std::uint8_t{0x55});
  commit_content(remote, t.key.key, "disk", others, t.random);

  auto disk = t.open(fs, remote);
  CHECK(disk->status(false)["session"]["id"] == session);
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  write_at(*disk, guest, 100000, 5000, 0xbb);
  DiskFixture::sync(*disk);
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  const std::string branch = disk->status(false)["branch"];
  CHECK(branch == "disk.conflict-tester-1");
  const auto branch_image = remote.find_image(branch);
  REQUIRE(branch_image.ok());
  CHECK(branch_image->conflict_of == "disk");
  CHECK(difference(read_version(remote, t.key.key, branch_image->id, branch_image->head), guest) ==
        "");
  const auto image = remote.find_image("disk");
  CHECK(difference(read_version(remote, t.key.key, image->id, image->head), others) == "");
  // The session goes on on its branch, over a restart too; the next session starts on the image's
  // head.
  require_ok(disk->close(std::chrono::seconds(1)));
  disk = t.open(fs, remote);
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  require_ok(disk->end_session());
  require_ok(disk->close(std::chrono::seconds(1)));
  disk = t.open(fs, remote);
  CHECK(difference(DiskFixture::read_all(*disk), others) == "");
  CHECK(disk->status(false)["branch"] == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("the winner of a conflict hears of the loser's branch, and that it was resolved") {
  DiskFixture t;
  FakeRemote to_loser;
  FakeRemote to_winner(to_loser.shared_server());
  Bytes content = random_content(t.random, kMiB);
  commit_content(to_loser, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem loser_fs, winner_fs;
  t.options.machine_name = "loser";
  auto loser = t.open(loser_fs, to_loser);
  require_ok(loser->client_connected());
  Bytes lost = content;
  write_at(*loser, lost, 0, 4096, 1);
  require_ok(loser->flush());
  to_loser.server().expire_leases();
  t.options.machine_name = "winner";
  auto winner = t.open(winner_fs, to_winner);
  write_at(*winner, content, 4096, 4096, 2);
  DiskFixture::sync(*winner);
  const auto branches = [](ldim::Disk& disk) {
    return disk.status(false)["conflict_branches"].get<std::vector<std::string>>();
  };
  CHECK(branches(*winner).empty());
  DiskFixture::sync(*loser);
  const std::string branch = loser->status(false)["branch"];
  CHECK(branch == "disk.conflict-loser-1");
  const auto comes = [&](ldim::Disk& disk, const std::vector<std::string>& wanted) {
    for (int i = 0; i < 6000 && branches(disk) != wanted; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return branches(disk) == wanted;
  };
  CHECK(comes(*winner, {branch}));
  CHECK(branches(*loser).empty());  // its own branch is named already
  // Who begins later is told at once.
  require_ok(winner->close(std::chrono::seconds(1)));
  winner = t.open(winner_fs, to_winner);
  CHECK(branches(*winner) == std::vector<std::string>{branch});
  // The end of a conflict, too, while it was away.
  to_winner.set_available(false);
  require_ok(loser->close(std::chrono::seconds(1)));
  require_ok(to_loser.remove_image(to_loser.find_image(branch)->id));
  CHECK(branches(*winner) == std::vector<std::string>{branch});
  to_winner.set_available(true);
  CHECK(comes(*winner, {}));
  require_ok(winner->close(std::chrono::seconds(1)));
}

TEST_CASE("a session outlives a restart within session-grace and ends after it") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes content = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  require_ok(disk->client_connected());
  const std::string session = disk->status(false)["session"]["id"];
  disk.reset();  // killed
  disk = t.open(fs, remote);
  CHECK(disk->status(false)["session"]["id"] == session);
  require_ok(disk->client_connected());
  disk.reset();
  t.options.session_grace = std::chrono::milliseconds(0);
  disk = t.open(fs, remote);
  CHECK(disk->status(false)["session"]["id"] != session);
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("commit_reply_lost_and_its_epoch_merged_away_is_still_no_conflict") {
  DiskFixture t;
  t.options.journal_bytes = 512 * kKiB;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 300000, 5000, 1);
  remote.lose_replies(RemoteCall::kCommit, 1000);
  REQUIRE(disk->sync(false, {}).ok());
  while (remote.calls(RemoteCall::kCommit) < 2)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // Far more than the journal holds, all over the same few pages, while the server is of no help.
  for (std::uint64_t i = 0; i < 400; ++i)
    write_at(*disk, guest, i % 12 * 4096 + 100, 4000, static_cast<std::uint8_t>(i));
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  const auto status = disk->status(false);
  CHECK(status["journal"]["merged_epoch"].get<std::uint64_t>() > 1);
  CHECK(status["journal"]["bytes"].get<std::uint64_t>() <= t.options.journal_bytes);
  SECTION("goes on") {}
  SECTION("killed") {
    disk.reset();
    disk = t.open(fs, remote);
    CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  }
  remote.lose_replies(RemoteCall::kCommit, 0);
  DiskFixture::sync(*disk);
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  CHECK(disk->status(false)["branch"] == "");
  CHECK(disk->status(false)["write_back"]["conflicts"] == 0);
  const auto image = remote.find_image("disk");
  CHECK(difference(read_version(remote, t.key.key, image->id, image->head), guest) == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("a_full_journal_waits_for_a_commit_that_hangs_and_is_merged_when_it_has_ended") {
  DiskFixture t;
  t.options.journal_bytes = 512 * kKiB;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 300000, 5000, 1);
  remote.hold(RemoteCall::kCommit);
  REQUIRE(disk->sync(false, {}).ok());
  while (remote.waiting(RemoteCall::kCommit) == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // What comes behind the commit on its way cannot be merged with it; writes wait until it ends.
  std::atomic<bool> over{false};
  std::jthread network([&] {
    while (!over && disk->status(false)["requests"]["throttled"].get<int>() < 8)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    remote.release(RemoteCall::kCommit);
  });
  for (std::uint64_t i = 0; i < 400; ++i) {
    const Bytes data(4000, static_cast<std::uint8_t>(i));
    const std::uint64_t at = i % 12 * 4096 + 100;
    const Status written = disk->write({at, data.size()}, data.data(), false);
    over = over || !written.ok();
    require_ok(written);
    std::copy(data.begin(), data.end(), guest.begin() + static_cast<std::ptrdiff_t>(at));
  }
  over = true;
  network.join();
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  DiskFixture::sync(*disk);
  CHECK(disk->status(false)["write_back"]["conflicts"] == 0);
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("commit reply lost: the retry is no conflict with itself") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  SECTION("retried with the same epoch") {
    write_at(*disk, guest, 0, 5000, 1);
    remote.lose_replies(RemoteCall::kCommit, 1);
    DiskFixture::sync(*disk);
  }
  SECTION("retried after more was written: adopted") {
    write_at(*disk, guest, 0, 5000, 1);
    remote.lose_replies(RemoteCall::kCommit, 1);
    const auto sent = disk->sync(false, {});
    REQUIRE(sent.ok());
    while (remote.calls(RemoteCall::kCommit) < 2)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    write_at(*disk, guest, 9000, 5000, 2);
    DiskFixture::sync(*disk);
  }
  SECTION("lost, then killed: the next start adopts it") {
    write_at(*disk, guest, 0, 5000, 1);
    remote.lose_replies(RemoteCall::kCommit, 1000);
    REQUIRE(disk->sync(false, {}).ok());
    while (remote.calls(RemoteCall::kCommit) < 2)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    disk.reset();
    remote.lose_replies(RemoteCall::kCommit, 0);
    disk = t.open(fs, remote);
    write_at(*disk, guest, 50000, 100, 3);
    DiskFixture::sync(*disk);
  }
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  CHECK(disk->status(false)["branch"] == "");
  CHECK(disk->status(false)["write_back"]["conflicts"] == 0);
  const auto image = remote.find_image("disk");
  CHECK(difference(read_version(remote, t.key.key, image->id, image->head), guest) == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("commit reply lost, then all of it taken back: the head is not what was taken back") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest(kMiB, 0);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 40960, 8192, 0xaa);
  remote.lose_replies(RemoteCall::kCommit, 1000);
  REQUIRE(disk->sync(false, {}).ok());
  while (remote.calls(RemoteCall::kCommit) < 2)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  remote.set_available(false);  // else a retry could get the answer before it is taken back
  require_ok(disk->zero({40960, 8192}, true, false));
  std::fill_n(guest.begin() + 40960, 8192, std::uint8_t{0});
  require_ok(disk->flush());
  remote.lose_replies(RemoteCall::kCommit, 0);
  remote.set_available(true);
  DiskFixture::sync(*disk);
  CHECK(disk->status(false)["write_back"]["conflicts"] == 0);
  const auto image = remote.find_image("disk");
  CHECK(difference(read_version(remote, t.key.key, image->id, image->head), guest) == "");
  require_ok(disk->end_session());
  require_ok(disk->close(std::chrono::seconds(1)));
  disk = t.open(fs, remote);
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE(
    "a power cut between any two steps of a commit serves no old page as new and loses nothing "
    "flushed") {
  const std::uint64_t base_seed = seed();
  for (const CommitStep stop : {CommitStep::kSealed, CommitStep::kUploaded, CommitStep::kCommitted,
                                CommitStep::kCacheSynced, CommitStep::kBaseRecorded,
                                CommitStep::kMapAdvanced, CommitStep::kTrimmed}) {
    for (std::uint64_t cut = 0; cut < 6; ++cut) {
      DiskFixture t(base_seed + cut);
      INFO("step " << static_cast<int>(stop) << " seed " << base_seed + cut);
      FakeRemote remote;
      Bytes guest = random_content(t.random, kMiB);
      commit_content(remote, t.key.key, "disk", guest, t.random);
      auto fs = std::make_unique<SimFileSystem>();
      {
        std::atomic<bool> armed = false;
        std::atomic<bool> stopped = false;
        auto disk = t.open(*fs, remote, [&](CommitStep step) {
          if (!armed || step != stop) return true;
          stopped = true;
          return false;
        });
        // A first commit, so that old pages of these places are in the cache.
        for (int i = 0; i < 4; ++i)
          write_at(*disk, guest, static_cast<std::uint64_t>(i) * 200000, 20000,
                   static_cast<std::uint8_t>(0x10 + i));
        DiskFixture::sync(*disk);
        REQUIRE(difference(DiskFixture::read_all(*disk), guest) == "");
        for (int i = 0; i < 4; ++i)
          write_at(*disk, guest, static_cast<std::uint64_t>(i) * 200000 + 3000, 20000,
                   static_cast<std::uint8_t>(0x20 + i));
        require_ok(disk->flush());
        armed = true;
        if (cut == 0) {  // time enough for a second try of the write-back
          CHECK(!disk->sync(true, std::chrono::milliseconds(700)).ok());
        } else {
          REQUIRE(disk->sync(false, {}).ok());
          while (!stopped) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          CHECK(!disk->sync(true, std::chrono::milliseconds(1)).ok());
        }
        CHECK(stopped);
      }
      fs = fs->after_power_cut(base_seed + 1000 + cut);
      {
        auto disk = t.open(*fs, remote);
        REQUIRE(difference(DiskFixture::read_all(*disk), guest) == "");
        write_at(*disk, guest, 700000, 3000, 0x77);
        DiskFixture::sync(*disk);
        REQUIRE(difference(DiskFixture::read_all(*disk), guest) == "");
        CHECK(disk->status(false)["branch"] == "");
        require_ok(disk->close(std::chrono::seconds(5)));
      }
      const auto image = remote.find_image("disk");
      REQUIRE(difference(read_version(remote, t.key.key, image->id, image->head), guest) == "");
    }
  }
}

TEST_CASE("offline: starts from what it has, and everything arrives when the server is back") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, 2 * kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  {
    auto disk = t.open(fs, remote);
    CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
    CHECK(disk->status(true)["offline_ready"]["ready"].get<bool>());
    require_ok(disk->client_connected());
    disk->client_left(true);
    require_ok(disk->close(std::chrono::seconds(1)));
  }
  remote.set_available(false);
  t.options.write_back = ldim::WriteBackPolicy::kEager;
  auto disk = t.open(fs, remote);
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  write_at(*disk, guest, 12345, 70000, 0x42);
  require_ok(disk->flush());
  CHECK(!disk->status(false)["safe_to_switch_off"].get<bool>());
  remote.set_available(true);
  for (int i = 0; i < 600 && !disk->status(false)["safe_to_switch_off"].get<bool>(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  CHECK(disk->status(false)["safe_to_switch_off"].get<bool>());
  const auto image = remote.find_image("disk");
  CHECK(difference(read_version(remote, t.key.key, image->id, image->head), guest) == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("what does not belong together is refused before anything is written") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes content = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  commit_content(remote, t.key.key, "other", content, t.random);
  io::MemoryFileSystem fs;
  const auto refused_with = [&](ErrorCode code) {
    const auto disk = t.try_open(fs, remote);
    REQUIRE(!disk.ok());
    INFO(disk.error().to_string());
    CHECK(disk.error().code == code);
  };
  SECTION("an unknown image") {
    t.options.image = "nobody";
    refused_with(ErrorCode::kNotFound);
    CHECK(fs.list("/ldim")->empty());
  }
  SECTION("a wrong key") {
    const TemporaryKey wrong(t.random);
    t.options.key_path = wrong.path;
    refused_with(ErrorCode::kWrongKey);
    CHECK(fs.list("/ldim")->empty());
  }
  SECTION("a server that is away and a folder that knows nothing") {
    remote.set_available(false);
    refused_with(ErrorCode::kUnavailable);
  }
  SECTION("a folder of another image, online and offline") {
    require_ok(t.open(fs, remote)->close(std::chrono::seconds(1)));
    t.options.image = "other";
    refused_with(ErrorCode::kInvalidArgument);
    remote.set_available(false);
    refused_with(ErrorCode::kInvalidArgument);
  }
  SECTION("a wrong key offline") {
    require_ok(t.open(fs, remote)->close(std::chrono::seconds(1)));
    remote.set_available(false);
    const TemporaryKey wrong(t.random);
    t.options.key_path = wrong.path;
    refused_with(ErrorCode::kWrongKey);
  }
  SECTION("a server with another history") {
    {
      auto disk = t.open(fs, remote);
      const Bytes data(5000, 1);
      require_ok(disk->write({0, data.size()}, data.data(), false));
      DiskFixture::sync(*disk);
      require_ok(disk->client_connected());
      disk->client_left(true);
      require_ok(disk->close(std::chrono::seconds(1)));
    }
    // The same image id on a server that was set up anew from an old copy: only version 1.
    const auto id = remote.find_image("disk")->id;
    FakeRemote restored;
    contract::ImageInfo image;
    image.id = id;
    image.name = "disk";
    image.image_bytes = content.size();
    image.domain = t.key.key.domain;
    image.key_check = t.key.key.key_check(id);
    REQUIRE(restored.create_image(image).ok());
    commit_content(restored, t.key.key, "disk", content, t.random);
    const auto disk = t.try_open(fs, restored);
    REQUIRE(!disk.ok());
    CHECK(disk.error().code == ErrorCode::kOtherHistory);
    t.options.accept_other_history = true;
    auto accepted = t.open(fs, restored);
    CHECK(difference(DiskFixture::read_all(*accepted), content) == "");
    require_ok(accepted->close(std::chrono::seconds(1)));
  }
  SECTION("a cache size too small to work with") {
    t.options.cache_bytes = kMiB;
    const Status status = ldim::complete_options(t.options);
    REQUIRE(!status.ok());
    CHECK(status.error().code == ErrorCode::kInvalidArgument);
  }
}
