// What other systems gave their guests to read. Names: situation_outcome.
#include <atomic>
#include <thread>
#include <nlohmann/json.hpp>

#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

std::vector<std::string> names_in(SimFileSystem& fs, const std::string& folder) {
  auto names = fs.list(folder);
  REQUIRE(names.ok());
  return std::move(names).value();
}

}  // namespace

TEST_CASE("a_failed_fetch_is_an_error_and_never_zeros_and_heals") {
  DiskFixture t;
  t.options.read_ahead = false;
  FakeRemote remote;
  const Bytes content(kMiB, 0x77);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  for (const ErrorCode code :
       {ErrorCode::kInternal, ErrorCode::kNotFound, ErrorCode::kPermissionDenied}) {
    Bytes got(8192, 0xee);
    remote.fail(RemoteCall::kGet, make_error(code, "planted"), 1000);
    CHECK(!disk->read({0, got.size()}, got.data()).ok());
    remote.fail(RemoteCall::kGet, {}, 0);
  }
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  // Unreachable for a while is no error at all.
  io::MemoryFileSystem second;
  remote.server().expire_leases();
  auto other = t.open(second, remote);
  remote.fail(RemoteCall::kGet, make_error(ErrorCode::kUnavailable, "planted"), 3);
  CHECK(difference(DiskFixture::read_all(*other), content) == "");
}

TEST_CASE("a_slow_server_is_waited_for") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes content = random_content(t.random, 256 * 1024);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  remote.set_delay(std::chrono::milliseconds(600));
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  remote.set_delay(std::chrono::milliseconds(0));
}

TEST_CASE("reads_of_absent_pages_are_asked_for_side_by_side") {
  DiskFixture t;
  t.options.read_ahead = false;
  FakeRemote remote;
  Bytes content(8 * kMiB, 0);
  t.random.fill(content);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  for (std::uint64_t i = 0; i < 8; ++i) {  // the tree, but not what these threads read
    Bytes page(kPageBytes);
    require_ok(disk->read({i * kMiB, page.size()}, page.data()));
  }
  remote.hold(RemoteCall::kGet);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (std::uint64_t i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      Bytes got(kPageBytes);
      const std::uint64_t at = i * kMiB + kMiB / 2;
      if (!disk->read({at, got.size()}, got.data()).ok() ||
          !std::equal(got.begin(), got.end(), content.begin() + static_cast<std::ptrdiff_t>(at)))
        ++wrong;
    });
  }
  for (int i = 0; i < 5000 && remote.waiting(RemoteCall::kGet) < 8; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  CHECK(remote.waiting(RemoteCall::kGet) == 8);
  remote.release(RemoteCall::kGet);
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("the_cache_files_of_another_image_serve_none_of_its_pages") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes mine(kMiB, 0x11);
  const Bytes others(kMiB, 0x99);
  commit_content(remote, t.key.key, "disk", mine, t.random);
  commit_content(remote, t.key.key, "other", others, t.random);
  SimFileSystem fs;
  SimFileSystem other_fs;
  CHECK(difference(DiskFixture::read_all(*t.open(fs, remote)), mine) == "");
  t.options.image = "other";
  CHECK(difference(DiskFixture::read_all(*t.open(other_fs, remote)), others) == "");
  t.options.image = "disk";
  // Somebody copies the other folder's cache over ours.
  for (const std::string& name : names_in(fs, "/ldim/cache")) fs.erase("/ldim/cache/" + name);
  for (const std::string& name : names_in(other_fs, "/ldim/cache"))
    fs.plant("/ldim/cache/" + name, other_fs.peek("/ldim/cache/" + name));
  CHECK(difference(DiskFixture::read_all(*t.open(fs, remote)), mine) == "");
}

TEST_CASE("offline_ready_is_told_from_verified_pages_only") {
  DiskFixture t;
  FakeRemote remote;
  Bytes content(2 * kMiB, 0);
  t.random.fill(content);
  commit_content(remote, t.key.key, "disk", content, t.random);
  SimFileSystem fs;
  {
    auto disk = t.open(fs, remote);
    CHECK(!disk->status(true)["offline_ready"]["ready"].get<bool>());
    CHECK(difference(DiskFixture::read_all(*disk), content) == "");
    CHECK(disk->status(true)["offline_ready"]["ready"].get<bool>());
    require_ok(disk->close(std::chrono::seconds(1)));
  }
  // A page rots: present, and not there.
  for (const std::string& name : names_in(fs, "/ldim/cache")) {
    const std::string path = "/ldim/cache/" + name;
    const Bytes bytes = fs.peek(path);
    if (bytes.size() < kMiB) continue;
    const std::uint8_t bent = static_cast<std::uint8_t>(bytes[bytes.size() / 4] ^ 1);
    fs.poke(path, bytes.size() / 4, {&bent, 1});
  }
  auto disk = t.open(fs, remote);
  CHECK(!disk->status(true)["offline_ready"]["ready"].get<bool>());
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");  // fetched again
  CHECK(disk->status(true)["offline_ready"]["ready"].get<bool>());
}

TEST_CASE("damaged_cache_blocks_stop_neither_a_start_nor_a_read_and_are_fetched_again") {
  DiskFixture t;
  t.options.read_ahead = false;
  FakeRemote remote;
  const Bytes content = random_content(t.random, 2 * kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  SimFileSystem fs;
  CHECK(difference(DiskFixture::read_all(*t.open(fs, remote)), content) == "");
  const auto damage = [&] {
    for (const std::string& name : names_in(fs, "/ldim/cache")) {
      const std::string path = "/ldim/cache/" + name;
      const Bytes bytes = fs.peek(path);
      for (std::size_t at = t.random.below(64 * kKiB); at < bytes.size(); at += 64 * kKiB) {
        const Bytes flipped{static_cast<std::uint8_t>(bytes[at] ^ 0x10)};
        fs.poke(path, at, flipped);
      }
    }
  };
  damage();
  auto disk = t.open(fs, remote);  // while it was not looking
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  damage();  // under its hands
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  disk.reset();
  disk = t.open(fs, remote);
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  CHECK(disk->status(true)["offline_ready"]["ready"].get<bool>());
  // Nobody to fetch it from: that read waits, the disk works on.
  damage();
  remote.set_available(false);
  std::atomic<bool> answered{false};
  Bytes all;
  std::thread reader([&] {
    all = DiskFixture::read_all(*disk);
    answered = true;
  });
  while (disk->status(false)["fetched"]["waiting"].get<std::uint64_t>() == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(!answered);
  const Bytes data(4096, 1);
  require_ok(disk->write({0, data.size()}, data.data(), true));
  Bytes got(4096);
  require_ok(disk->read({0, got.size()}, got.data()));
  CHECK(got == data);
  remote.set_available(true);
  reader.join();
  CHECK(difference(Bytes(all.begin() + 4096, all.end()),
                   Bytes(content.begin() + 4096, content.end())) == "");
}

TEST_CASE("server_away_and_every_page_cached_starts_and_reads") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes content = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  CHECK(difference(DiskFixture::read_all(*t.open(fs, remote)), content) == "");
  remote.set_available(false);
  CHECK(difference(DiskFixture::read_all(*t.open(fs, remote)), content) == "");
}
