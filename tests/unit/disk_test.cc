// The disk against a byte-array model: reads, writes, zeroes and flushes of every size and
// alignment.
#include <atomic>
#include <thread>
#include <nlohmann/json.hpp>

#include "nbdkit-ldim/control/commands.h"
#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

struct Model {
  Bytes content;

  void random_step(ldim::Disk& disk, SeededRandom& random) {
    const std::uint64_t size = content.size();
    const std::uint64_t offset = random.below(size);
    std::uint64_t count = 1 + random.below(random.below(4) == 0 ? 300000 : 9000);
    if (random.below(3) == 0) count = round_up(count, kPageBytes);
    ByteRange range{offset, std::min(count, size - offset)};
    if (random.below(3) == 0) range.offset = range.offset / kPageBytes * kPageBytes;
    range.count = std::min(range.count, size - range.offset);
    const auto from = content.begin() + static_cast<std::ptrdiff_t>(range.offset);
    switch (random.below(6)) {
      case 0:
      case 1: {
        Bytes data(range.count);
        random.fill(data);
        require_ok(disk.write(range, data.data(), random.below(20) == 0));
        std::copy(data.begin(), data.end(), from);
        break;
      }
      case 2:
        require_ok(disk.zero(range, random.below(2) == 0, random.below(20) == 0));
        std::fill_n(from, range.count, std::uint8_t{0});
        break;
      case 3:
        if (random.below(4) == 0) require_ok(disk.flush());
        break;
      default: {
        Bytes got(range.count, 0xee);
        require_ok(disk.read(range, got.data()));
        REQUIRE(std::equal(got.begin(), got.end(), from));
      }
    }
  }
};

}  // namespace

TEST_CASE(
    "random requests equal the model before and after restart, sync, cache loss and on a second "
    "machine") {
  DiskFixture t;
  FakeRemote remote;
  // An odd size: no multiple of a page.
  Model model{random_content(t.random, 5 * kMiB + 1234)};
  commit_content(remote, t.key.key, "disk", model.content, t.random);
  io::MemoryFileSystem fs;
  for (int round = 0; round < 6; ++round) {
    auto disk = t.open(fs, remote);
    REQUIRE(disk->size() == model.content.size());
    for (int i = 0; i < 150; ++i) model.random_step(*disk, t.random);
    REQUIRE(difference(DiskFixture::read_all(*disk), model.content) == "");
    if (round % 2 == 1) {
      DiskFixture::sync(*disk);
      REQUIRE(difference(DiskFixture::read_all(*disk), model.content) == "");
      const auto image = remote.find_image("disk");
      INFO(disk->status(false).dump(1) << " head " << image->head_sequence);
      REQUIRE(difference(read_version(remote, t.key.key, image->id, image->head), model.content) ==
              "");
      CHECK(disk->status(false)["safe_to_switch_off"].get<bool>());
    }
    require_ok(disk->close(std::chrono::seconds(10)));
  }
  io::MemoryFileSystem second_machine;
  auto disk = t.open(second_machine, remote);
  CHECK(difference(DiskFixture::read_all(*disk), model.content) == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("many threads on parts of their own, with write-back running, lose nothing") {
  DiskFixture t;
  t.options.write_back = ldim::WriteBackPolicy::kDelay;
  t.options.write_back_delay = std::chrono::milliseconds(1);
  FakeRemote remote;
  constexpr std::size_t kPart = 512 * 1024;
  constexpr unsigned kThreads = 6;
  Bytes content = random_content(t.random, kPart * kThreads);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned n = 0; n < kThreads; ++n) {
    threads.emplace_back([&, n, thread_seed = t.random.next()] {
      SeededRandom random(thread_seed);
      for (int i = 0; i < 400; ++i) {
        const std::uint64_t in_part = random.below(kPart - 1);
        const ByteRange range{n * kPart + in_part,
                              1 + random.below(std::min<std::uint64_t>(20000, kPart - in_part))};
        Bytes data(range.count);
        const auto from = content.begin() + static_cast<std::ptrdiff_t>(range.offset);
        if (random.below(2) == 0) {
          random.fill(data);
          if (!disk->write(range, data.data(), false).ok()) ++wrong;
          std::copy(data.begin(), data.end(), from);
        } else {
          if (!disk->read(range, data.data()).ok() || !std::equal(data.begin(), data.end(), from))
            ++wrong;
        }
        if (random.below(25) == 0 && !disk->flush().ok()) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  DiskFixture::sync(*disk);
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  const auto image = remote.find_image("disk");
  CHECK(difference(read_version(remote, t.key.key, image->id, image->head), content) == "");
  require_ok(disk->close(std::chrono::seconds(10)));
}

TEST_CASE("extents cover the range without gaps, never call data a hole and merge zeros") {
  DiskFixture t;
  FakeRemote remote;
  Bytes content(64 * kMiB, 0);
  t.random.fill(MutByteView(content).subspan(8 * kMiB, 100000));
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  const Bytes data(5000, 7);
  require_ok(disk->write({40 * kMiB + 17, data.size()}, data.data(), false));
  require_ok(disk->zero({8 * kMiB + 4096, 8192}, false, false));
  std::copy(data.begin(), data.end(), content.begin() + 40 * kMiB + 17);
  std::fill_n(content.begin() + 8 * kMiB + 4096, 8192, std::uint8_t{0});
  const auto extents = disk->extents({0, disk->size()}, false);
  REQUIRE(extents.ok());
  std::uint64_t at = 0;
  for (const ldim::DiskExtent& e : *extents) {
    REQUIRE(e.range.offset == at);
    at = e.range.end();
    if (e.zero) REQUIRE(is_all_zero(ByteView(content).subspan(e.range.offset, e.range.count)));
  }
  CHECK(at == disk->size());
  CHECK(extents->size() < 12);
  const auto part = disk->extents({8 * kMiB + 100, 1000}, true);
  REQUIRE(part.ok());
  CHECK(part->front().range.offset == 8 * kMiB + 100);
  CHECK(part->back().range.end() <= 8 * kMiB + 1100);
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("reads of absent pages wait while the server is away and recover by themselves") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes content = random_content(t.random, 4 * kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  Bytes first(64 * kKiB);
  require_ok(disk->read({0, first.size()}, first.data()));
  remote.set_available(false);
  // Cached and written pages go on.
  require_ok(disk->read({0, first.size()}, first.data()));
  const Bytes data(100, 9);
  require_ok(disk->write({3 * kMiB, data.size()}, data.data(), true));
  Bytes late(256 * kKiB);
  std::atomic<bool> done{false};
  Status status;
  std::thread reader([&] {
    status = disk->read({2 * kMiB, late.size()}, late.data());
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  CHECK(!done);
  remote.set_available(true);
  reader.join();
  require_ok(status);
  CHECK(std::equal(late.begin(), late.end(), content.begin() + 2 * kMiB));
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("a damaged object from the server is never served; a good copy is") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes content = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  remote.fail(RemoteCall::kGet, make_error(ErrorCode::kCorrupt, "planted"), 2);
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("shared sessions drop their writes at the end; read-only ones refuse them") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes content = random_content(t.random, kMiB);
  const VersionId head = commit_content(remote, t.key.key, "disk", content, t.random);
  io::MemoryFileSystem fs;
  t.options.mode = ldim::SessionMode::kShared;
  {
    auto disk = t.open(fs, remote);
    const Bytes data(9999, 3);
    require_ok(disk->write({123, data.size()}, data.data(), true));
    Bytes back(data.size());
    require_ok(disk->read({123, back.size()}, back.data()));
    CHECK(difference(back, data) == "");
    require_ok(disk->client_connected());
    disk->client_left(true);
    require_ok(disk->close(std::chrono::seconds(1)));
  }
  {
    auto disk = t.open(fs, remote);
    CHECK(difference(DiskFixture::read_all(*disk), content) == "");
    require_ok(disk->close(std::chrono::seconds(1)));
  }
  CHECK(remote.find_image("disk")->head == head);
  t.options.mode = ldim::SessionMode::kReadOnly;
  auto disk = t.open(fs, remote);
  const std::uint8_t byte = 1;
  const Status refused = disk->write({0, 1}, &byte, false);
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kPermissionDenied);
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("a diskless machine: nothing local, every flush a commit") {
  DiskFixture t;
  FakeRemote remote;
  Bytes content = random_content(t.random, 2 * kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  t.options.cache_folder = "none";
  t.options.write_back = ldim::WriteBackPolicy::kEager;
  require_ok(ldim::complete_options(t.options));
  const Bytes data(70000, 5);
  {
    io::MemoryFileSystem fs;
    auto disk = t.open(fs, remote);
    require_ok(disk->write({99, data.size()}, data.data(), false));
    require_ok(disk->flush());
    std::copy(data.begin(), data.end(), content.begin() + 99);
    const auto image = remote.find_image("disk");
    CHECK(image->head_sequence == 2);
    CHECK(difference(read_version(remote, t.key.key, image->id, image->head), content) == "");
    // No close: the power goes.
  }
  remote.server().expire_leases();
  io::MemoryFileSystem fs;
  auto disk = t.open(fs, remote);
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("an object that the server lacks does not keep the rest from being filled in") {
  DiskFixture t;
  t.options.fill = true;
  FakeRemote remote;
  Bytes content(6 * kMiB, 0);
  t.random.fill(content);
  const VersionId version = commit_content(remote, t.key.key, "disk", content, t.random);
  const ImageId image = remote.find_image("disk")->id;
  const auto info = remote.get_version(image, version, 0);
  const auto root = format::open_root(info->record, t.key.key.image_key(image));
  tree::RemoteNodeSource nodes(remote, image, contract::Priority::kDemand);
  std::vector<format::Extent> chunks;
  require_ok(tree::visit_leaves(
      {info->record.tree, content.size(), *root}, {0, content.size() / kPageBytes}, nodes,
      [&](std::uint64_t, const format::Reference&, const format::Leaf& leaf) -> Status {
        chunks.insert(chunks.end(), leaf.extents.begin(), leaf.extents.end());
        return ok_status();
      }));
  REQUIRE(chunks.size() > 20);
  const format::ObjectKey lost = chunks[chunks.size() / 3].ref.object_key();
  std::uint64_t lost_pages = 0;  // a chunk may stand in two leaves
  for (const format::Extent& chunk : chunks)
    if (chunk.ref.object_key() == lost) lost_pages += chunk.page_count;
  remote.server().drop_object(lost);

  io::MemoryFileSystem fs;
  const auto disk = t.open(fs, remote);
  nlohmann::json status;
  for (int i = 0; i < 1200; ++i) {
    status = disk->status(false);
    if (status["fill"]["pages_done"] == content.size() / kPageBytes) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  INFO(status.dump(1));
  CHECK(status["fill"]["pages_done"] == content.size() / kPageBytes);
  CHECK(status["fill"]["pages_failed"] >= lost_pages);
  CHECK(status["fill"]["trouble"] != "");
  CHECK(status["fill"]["done"] == false);
  CHECK(status["offline_ready"]["pages_present"] == content.size() / kPageBytes - lost_pages);
  require_ok(disk->close(std::chrono::seconds(1)));
}

TEST_CASE("waiting for a sync means what was written before, however much is written meanwhile") {
  DiskFixture t;
  FakeRemote remote;
  commit_content(remote, t.key.key, "disk", random_content(t.random, 4 * kMiB), t.random);
  io::MemoryFileSystem fs;
  const auto disk = t.open(fs, remote);
  const Bytes data(5000, 7);
  require_ok(disk->write({17, data.size()}, data.data(), false));
  remote.hold(RemoteCall::kCommit);
  int waits = 0;
  nlohmann::json last;
  ldim::run_command(*disk, R"({"command":"sync","wait":true})", [&](const nlohmann::json& answer) {
    last = answer;
    if (answer.value("done", false)) return true;
    require_ok(disk->write({kMiB, data.size()}, data.data(), false));
    if (++waits == 2) remote.release(RemoteCall::kCommit);
    return true;
  });
  INFO(last.dump());
  REQUIRE(last.contains("result"));
  CHECK(waits >= 2);
  CHECK(last["result"]["epoch"] == 1);
  CHECK(last["result"]["committed"] == true);
  CHECK(disk->status(false)["journal"]["sealed_epoch"] == 1);
  require_ok(disk->close(std::chrono::seconds(10)));
}
