// Conflict branches that are resolved, cut short or built upon while their machine is away. Names:
// situation_outcome.
#include <algorithm>
#include <atomic>
#include <thread>
#include <nlohmann/json.hpp>

#include "nbdkit-ldim/writeback/lease_keeper.h"
#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

Bytes content_of(FakeRemote& remote, const format::KeyFile& key, const std::string& name) {
  const auto image = remote.find_image(name);
  REQUIRE(image.ok());
  return read_version(remote, key, image->id, image->head);
}

std::string branch_of(ldim::Disk& disk) { return disk.status(false)["branch"]; }

void wait_for(const std::function<bool()>& done) {
  for (int i = 0; i < 60000 && !done(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  REQUIRE(done());
}

// A machine that has lost the image: its session stands on a branch of its own.
struct Loser {
  explicit Loser(bool caches_all = true) {
    t.options.read_ahead = false;
    t.options.write_back = ldim::WriteBackPolicy::kEager;
    commit_content(remote, t.key.key, "disk", base, t.random);
    disk = t.open(fs, remote);
    require_ok(disk->client_connected());
    if (caches_all) CHECK(difference(DiskFixture::read_all(*disk), base) == "");
    remote.set_available(false);
    write_at(*disk, guest, 1000, 5000, 1);
    require_ok(disk->flush());
    remote.server().expire_leases();
    others = base;
    std::fill_n(others.begin() + 21000, 100, std::uint8_t{0xee});
    commit_content(second, t.key.key, "disk", others, t.random);
    remote.set_available(true);
    DiskFixture::sync(*disk);
    branch = branch_of(*disk);
    REQUIRE(branch == "disk.conflict-tester-1");
  }
  void resolve_while_away() {
    remote.set_available(false);
    remote.server().expire_leases();
    const auto image = second.find_image(branch);
    REQUIRE(image.ok());
    require_ok(second.remove_image(image->id));
  }

  DiskFixture t;
  FakeRemote remote;
  FakeRemote second{remote.shared_server()};
  const Bytes base = random_content(t.random, kMiB);
  Bytes guest = base;
  Bytes others;
  io::MemoryFileSystem fs;
  std::unique_ptr<ldim::Disk> disk;
  std::string branch;
};

}  // namespace

TEST_CASE("a_branch_resolved_while_its_machine_was_away_gets_its_later_writes_on_another") {
  Loser loser;
  loser.resolve_while_away();
  SECTION("under its guest") {
    write_at(*loser.disk, loser.guest, 40001, 5000, 2);  // parts of pages: they need the base
    require_ok(loser.disk->flush());
    loser.remote.set_available(true);
  }
  SECTION("killed, and started again") {
    write_at(*loser.disk, loser.guest, 40001, 5000, 2);
    require_ok(loser.disk->flush());
    loser.disk.reset();
    loser.remote.set_available(true);
    loser.disk = loser.t.open(loser.fs, loser.remote);
  }
  SECTION("with nothing unsent at first") {
    loser.remote.set_available(true);
    wait_for([&] { return branch_of(*loser.disk).empty(); });
    write_at(*loser.disk, loser.guest, 40001, 5000, 2);
  }
  DiskFixture::sync(*loser.disk);
  CHECK(difference(DiskFixture::read_all(*loser.disk), loser.guest) == "");
  const std::string later = branch_of(*loser.disk);
  REQUIRE(!later.empty());
  CHECK(difference(content_of(loser.second, loser.t.key.key, later), loser.guest) == "");
  CHECK(difference(content_of(loser.second, loser.t.key.key, "disk"), loser.others) == "");
}

TEST_CASE("a_branch_removed_under_a_reader_leaves_him_every_page_of_it") {
  Loser loser(false);
  const auto image = loser.second.find_image(loser.branch);
  REQUIRE(image.ok());
  loser.remote.server().expire_leases();
  require_ok(loser.second.remove_image(image->id));  // announced while it listens
  wait_for([&] { return branch_of(*loser.disk).empty(); });
  CHECK(difference(DiskFixture::read_all(*loser.disk), loser.guest) == "");
}

TEST_CASE("a_rescue_that_was_cut_short_is_done_again_and_leaves_no_empty_branch") {
  // The line breaks whenever something goes to the branch: its objects, or its commit.
  struct CutOnBranch : FakeRemote {
    Result<std::uint64_t> put(const ImageId& image, std::span<const PutItem> items,
                              contract::Priority priority) override {
      if (in_upload && off(image)) return away();
      return FakeRemote::put(image, items, priority);
    }
    Result<contract::CommitAnswer> commit(const contract::CommitOrder& order) override {
      if (!in_upload && off(order.image)) return away();
      return FakeRemote::commit(order);
    }
    bool off(const ImageId& image) {
      if (image == home || !cut) return false;
      ++broken;
      return true;
    }
    static Error away() { return make_error(ErrorCode::kUnavailable, "the line is cut"); }
    bool in_upload = false;
    ImageId home;
    std::atomic<bool> cut = true;
    std::atomic<int> broken = 0;
  };
  DiskFixture t;
  CutOnBranch remote;
  FakeRemote second(remote.shared_server());
  remote.in_upload = GENERATE(true, false);
  const bool home_moves = GENERATE(true, false);
  const bool killed = GENERATE(true, false);
  const Bytes base = random_content(t.random, kMiB);
  commit_content(second, t.key.key, "disk", base, t.random);
  remote.home = second.find_image("disk")->id;
  io::MemoryFileSystem fs;
  Bytes guest = base;
  auto disk = t.open(fs, remote);
  require_ok(disk->client_connected());
  CHECK(difference(DiskFixture::read_all(*disk), base) == "");
  write_at(*disk, guest, 1000, 5000, 1);
  DiskFixture::sync(*disk);
  const VersionId stood_on = remote.server().head(remote.home);
  remote.set_available(false);
  write_at(*disk, guest, 20001, 5000, 2);
  require_ok(disk->flush());
  remote.server().expire_leases();
  Bytes others = random_content(t.random, kMiB);
  commit_content(second, t.key.key, "disk", others, t.random);
  remote.server().let_go(stood_on);
  remote.set_available(true);
  REQUIRE(disk->sync(false, {}).ok());
  wait_for([&] { return remote.broken >= 2; });
  CHECK(second.list_images()->size() == 2);
  if (home_moves) {
    remote.set_available(false);
    remote.server().expire_leases();
    others[7] ^= 1;
    commit_content(second, t.key.key, "disk", others, t.random);
    remote.set_available(true);
  }
  if (killed) {
    disk.reset();
    remote.cut = false;
    disk = t.open(fs, remote);
  }
  remote.cut = false;
  DiskFixture::sync(*disk);
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  const std::string branch = branch_of(*disk);
  REQUIRE(!branch.empty());
  CHECK(difference(content_of(second, t.key.key, branch), guest) == "");
  CHECK(difference(content_of(second, t.key.key, "disk"), others) == "");
  CHECK(second.list_images()->size() == 2);
}

TEST_CASE("a_commit_whose_answer_was_lost_then_built_upon_keeps_what_took_it_back_on_a_branch") {
  DiskFixture t;
  FakeRemote remote;
  FakeRemote second(remote.shared_server());
  const Bytes empty(kMiB, 0);
  Bytes guest = empty;
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 40960, 8192, 0xaa);
  const Bytes offered = guest;
  remote.lose_replies(RemoteCall::kCommit, 1000);
  REQUIRE(disk->sync(false, {}).ok());
  wait_for([&] { return remote.calls(RemoteCall::kCommit) >= 2; });
  remote.set_available(false);
  require_ok(disk->zero({40960, 8192}, true, false));
  guest = empty;
  require_ok(disk->flush());
  if (GENERATE(false, true)) disk.reset();  // killed: the next start knows nothing of the offer
  remote.server().expire_leases();
  Bytes others = offered;  // somebody has seen the commit, and goes on from it
  others[9] ^= 1;
  commit_content(second, t.key.key, "disk", others, t.random);
  remote.lose_replies(RemoteCall::kCommit, 0);
  remote.set_available(true);
  if (disk == nullptr) disk = t.open(fs, remote);
  DiskFixture::sync(*disk);
  CHECK(difference(DiskFixture::read_all(*disk), guest) == "");
  CHECK(difference(content_of(second, t.key.key, "disk"), others) == "");
  CHECK(difference(content_of(second, t.key.key, "disk.conflict-tester-1"), guest) == "");
}

TEST_CASE("a_restored_folder_whose_branching_is_cut_short_is_known_for_one_at_the_next_start") {
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
    old_copy = fs.copy();
    DiskFixture::sync(*disk);
    write_at(*disk, guest, 3000, 5000, 2);
    DiskFixture::sync(*disk);
    write_at(*disk, guest, 400000, 5000, 3);
    DiskFixture::sync(*disk);
    require_ok(disk->end_session());
    require_ok(disk->close(std::chrono::seconds(1)));
  }
  // The branch is made, the link breaks before its first commit: the start is refused.
  remote.fail(RemoteCall::kCommit, make_error(ErrorCode::kUnavailable, "the line is cut"), 1);
  CHECK(!t.try_open(*old_copy, remote).ok());
  REQUIRE(remote.list_images()->size() == 2);
  auto restored = t.open(*old_copy, remote);
  CHECK(remote.list_images()->size() == 2);  // the same branch
  CHECK(difference(DiskFixture::read_all(*restored), guest) == "");
  // Epochs of a journal with a name of its own: no conflict with what the server knows of the old.
  write_at(*restored, guest, 700000, 4096, 9);
  DiskFixture::sync(*restored);
  write_at(*restored, guest, 800000, 4096, 10);
  DiskFixture::sync(*restored);
  CHECK(restored->status(false)["branch"] == "");
  CHECK(difference(content_of(remote, t.key.key, "disk"), guest) == "");
}

TEST_CASE("a_state_file_lost_beside_a_journal_puts_no_write_on_another_base") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  io::MemoryFileSystem fs;
  {
    auto disk = t.open(fs, remote);
    write_at(*disk, guest, 1000, 5000, 1);
    require_ok(disk->flush());
  }
  remote.server().expire_leases();
  const Bytes others = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", others, t.random);
  require_ok(fs.remove(t.options.cache_folder + "/state"));
  const auto opened = t.try_open(fs, remote);
  REQUIRE(!opened.ok());
  CHECK(opened.error().code == ErrorCode::kCorrupt);
  CHECK(opened.error().message.find("state") != std::string::npos);
  CHECK(remote.list_images()->size() == 1);
  CHECK(difference(content_of(remote, t.key.key, "disk"), others) == "");
}

TEST_CASE("two_folders_of_one_machine_are_two_writers_and_one_folder_after_a_crash_is_one") {
  SeededRandom random(seed());
  FakeRemote remote;
  TemporaryKey key(random);
  commit_content(remote, key.key, "disk", Bytes(kMiB, 1), random);
  contract::LeaseRequest request;
  request.image = remote.find_image("disk")->id;
  request.machine = random.id<MachineId>();
  request.machine_name = "terminal";
  const ldim::FolderTag first = {1};
  const ldim::FolderTag second = {2};
  request.session = ldim::new_session(first, random);
  ldim::LeaseKeeper holder(remote, request);
  REQUIRE(holder.ensure().ok());
  request.session = ldim::new_session(second, random);
  ldim::LeaseKeeper other(remote, request);
  const auto refused = other.ensure();
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kLeaseHeld);
  CHECK(refused.error().holder == "terminal");
  // The first folder's process was killed, and its next session begins before the lease ends.
  request.session = ldim::new_session(first, random);
  ldim::LeaseKeeper again(remote, request);
  CHECK(again.ensure().ok());
}

TEST_CASE("what_a_lease_keeper_asks_is_asked_no_more_once_it_was_replaced") {
  struct ShortLeases : FakeRemote {
    Result<contract::LeaseGrant> acquire_lease(const contract::LeaseRequest& request) override {
      auto grant = FakeRemote::acquire_lease(request);
      if (grant.ok()) grant->term = std::chrono::milliseconds(30);
      return grant;
    }
  };
  SeededRandom random(seed());
  ShortLeases remote;
  TemporaryKey key(random);
  commit_content(remote, key.key, "disk", Bytes(kMiB, 1), random);
  contract::LeaseRequest request;
  request.image = remote.find_image("disk")->id;
  request.session = random.id<SessionId>();
  ldim::LeaseKeeper keeper(remote, request);
  auto figure = std::make_unique<std::uint64_t>(7);
  std::atomic<bool> asked = false;
  keeper.set_unsent([&] {
    asked = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return *figure;
  });
  REQUIRE(keeper.ensure().ok());
  wait_for([&] { return asked.load(); });
  keeper.set_unsent({});
  figure.reset();  // a sanitizer tells if it is still read
}

TEST_CASE("a_stop_with_a_journal_that_fails_keeps_the_lease_so_that_the_machine_stays_named") {
  DiskFixture t;
  FakeRemote remote;
  Bytes guest = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", guest, t.random);
  SimFileSystem fs;
  auto disk = t.open(fs, remote);
  write_at(*disk, guest, 1000, 5000, 1);
  require_ok(disk->flush());
  fs.fail_next_sync();
  write_at(*disk, guest, 9000, 5000, 2);
  CHECK(!disk->flush().ok());
  (void)disk->close(std::chrono::milliseconds(0)).ok();
  CHECK(remote.find_image("disk")->holder.has_value());
}
