// Histories that part: restored copies, other machines, masters that move on. Names:
// situation_outcome.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <nlohmann/json.hpp>

#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

Bytes head_content(FakeRemote& remote, const format::KeyFile& key, const std::string& name) {
  const auto image = remote.find_image(name);
  REQUIRE(image.ok());
  return read_version(remote, key, image->id, image->head);
}

// Time moves when the test says so; read by every thread of many disks.
class SteppedClock : public Clock {
 public:
  std::chrono::nanoseconds boottime() override { return std::chrono::nanoseconds(now_.load()); }
  std::chrono::nanoseconds wall() override { return boottime(); }
  void advance(std::chrono::nanoseconds by) { now_ += by.count(); }

 private:
  std::atomic<std::int64_t> now_{std::chrono::nanoseconds(std::chrono::hours(1)).count()};
};

// Another machine commits between two questions of a session that begins.
class BusyImage : public FakeRemote {
 public:
  using FakeRemote::FakeRemote;
  std::function<void()> meanwhile;
  Result<std::vector<contract::VersionInfo>> list_versions(const ImageId& image,
                                                           std::uint32_t limit) override {
    if (meanwhile) std::exchange(meanwhile, {})();
    return FakeRemote::list_versions(image, limit);
  }
};

}  // namespace

TEST_CASE("a_reader_that_starts_while_another_commits_takes_the_image_for_no_other_history") {
  DiskFixture t;
  t.options.mode = ldim::SessionMode::kReadOnly;
  for (const int meanwhile : {0, 1, 2, 5}) {
    BusyImage remote;
    Bytes content = random_content(t.random, kMiB);
    const auto next_version = [&] {
      content[t.random.below(content.size())] ^= 1;
      commit_content(*std::make_unique<FakeRemote>(remote.shared_server()), t.key.key, "disk",
                     content, t.random);
    };
    next_version();
    io::MemoryFileSystem fs;
    {
      const auto disk = t.open(fs, remote);
      require_ok(disk->client_connected());
      disk->client_left(true);
      require_ok(disk->close(std::chrono::seconds(1)));
    }
    for (int version = 0; version < 3; ++version) next_version();
    const Bytes at_start = content;
    remote.meanwhile = [&] {
      for (int version = 0; version < meanwhile; ++version) next_version();
    };
    INFO(meanwhile << " versions came meanwhile");
    const auto disk = t.open(fs, remote);
    CHECK(!remote.meanwhile);
    CHECK(difference(DiskFixture::read_all(*disk), at_start) == "");
  }
}

TEST_CASE("a_restored_client_disk_replays_nothing_onto_the_image") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  SimFileSystem fs;
  std::unique_ptr<SimFileSystem> old_copy;
  {
    auto disk = t.open(fs, remote);
    write_at(*disk, guest, 1000, 5000, 1);
    require_ok(disk->flush());
    old_copy = fs.copy();  // a backup of the client's disk, with an unsent epoch
    DiskFixture::sync(*disk);
    write_at(*disk, guest, 3000, 5000, 2);
    DiskFixture::sync(*disk);
    write_at(*disk, guest, 400000, 5000, 3);
    DiskFixture::sync(*disk);
  }
  REQUIRE(difference(head_content(remote, t.key.key, "disk"), guest) == "");
  // The backup is put back: its unsent epoch is a branch, and it goes on from the server's head.
  auto restored = t.open(*old_copy, remote);
  CHECK(difference(DiskFixture::read_all(*restored), guest) == "");
  write_at(*restored, guest, 700000, 4096, 9);
  DiskFixture::sync(*restored);
  CHECK(difference(head_content(remote, t.key.key, "disk"), guest) == "");
  const auto images = remote.list_images();
  REQUIRE(images.ok());
  CHECK(images->size() == 2);
}

TEST_CASE("a_new_master_version_under_a_reader_changes_none_of_its_bytes") {
  for (const auto mode : {ldim::SessionMode::kReadOnly, ldim::SessionMode::kShared}) {
    DiskFixture t;
    t.options.mode = mode;
    t.options.read_ahead = false;
    FakeRemote remote;
    const Bytes first = random_content(t.random, kMiB);
    commit_content(remote, t.key.key, "disk", first, t.random);
    io::MemoryFileSystem fs;
    auto disk = t.open(fs, remote);
    Bytes half(kMiB / 2);
    require_ok(disk->read({0, half.size()}, half.data()));
    Bytes second = first;
    std::fill_n(second.begin() + 100000, 800000, std::uint8_t{0xb2});
    commit_content(remote, t.key.key, "disk", second, t.random);
    CHECK(difference(DiskFixture::read_all(*disk), first) == "");
    disk.reset();
    disk = t.open(fs, remote);  // the same session, restarted under its guest
    CHECK(difference(DiskFixture::read_all(*disk), first) == "");
    require_ok(disk->client_connected());
    disk->client_left(true);
    require_ok(disk->close(std::chrono::seconds(1)));
    disk = t.open(fs, remote);  // the next session
    CHECK(difference(DiskFixture::read_all(*disk), second) == "");
  }
}

TEST_CASE("a_commit_whose_objects_the_server_lost_sends_them_again") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  bool lose = true;
  std::vector<format::ObjectKey> before = remote.server().all_objects();
  auto disk = t.open(fs, remote, [&](ldim::CommitStep step) {
    if (step != ldim::CommitStep::kUploaded || !lose) return true;
    lose = false;  // "has" said yes or "put" said stored, and then they are gone
    for (const auto& key : remote.server().all_objects()) {
      if (std::find(before.begin(), before.end(), key) == before.end())
        remote.server().drop_object(key);
    }
    return true;
  });
  write_at(*disk, guest, 5000, 60000, 7);
  DiskFixture::sync(*disk);
  CHECK(!lose);
  CHECK(difference(head_content(remote, t.key.key, "disk"), guest) == "");
}

TEST_CASE("a_lease_taken_by_another_while_away_makes_a_branch_with_every_flushed_write") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes base = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", base, t.random);
  io::MemoryFileSystem fs;
  Bytes guest = base;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 1000, 5000, 1);
  DiskFixture::sync(*disk);
  const Bytes first = guest;
  remote.set_available(false);
  write_at(*disk, guest, 20000, 5000, 2);
  require_ok(disk->flush());
  write_at(*disk, guest, 22000, 5000, 3);
  require_ok(disk->flush());
  // Meanwhile somebody else becomes the owner and commits.
  FakeRemote second(remote.shared_server());
  remote.server().expire_leases();
  Bytes others = first;
  std::fill_n(others.begin() + 21000, 100, std::uint8_t{0xee});
  commit_content(second, t.key.key, "disk", others, t.random);
  remote.set_available(true);
  DiskFixture::sync(*disk);
  CHECK(difference(head_content(second, t.key.key, "disk"), others) == "");
  const std::string branch = disk->status(false)["branch"];
  REQUIRE(!branch.empty());
  CHECK(difference(head_content(second, t.key.key, branch), guest) == "");
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
}

TEST_CASE("a_base_that_retention_let_go_makes_a_branch_with_every_unsent_write") {
  // The machine comes back: under its guest, or with a new session.
  for (const bool new_session : {false, true}) {
    DiskFixture t;
    FakeRemote remote;
    const Bytes base = random_content(t.random, kMiB);
    commit_content(remote, t.key.key, "disk", base, t.random);
    io::MemoryFileSystem fs;
    Bytes guest = base;
    const ImageId image = remote.find_image("disk")->id;
    VersionId stood_on;
    {
      auto disk = t.open(fs, remote);
      require_ok(disk->client_connected());
      CHECK(difference(DiskFixture::read_all(*disk), base) == "");  // its cache has all
      write_at(*disk, guest, 1000, 5000, 1);
      DiskFixture::sync(*disk);
      stood_on = remote.server().head(image);
      remote.set_available(false);
      write_at(*disk, guest, 20001, 5000, 2);  // parts of pages: they need the base
      require_ok(disk->flush());
      write_at(*disk, guest, 500000, 70000, 3);
      require_ok(disk->flush());
      if (new_session) {
        disk->client_left(true);
        require_ok(disk->close(std::chrono::seconds(1)));
      }
    }
    FakeRemote second(remote.shared_server());
    remote.server().expire_leases();
    const Bytes others = random_content(t.random, kMiB);
    commit_content(second, t.key.key, "disk", others, t.random);
    remote.server().let_go(stood_on);
    REQUIRE(!second.get_version(image, stood_on, 0).ok());
    remote.set_available(true);
    auto disk = t.open(fs, remote);
    if (!new_session) {
      CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
      DiskFixture::sync(*disk);
      CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
    }
    const auto images = remote.list_images();
    REQUIRE(images.ok());
    REQUIRE(images->size() == 2);
    const std::string branch =
        images->front().name == "disk" ? images->back().name : images->front().name;
    CHECK(difference(head_content(second, t.key.key, branch), guest) == "");
    CHECK(difference(head_content(second, t.key.key, "disk"), others) == "");
    if (new_session) CHECK(difference(DiskFixture::read_all(*disk), others) == "");
  }
}

TEST_CASE("a_base_that_nobody_has_any_more_keeps_every_unsent_write_in_the_journal") {
  DiskFixture t;
  t.options.read_ahead = false;
  FakeRemote remote;
  const Bytes base = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", base, t.random);
  const ImageId image = remote.find_image("disk")->id;
  const VersionId stood_on = remote.server().head(image);
  io::MemoryFileSystem fs;
  Bytes guest = base;
  {
    auto disk = t.open(fs, remote);
    require_ok(disk->client_connected());
    remote.set_available(false);
    write_at(*disk, guest, 40960, 8192, 2);
    require_ok(disk->flush());
  }
  FakeRemote second(remote.shared_server());
  remote.server().expire_leases();
  commit_content(second, t.key.key, "disk", random_content(t.random, kMiB), t.random);
  remote.server().let_go(stood_on);
  remote.set_available(true);
  for (int start = 0; start < 2; ++start) {  // and it stays there
    auto disk = t.open(fs, remote);
    CHECK(!disk->sync(true, std::chrono::milliseconds(1500)).ok());
    Bytes written(8192);
    require_ok(disk->read({40960, written.size()}, written.data()));
    CHECK(std::all_of(written.begin(), written.end(), [](std::uint8_t b) { return b == 2; }));
    Bytes absent(4096);
    CHECK(!disk->read({900 * 1024, absent.size()}, absent.data()).ok());  // never other bytes
    const auto status = disk->status(false);
    CHECK(status["journal"]["unsent_epochs"] == 1);
    CHECK(status["safe_to_switch_off"] == false);
    CHECK(!status["write_back"]["trouble"].get<std::string>().empty());
  }
}

TEST_CASE("clients_of_a_server_that_was_away_do_not_all_come_back_at_once") {
  // Machines that all fail at the same instant, and wait for their first retry: 250 ms, each its
  // own share more or less.
  struct Machine {
    explicit Machine(std::uint64_t number, std::shared_ptr<FakeServer> server)
        : random(seed() + number), remote(std::move(server)) {}
    std::uint64_t tries() const { return remote.calls(RemoteCall::kCommit) - before; }
    io::MemoryFileSystem fs;
    SeededRandom random;
    FakeRemote remote;
    std::uint64_t before = 0;
    std::unique_ptr<ldim::Disk> disk;
  };
  constexpr std::uint64_t kMachines = 20;
  SteppedClock clock;
  DiskFixture t;
  t.options.journal_bytes = 2 * kMiB;
  t.options.read_ahead = false;
  auto server = std::make_shared<FakeServer>();
  std::vector<std::unique_ptr<Machine>> machines;
  for (std::uint64_t i = 0; i < kMachines; ++i) {
    machines.push_back(std::make_unique<Machine>(i, server));
    Machine& m = *machines.back();
    t.options.image = "disk" + std::to_string(i);
    Bytes content(64 * kKiB, 1);
    commit_content(m.remote, t.key.key, t.options.image, content, m.random);
    auto opened = ldim::Disk::open(t.options, {m.remote, m.fs, clock, m.random});
    REQUIRE(opened.ok());
    m.disk = std::move(*opened);
    write_at(*m.disk, content, 0, 4096, 2);
    m.before = m.remote.calls(RemoteCall::kCommit);
    m.remote.fail(RemoteCall::kCommit, make_error(ErrorCode::kUnavailable, "away"), 1'000'000);
    REQUIRE(m.disk->sync(false, {}).ok());
  }
  const auto waits_until = [&](auto&& condition) {
    for (int i = 0; i < 6000 && !condition(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return condition();
  };
  const auto came_back = [&] {
    return static_cast<std::uint64_t>(std::count_if(machines.begin(), machines.end(),
                                                    [](const auto& m) { return m->tries() >= 2; }));
  };
  REQUIRE(waits_until([&] {
    return std::all_of(machines.begin(), machines.end(), [](const auto& m) {
      return !m->disk->status(false)["write_back"]["trouble"].template get<std::string>().empty();
    });
  }));
  CHECK(came_back() == 0);
  // Just before the pause that all of them would have without their own share.
  clock.advance(std::chrono::milliseconds(249));
  CHECK(waits_until([&] { return came_back() > 0; }));
  std::this_thread::sleep_for(std::chrono::seconds(1));  // whoever may come has come
  CHECK(came_back() < kMachines);
  clock.advance(std::chrono::milliseconds(64));
  CHECK(waits_until([&] { return came_back() == kMachines; }));
}

TEST_CASE("a_dead_holders_lease_ends_and_the_next_machine_starts") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem first_fs;
  io::MemoryFileSystem second_fs;
  {
    auto dead = t.open(first_fs, remote);
    write_at(*dead, guest, 1000, 5000, 1);
    DiskFixture::sync(*dead);
  }
  remote.server().expire_leases();
  auto next = t.open(second_fs, remote);
  CHECK(difference(DiskFixture::read_all(*next), guest) == "");
  write_at(*next, guest, 50000, 5000, 2);
  DiskFixture::sync(*next);
  CHECK(difference(head_content(remote, t.key.key, "disk"), guest) == "");
}

TEST_CASE("a_lease_asked_for_while_a_flush_seals_goes_when_the_flushed_epoch_is_on_the_server") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  SimFileSystem fs;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 1000, 5000, 1);
  CHECK(disk->status(false)["safe_to_switch_off"] == false);
  std::mutex mutex;
  std::condition_variable changed;
  bool sealing = false;
  bool release = false;
  fs.on_write([&](const std::string& path, std::uint64_t, std::uint64_t) {
    if (!path.ends_with(".jnl")) return;
    std::unique_lock lock(mutex);
    sealing = true;
    changed.notify_all();
    changed.wait(lock, [&] { return release; });
  });
  std::thread flush([&] { (void)disk->flush().ok(); });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return sealing; });
  }
  // No write is in the open epoch, and the sealed one is not synced yet: all the same it is unsent.
  CHECK(disk->status(false)["safe_to_switch_off"] == false);
  CHECK(!disk->all_sent());
  FakeRemote other(remote.shared_server());
  const auto image = other.find_image("disk");
  REQUIRE(image.ok());
  contract::LeaseRequest request;
  request.image = image->id;
  request.machine = t.random.id<MachineId>();
  request.machine_name = "other";
  request.session = t.random.id<SessionId>();
  request.hand_off = true;
  Result<contract::LeaseGrant> grant = other.acquire_lease(request);
  for (int i = 0; i < 15 && !grant.ok(); ++i) {  // time to let go too early
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    grant = other.acquire_lease(request);
  }
  CHECK(!grant.ok());
  {
    const std::lock_guard lock(mutex);
    release = true;
  }
  changed.notify_all();
  flush.join();
  for (int i = 0; i < 1200 && !grant.ok(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    grant = other.acquire_lease(request);
  }
  REQUIRE(grant.ok());
  CHECK(difference(head_content(remote, t.key.key, "disk"), guest) == "");
}

TEST_CASE("a_holder_that_still_sends_is_waited_for_and_one_that_does_not_is_given_up") {
  DiskFixture t;
  t.options.lease = ldim::LeaseKeeper::LeaseAsk::kHandOff;
  t.options.hand_off_wait = std::chrono::milliseconds(3000);
  for (const bool sends : {true, false}) {
    FakeRemote remote;
    commit_content(remote, t.key.key, "disk", random_content(t.random, kMiB), t.random);
    FakeRemote holder(remote.shared_server());
    const auto image = holder.find_image("disk");
    REQUIRE(image.ok());
    contract::LeaseRequest request;
    request.image = image->id;
    request.machine = t.random.id<MachineId>();
    request.machine_name = "holder";
    request.session = t.random.id<SessionId>();
    auto grant = holder.acquire_lease(request);
    REQUIRE(grant.ok());
    grant->unsent_bytes = 10 * kMiB;
    REQUIRE(holder.renew_lease(image->id, *grant).ok());
    std::atomic<bool> over{false};
    // For three times as long as may be waited for one that sends nothing.
    std::thread work([&] {
      const auto from = std::chrono::steady_clock::now();
      while (!over && std::chrono::steady_clock::now() - from < std::chrono::seconds(9)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        if (sends) grant->unsent_bytes -= kPageBytes;
        (void)holder.renew_lease(image->id, *grant).ok();
      }
      if (sends) (void)holder.release_lease(image->id, *grant).ok();
    });
    io::MemoryFileSystem fs;
    const auto disk = t.try_open(fs, remote);
    over = true;
    work.join();
    INFO((sends ? "sends" : "does not send"));
    CHECK(disk.ok() == sends);
    if (!disk.ok()) CHECK(disk.error().code == ErrorCode::kLeaseHeld);
  }
}
