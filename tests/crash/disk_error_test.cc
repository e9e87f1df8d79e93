// Every I/O call of a whole LDIM in a scripted run fails once, in every way: two sessions that
// open, write, flush, commit, read what is not there, and end by a kill or in order. What was
// flushed is there afterwards, after a kill what was answered too; no read is ever wrong;
// everything reaches the server.
#include <spdlog/spdlog.h>

#include <cstdio>
#include <map>
#include <vector>

#include "tests/support/disk_fixture.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

constexpr std::size_t kDiskBytes = kMiB;
constexpr std::size_t kPlaceBytes = 6000;  // not whole pages
constexpr std::uint64_t kPlaceStep = 16 * kKiB;

// The places that the guest writes, each all of one byte: what may be found there.
class Guest {
 public:
  explicit Guest(Bytes base) : base_(std::move(base)) {}

  // A failed one may be there or not.
  void write(ldim::Disk& disk, std::uint64_t place, bool zero) {
    const std::uint8_t value = zero ? std::uint8_t{0} : next_++;
    const ByteRange range{place * kPlaceStep + 300, kPlaceBytes};
    const Bytes data(kPlaceBytes, value);
    const Status written =
        zero ? disk.zero(range, true, false) : disk.write(range, data.data(), false);
    auto& history = places_[place];
    history.push_back({value, written.ok(), false});
  }
  void flush(ldim::Disk& disk) {
    const auto before = places_;
    if (!disk.flush().ok()) return;
    for (auto& [place, history] : places_) {
      for (std::size_t i = 0; i < before.at(place).size(); ++i)
        history[i].flushed = history[i].answered;
    }
  }
  // Empty, or what is wrong. `all_answered`: nothing that the kernel had is lost.
  std::string check(const Bytes& disk, bool all_answered) const {
    Bytes rest = disk;
    for (const auto& [place, history] : places_) {
      const auto at = static_cast<std::ptrdiff_t>(place * kPlaceStep + 300);
      std::size_t oldest = 0;  // 0: the base; n: history[n - 1]
      for (std::size_t i = 0; i < history.size(); ++i) {
        if (history[i].flushed || (all_answered && history[i].answered)) oldest = i + 1;
      }
      bool right = false;
      for (std::size_t i = oldest; i <= history.size() && !right; ++i) {
        right = i == 0 ? std::equal(disk.begin() + at, disk.begin() + at + kPlaceBytes,
                                    base_.begin() + at)
                       : std::all_of(disk.begin() + at, disk.begin() + at + kPlaceBytes,
                                     [&](std::uint8_t b) { return b == history[i - 1].value; });
      }
      if (!right) return "place " + std::to_string(place) + " is older than promised, or mixed";
      std::copy_n(base_.begin() + at, kPlaceBytes, rest.begin() + at);
    }
    return difference(rest, base_);
  }

 private:
  struct Write {
    std::uint8_t value = 0;
    bool answered = false;
    bool flushed = false;
  };
  const Bytes base_;
  std::map<std::uint64_t, std::vector<Write>> places_;
  std::uint8_t next_ = 1;
};

struct World {
  DiskFixture fixture{7};
  FakeRemote remote;
  Bytes base = random_content(fixture.random, kDiskBytes);
  Guest guest{base};
  SimFileSystem fs;

  World() {
    fixture.options.journal_bytes = 16 * kMiB;
    fixture.options.cache_bytes = 16 * kMiB;
    fixture.options.read_ahead = false;
    commit_content(remote, fixture.key.key, "disk", base, fixture.random);
  }

  // A fault may stop a start; not two.
  std::unique_ptr<ldim::Disk> open() {
    for (int tries = 0; tries < 2; ++tries) {
      auto disk = fixture.try_open(fs, remote);
      if (disk.ok()) return std::move(disk).value();
    }
    return nullptr;
  }
  // Whatever is read, it is right or refused.
  void read(ldim::Disk& disk, std::uint64_t at) {
    Bytes got(4096);
    if (!disk.read({at, got.size()}, got.data()).ok()) return;
    INFO("read at " << at);
    REQUIRE(difference(got, Bytes(base.begin() + static_cast<std::ptrdiff_t>(at),
                                  base.begin() + static_cast<std::ptrdiff_t>(at + 4096))) == "");
  }
  void run_script() {
    for (std::uint64_t part = 0; part < 2; ++part) {
      auto disk = open();
      REQUIRE(disk != nullptr);
      if (!disk->client_connected().ok()) continue;
      guest.write(*disk, part, false);
      guest.write(*disk, 2, false);
      guest.flush(*disk);
      (void)disk->write_back_once().ok();
      guest.write(*disk, 3 + part, false);
      guest.write(*disk, 2, part == 1);
      guest.flush(*disk);
      read(*disk, 700 * 1024 + part * 100 * 1024);
      guest.write(*disk, 5, false);
      disk->client_left(true);
      if (part == 0) continue;  // killed
      (void)disk->write_back_once().ok();
      (void)disk->close(std::chrono::seconds(1)).ok();
    }
  }
  void check_after(SimFileSystem& disk_after, bool all_answered) {
    remote.server().expire_leases();
    auto opened = fixture.try_open(disk_after, remote);
    if (!opened.ok()) FAIL(opened.error().to_string());
    ldim::Disk& disk = **opened;
    const Bytes seen = DiskFixture::read_all(disk);
    REQUIRE(guest.check(seen, all_answered) == "");
    DiskFixture::sync(disk);
    const auto images = remote.list_images();
    REQUIRE(images.ok());
    REQUIRE(images->size() == 1);  // one machine: never a branch
    REQUIRE(difference(read_version(remote, fixture.key.key, images->front().id,
                                    remote.server().head(images->front().id)),
                       seen) == "");
  }
};

}  // namespace

TEST_CASE("an_error_at_any_call_of_a_whole_disk_loses_nothing_promised") {
  spdlog::set_level(spdlog::level::off);
  // Background threads make the number of calls differ by a few: it ends where none is met any
  // more.
  const Calls calls = calls_to_fail();
  const std::uint64_t beyond = 4 + calls.step;
  for (const SimFault fault : {SimFault::kIo, SimFault::kSpace, SimFault::kShort}) {
    std::uint64_t last_hit = 0, hits = 0;
    for (std::uint64_t call = calls.first; call <= last_hit + beyond; call += calls.step) {
      INFO("call " << call << ", fault " << static_cast<int>(fault));
      World world;
      world.fs.fail_call(call, fault);
      world.run_script();
      if (world.fs.fault_hit()) ++hits, last_hit = call;
      world.fs.clear_faults();
      if (call % 2 == 0) {
        world.check_after(*world.fs.copy(), true);
      } else {
        world.check_after(*world.fs.after_power_cut(call), false);
      }
    }
    std::printf("fault %d: %llu calls failed\n", static_cast<int>(fault),
                static_cast<unsigned long long>(hits));
    CHECK(hits * calls.step > 50);
  }
}
