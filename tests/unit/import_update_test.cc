// Imports into a name that exists: refused, or a new version that costs what changed.
#include "tests/unit/import_fixture.h"

using namespace dims;
using test::ImportBench;
using test::MemoryDisk;
using test::MemorySource;

TEST_CASE("an image that exists is not imported over unasked") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 5 * kMiB, 40);
  REQUIRE(bench.import(disk, "image").ok());
  bench.remote.forget_keys();
  const auto again = bench.import(disk, "image");
  REQUIRE(!again.ok());
  CHECK(again.error().code == ErrorCode::kAlreadyExists);
  CHECK(again.error().hint.find("--update") != std::string::npos);
  CHECK(bench.remote.keys_put().empty());
  CHECK(bench.import(disk, "other", true).error().code == ErrorCode::kNotFound);
}

TEST_CASE("an update sends only what differs") {
  ImportBench bench;
  MemoryDisk disk = test::random_disk(bench.random, 200 * kMiB, 30);
  const auto first = bench.import(disk, "image");
  REQUIRE(first.ok());

  const auto same = bench.import(disk, "image", true);
  REQUIRE(same.ok());
  CHECK(same->unchanged);
  CHECK(same->version == first->version);
  CHECK(same->new_chunks + same->new_nodes == 0);

  const MemoryDisk before = disk;
  disk.fill(bench.random, 20000);  // one page anew, one page gone
  disk.pages.erase(disk.pages.lower_bound(40000));
  const auto second = bench.import(disk, "image", true);
  REQUIRE(second.ok());
  CHECK(second->sequence == 2);
  CHECK(second->new_chunks <= 4);
  CHECK(second->new_nodes <= 3 + 3);
  const auto head = bench.remote.get_version(second->image, {}, 0);
  REQUIRE(head.ok());
  CHECK(head->record.parent == first->version);
  bench.require_equal(disk, "image");
  bench.require_equal(before, "image", "1");

  disk.pages.clear();  // all zeros: nothing but the record
  const auto third = bench.import(disk, "image", true);
  REQUIRE(third.ok());
  CHECK(third->new_chunks + third->new_nodes == 0);
  bench.require_equal(disk, "image");
}

TEST_CASE("random updates follow the disk, and equal the import of the same disk") {
  ImportBench bench;
  MemoryDisk disk = test::random_disk(bench.random, 60 * kMiB + 100, 20);
  REQUIRE(bench.import(disk, "image").ok());
  const std::uint64_t pages = pages_for(disk.bytes);
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 30; ++i) {
      const std::uint64_t first = bench.random.below(pages);
      const std::uint64_t count =
          1 + bench.random.below(std::min<std::uint64_t>(pages - first, 200));
      const bool erase = bench.random.below(2) == 0;
      for (std::uint64_t page = first; page < first + count; ++page) {
        if (erase) {
          disk.pages.erase(page);
        } else {
          disk.fill(bench.random, page);
        }
      }
    }
    const auto report = bench.import(disk, "image", true);
    REQUIRE(report.ok());
    bench.require_equal(disk, "image");
    const auto fresh = bench.import(disk, "fresh-" + std::to_string(round));
    REQUIRE(fresh.ok());
    CHECK(fresh->new_chunks + fresh->new_nodes == 0);  // the same tree, however it came about
  }
}

TEST_CASE("an update of another size or with another key is refused before anything is written") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 5 * kMiB, 40);
  REQUIRE(bench.import(disk, "image").ok());
  bench.remote.forget_keys();
  MemoryDisk longer = disk;
  longer.bytes += 1;
  CHECK(bench.import(longer, "image", true).error().code == ErrorCode::kInvalidArgument);
  const format::KeyFile right = bench.key;
  bench.key = format::generate_key_file(bench.random);
  CHECK(bench.import(disk, "image", true).error().code == ErrorCode::kWrongKey);
  test::MemoryTarget target(disk.bytes, false, true);
  CHECK(bench.export_to(target, "image").error().code == ErrorCode::kWrongKey);
  CHECK(target.pages.empty());
  // The key check looks at both secrets.
  bench.key.image_secret = right.image_secret;
  bench.key.domain = right.domain;
  CHECK(bench.import(disk, "image", true).error().code == ErrorCode::kWrongKey);
  CHECK(bench.remote.keys_put().empty());
}

TEST_CASE("an unfinished import of another disk is not taken for ours") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 10 * kMiB, 40);
  MemorySource source(disk);
  source.fail_from = 0;
  transfer::ImportOptions options;
  options.name = "image";
  REQUIRE(!bench.import(source, options).ok());
  MemoryDisk other = disk;
  other.bytes -= 1;
  const auto refused = bench.import(other, "image");
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kAlreadyExists);
  CHECK(refused.error().hint.find("image rm") != std::string::npos);
  CHECK(bench.import(disk, "image").ok());
}

TEST_CASE("an image whose lease another machine holds is not imported into") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 5 * kMiB, 40);
  const auto first = bench.import(disk, "image");
  REQUIRE(first.ok());
  contract::LeaseRequest request;
  request.image = first->image;
  request.session = bench.random.id<SessionId>();
  request.machine_name = std::string("elsewhere");
  REQUIRE(bench.remote.acquire_lease(request).ok());
  const auto refused = bench.import(disk, "image", true);
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kLeaseHeld);
  CHECK(refused.error().holder == "elsewhere");
}

TEST_CASE("a lease lost on the way ends the import without a version") {
  ImportBench bench;
  MemoryDisk disk = test::random_disk(bench.random, 5 * kMiB, 40);
  const auto first = bench.import(disk, "image");
  REQUIRE(first.ok());
  disk.fill(bench.random, 1);
  bench.remote.hold(test::RemoteCall::kCommit);
  std::optional<Result<transfer::ImportReport>> report;
  std::thread importer([&] { report = bench.import(disk, "image", true); });
  while (bench.remote.waiting(test::RemoteCall::kCommit) == 0) std::this_thread::yield();
  contract::LeaseRequest request;
  request.image = first->image;
  request.session = bench.random.id<SessionId>();
  request.take_over = true;
  REQUIRE(bench.remote.acquire_lease(request).ok());
  bench.remote.release(test::RemoteCall::kCommit);
  importer.join();
  REQUIRE(!report->ok());
  CHECK(report->error().code == ErrorCode::kStaleLease);
  CHECK(bench.remote.list_versions(first->image, 0)->size() == 1);
}
