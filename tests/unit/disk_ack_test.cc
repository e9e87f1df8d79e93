// How far a flush has come when it is answered: ack=sent, received, committed. Each is held one
// step before its promise, and must not have been answered; let go, it is.
#include <atomic>
#include <condition_variable>
#include <thread>
#include <nlohmann/json.hpp>

#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;
using ldim::CommitStep;

namespace {

// Longer than whoever waits for an acknowledgement takes to look again.
constexpr std::chrono::milliseconds kLookedAgain{700};

// A step of the commit at which it waits.
class HeldStep {
 public:
  explicit HeldStep(CommitStep step) : step_(step) {}
  std::function<bool(CommitStep)> hook() {
    return [this](CommitStep step) {
      if (step != step_) return true;
      std::unique_lock lock(mutex_);
      there_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !held_; });
      return go_on_;
    };
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return there_; });
  }
  // false: as if the process were killed there.
  void let_go(bool go_on) {
    const std::lock_guard lock(mutex_);
    go_on_ = go_on;
    held_ = false;
    changed_.notify_all();
  }

 private:
  const CommitStep step_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool there_ = false, held_ = true, go_on_ = true;
};

// A guest that waits for its flush, or for a write with FUA, which is one.
class Flushing {
 public:
  explicit Flushing(std::function<Status()> flush)
      : thread_([this, flush = std::move(flush)] {
          status_ = flush();
          answered_ = true;
        }) {}
  ~Flushing() { thread_.join(); }
  bool still_waits() {
    std::this_thread::sleep_for(kLookedAgain);
    return !answered_;
  }
  bool answered_ok() {
    for (int i = 0; i < 6000 && !answered_; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return answered_ && status_.ok();
  }

 private:
  Status status_;
  std::atomic<bool> answered_{false};
  std::thread thread_;
};

void wait_for(FakeRemote& remote, RemoteCall call) {
  while (remote.waiting(call) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

struct AckFixture : DiskFixture {
  explicit AckFixture(ldim::Acknowledge acknowledge) {
    options.acknowledge = acknowledge;
    guest = random_content(random, kMiB);
    commit_content(remote, key.key, "disk", guest, random);
    image = remote.find_image("disk")->id;
    before = remote.server().head(image);
  }
  bool head_holds_it() {
    const VersionId head = remote.server().head(image);
    return !(head == before) && difference(read_version(remote, key.key, image, head), guest) == "";
  }

  FakeRemote remote;
  Bytes guest;
  ImageId image;
  VersionId before;
};

}  // namespace

TEST_CASE("a flush with ack=sent is answered when the server has its objects, and not before") {
  AckFixture t(ldim::Acknowledge::kSent);
  io::MemoryFileSystem fs;
  const auto disk = t.open(fs, t.remote);
  write_at(*disk, t.guest, 4096, 100'000, 7);
  t.remote.hold(RemoteCall::kPut);
  t.remote.hold(RemoteCall::kCommit);
  Flushing flush([&] { return disk->flush(); });
  wait_for(t.remote, RemoteCall::kPut);
  CHECK(flush.still_waits());
  t.remote.release(RemoteCall::kPut);
  CHECK(flush.answered_ok());  // no commit is needed for it
  CHECK(t.remote.server().head(t.image) == t.before);
  t.remote.release(RemoteCall::kCommit);
}

TEST_CASE("a flush with ack=received is answered when the head holds it, and the host may burn") {
  AckFixture t(ldim::Acknowledge::kReceived);
  HeldStep base_record(CommitStep::kCacheSynced);
  {
    io::MemoryFileSystem fs;
    const auto disk = t.open(fs, t.remote, base_record.hook());
    write_at(*disk, t.guest, 4096, 100'000, 7);
    t.remote.hold(RemoteCall::kCommit);
    const Bytes last(5000, 9);
    std::copy(last.begin(), last.end(), t.guest.begin() + 300'000);
    Flushing flush([&] { return disk->write({300'000, last.size()}, last.data(), true); });
    wait_for(t.remote, RemoteCall::kCommit);
    CHECK(disk->status(false)["journal"]["sent_epoch"] == 1);
    CHECK(flush.still_waits());
    CHECK(t.remote.server().head(t.image) == t.before);
    t.remote.release(RemoteCall::kCommit);
    CHECK(flush.answered_ok());  // this machine has recorded nothing of it yet
    CHECK(t.head_holds_it());
    base_record.wait();
    base_record.let_go(false);
  }
  // The host and its folder are gone.
  t.remote.server().expire_leases();
  FakeRemote elsewhere(t.remote.shared_server());
  io::MemoryFileSystem new_folder;
  const auto disk = t.open(new_folder, elsewhere);
  CHECK(difference(DiskFixture::read_all(*disk), t.guest) == "");
}

TEST_CASE("a flush with ack=committed is answered when this machine has recorded it, too") {
  AckFixture t(ldim::Acknowledge::kCommitted);
  HeldStep base_record(CommitStep::kCacheSynced);
  SimFileSystem fs;
  std::unique_ptr<SimFileSystem> cut;
  {
    const auto disk = t.open(fs, t.remote, base_record.hook());
    CHECK(difference(DiskFixture::read_all(*disk), t.guest) == "");
    write_at(*disk, t.guest, 4096, 100'000, 7);
    Flushing flush([&] { return disk->flush(); });
    base_record.wait();
    CHECK(t.head_holds_it());
    CHECK(flush.still_waits());
    base_record.let_go(true);
    CHECK(flush.answered_ok());
    cut = fs.after_power_cut(t.random.next());
  }
  t.remote.set_available(false);
  const auto disk = t.open(*cut, t.remote);
  const auto status = disk->status(false);
  CHECK(status["version"]["sequence"] == 2);
  CHECK(status["journal"]["unsent_epochs"] == 0);
  CHECK(difference(DiskFixture::read_all(*disk), t.guest) == "");
}
