// Import and export against a server in memory: what goes in comes out, once stored, whatever
// happens between.
#include "image-tools/transfer/figures.h"
#include "tests/unit/import_fixture.h"

using namespace dims;
using test::ImportBench;
using test::MemoryDisk;
using test::MemorySource;
using test::MemoryTarget;
using test::RemoteCall;

TEST_CASE("disks of every kind come back byte for byte") {
  ImportBench bench;
  SeededRandom& random = bench.random;
  std::vector<std::pair<std::string, MemoryDisk>> disks;
  disks.emplace_back("one-byte", test::random_disk(random, 1, 100));
  disks.emplace_back("one-byte-zero", test::random_disk(random, 1, 0));
  disks.emplace_back("page", test::random_disk(random, 4096, 100));
  disks.emplace_back("page-and-one", test::random_disk(random, 4097, 100));
  disks.emplace_back("leaf", test::random_disk(random, kMiB, 100));
  disks.emplace_back("leaf-and-one", test::random_disk(random, kMiB + 1, 100));
  disks.emplace_back("stretch", test::random_disk(random, 4 * kMiB, 100));
  disks.emplace_back("odd", test::random_disk(random, 9 * kMiB + 12345, 70));
  disks.emplace_back("zeros", test::random_disk(random, 50 * kMiB + 7, 0));
  disks.emplace_back("scattered", test::random_disk(random, 40 * kMiB, 3));
  {
    MemoryDisk sparse;  // 1 TiB, a few pages, the first and the last among them
    sparse.bytes = 1024 * kGiB + 1;
    for (const std::uint64_t page :
         {std::uint64_t{0}, pages_for(sparse.bytes) - 1, std::uint64_t{12345678}}) {
      sparse.fill(random, page);
    }
    for (int i = 0; i < 40; ++i) sparse.fill(random, random.below(pages_for(sparse.bytes)));
    disks.emplace_back("sparse", sparse);
  }
  {
    MemoryDisk written_zeros = test::random_disk(random, 10 * kMiB, 10);
    for (std::uint64_t page = 300; page < 2000; ++page)
      written_zeros.pages[page] = Bytes(kPageBytes, 0);
    disks.emplace_back("written-zeros", written_zeros);
  }
  for (auto& [name, disk] : disks) {
    for (const std::uint64_t alignment : {std::uint64_t{1}, 256 * kKiB}) {
      INFO(name << " alignment " << alignment);
      disk.alignment = alignment;
      const std::string image = name + "-" + std::to_string(alignment);
      const auto report = bench.import(disk, image);
      REQUIRE(report.ok());
      CHECK(report->sequence == 1);
      CHECK(report->image_bytes == disk.bytes);
      std::uint64_t data_pages = 0;
      for (const auto& [page, data] : disk.pages) data_pages += is_all_zero(data) ? 0U : 1U;
      CHECK(report->data_bytes == data_pages * kPageBytes);
      if (alignment != 1)
        CHECK(report->new_chunks == 0);  // the same disk again, its holes told differently
      bench.require_equal(disk, image);
      CHECK(!bench.remote.find_image(image)->holder);
      const auto head = bench.remote.get_version(report->image, {}, 0);
      REQUIRE(head.ok());
      CHECK(head->id == report->version);
      CHECK(head->record.parent.is_zero());
      CHECK(head->record.commit.journal.is_zero());
      CHECK(head->record.signer == bench.key.signing.public_key);
    }
  }
}

TEST_CASE("random disks come back in every way of cutting, with any number of threads") {
  ImportBench bench;
  int number = 0;
  for (const unsigned threads : {1U, 2U, 7U}) {
    for (const std::uint32_t mean : {8192U, 16384U, 65536U}) {
      for (const auto mode : {tree::CutMode::kContent, tree::CutMode::kFixed}) {
        const MemoryDisk disk =
            test::random_disk(bench.random, 1 + bench.random.below(12 * kMiB), 60);
        MemorySource source(disk);
        transfer::ImportOptions options;
        options.name = "disk-" + std::to_string(number++);
        options.threads = threads;
        options.chunk_mean_bytes = mean;
        options.cut_mode = mode;
        options.compress = number % 2 == 0;
        const auto report = bench.import(source, options);
        REQUIRE(report.ok());
        CHECK(bench.remote.find_image(options.name)->tree.chunk_mean_bytes == mean);
        bench.require_equal(disk, options.name);
      }
    }
  }
}

TEST_CASE("the same content twice is stored once") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 30 * kMiB, 50);
  const auto first = bench.import(disk, "first");
  REQUIRE(first.ok());
  CHECK(first->new_chunks > 0);
  CHECK(first->new_chunks == first->chunks);
  const std::size_t objects = bench.remote.server().object_count();
  bench.remote.forget_keys();
  const auto second = bench.import(disk, "second");
  REQUIRE(second.ok());
  CHECK(second->chunks == first->chunks);
  CHECK(second->new_chunks == 0);
  CHECK(second->new_nodes == 0);
  CHECK(second->present_objects == objects);
  CHECK(bench.remote.keys_put().empty());
  CHECK(bench.remote.server().object_count() == objects);
  bench.require_equal(disk, "second");
}

TEST_CASE("equal stretches of one disk are stored once") {
  ImportBench bench;
  MemoryDisk disk = test::random_disk(bench.random, 16 * kMiB, 0);
  for (std::uint64_t page = 0; page < 1024; ++page) disk.fill(bench.random, page);
  for (std::uint64_t page = 0; page < 1024; ++page) disk.pages[page + 2048] = disk.pages[page];
  const auto report = bench.import(disk, "twice");
  REQUIRE(report.ok());
  CHECK(report->data_bytes == 8 * kMiB);
  CHECK(report->new_chunks * 2 == report->chunks);
  CHECK(report->new_chunk_bytes * 2 == report->sealed_bytes);
  bench.require_equal(disk, "twice");
}

TEST_CASE("a failed import is continued: what was sent is not sent again") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 64 * kMiB, 60);
  {
    MemorySource source(disk);
    source.fail_from = 40 * kMiB;
    transfer::ImportOptions options;
    options.name = "image";
    const auto report = bench.import(source, options);
    REQUIRE(!report.ok());
    CHECK(report.error().code == ErrorCode::kIo);
  }
  const auto unfinished = bench.remote.find_image("image");
  REQUIRE(unfinished.ok());
  CHECK(unfinished->head.is_zero());
  CHECK(!unfinished->holder);
  const std::size_t sent = bench.remote.keys_put().size();
  CHECK(sent > 0);
  MemoryTarget target(disk.bytes, false, true);
  CHECK(bench.export_to(target, "image").error().code == ErrorCode::kNotFound);

  const auto report = bench.import(disk, "image");
  REQUIRE(report.ok());
  CHECK(report->resumed);
  CHECK(report->image == unfinished->id);
  CHECK(report->present_objects >= sent);
  std::set<ObjectId> once;
  for (const auto& key : bench.remote.keys_put()) CHECK(once.insert(key.id).second);
  bench.require_equal(disk, "image");
}

TEST_CASE("an import fails cleanly wherever the server fails, and goes on afterwards") {
  for (const RemoteCall call : {RemoteCall::kHello, RemoteCall::kImages, RemoteCall::kLease,
                                RemoteCall::kHas, RemoteCall::kPut, RemoteCall::kCommit}) {
    ImportBench bench;
    INFO("call " << static_cast<int>(call));
    const MemoryDisk disk = test::random_disk(bench.random, 20 * kMiB, 40);
    bench.remote.fail(call, make_error(ErrorCode::kResourceExhausted, "injected"));
    const auto failed = bench.import(disk, "image");
    REQUIRE(!failed.ok());
    CHECK(failed.error().code == ErrorCode::kResourceExhausted);
    const auto report = bench.import(disk, "image");
    REQUIRE(report.ok());
    CHECK(report->sequence == 1);
    bench.require_equal(disk, "image");
  }
}

TEST_CASE("a lost answer to the commit is no failure") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 5 * kMiB, 40);
  bench.remote.lose_replies(RemoteCall::kCommit, 2);
  const auto report = bench.import(disk, "image");
  REQUIRE(report.ok());
  CHECK(bench.remote.list_versions(report->image, 0)->size() == 1);
  bench.require_equal(disk, "image");
}

TEST_CASE("objects that the server lost are sent again when the commit names them") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 20 * kMiB, 40);
  REQUIRE(bench.import(disk, "first").ok());
  // Present when asked for, gone when committed: between the two, somebody swept.
  bench.remote.hold(RemoteCall::kCommit);
  std::optional<Result<transfer::ImportReport>> report;
  std::thread importer([&] { report = bench.import(disk, "second"); });
  while (bench.remote.waiting(RemoteCall::kCommit) == 0) std::this_thread::yield();
  const auto all = bench.remote.server().all_objects();
  for (std::size_t i = 0; i < all.size(); i += 50) bench.remote.server().drop_object(all[i]);
  bench.remote.forget_keys();
  bench.remote.release(RemoteCall::kCommit);
  importer.join();
  REQUIRE(report->ok());
  CHECK(bench.remote.keys_put().size() == (all.size() + 49) / 50);
  bench.require_equal(disk, "second");
}

TEST_CASE("an interrupted import gives the lease back and makes no version") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 30 * kMiB, 60);
  MemorySource source(disk);
  transfer::ImportOptions options;
  options.name = "image";
  transfer::Progress progress;
  progress.cancel = true;
  const auto report = transfer::import_image({bench.remote, source, bench.clock, bench.random},
                                             bench.key, bench.who, options, progress);
  REQUIRE(!report.ok());
  CHECK(report.error().code == ErrorCode::kCancelled);
  const auto image = bench.remote.find_image("image");
  REQUIRE(image.ok());
  CHECK(!image->holder);
  CHECK(image->head.is_zero());
}

TEST_CASE("an export verifies: a damaged or lost chunk ends it, and nothing is finished") {
  ImportBench bench;
  const MemoryDisk disk = test::random_disk(bench.random, 20 * kMiB, 60);
  const auto report = bench.import(disk, "image");
  REQUIRE(report.ok());
  const auto all = bench.remote.server().all_objects();
  for (const bool lost : {false, true}) {
    const auto& victim = all[bench.random.below(all.size())];
    if (lost) {
      bench.remote.server().drop_object(victim);
    } else {
      bench.remote.server().damage_object(victim);
    }
    MemoryTarget target(disk.bytes, false, true);
    const auto out = bench.export_to(target, "image");
    REQUIRE(!out.ok());
    CHECK((out.error().code == ErrorCode::kCorrupt || out.error().code == ErrorCode::kNotFound));
    CHECK(!target.finished);
    if (!lost) bench.remote.server().damage_object(victim);  // flips the byte back
  }
}

TEST_CASE("versions are found by number, by id and by the start of an id") {
  ImportBench bench;
  MemoryDisk disk = test::random_disk(bench.random, 6 * kMiB, 40);
  const MemoryDisk old = disk;
  const auto first = bench.import(disk, "image");
  disk.fill(bench.random, 3);
  const auto second = bench.import(disk, "image", true);
  REQUIRE(first.ok());
  REQUIRE(second.ok());
  bench.require_equal(disk, "image");
  bench.require_equal(old, "image", "1");
  bench.require_equal(disk, "image", "2");
  bench.require_equal(old, "image", first->version.hex());
  bench.require_equal(disk, "image", second->version.hex().substr(0, 20));
  const auto image = bench.remote.find_image("image");
  for (const char* bad : {"0", "3", "999999999", "zz", "00000000000000000000ff"}) {
    CHECK(transfer::find_version(bench.remote, *image, bad).error().code == ErrorCode::kNotFound);
  }
}

TEST_CASE("an organisation's older version is exported only if the newest one came from it") {
  ImportBench bench;
  auto member = std::make_shared<format::MemberKeys>();
  member->image[1] = bench.random.id<Secret32>();
  member->domain_epoch = 1;
  member->check_signer = [](const format::VersionRecord&) { return ok_status(); };
  std::uint64_t floor = 0;
  member->head_floor = [&floor](const ImageId&) { return floor; };
  bench.key.member = member;
  MemoryDisk disk = test::random_disk(bench.random, 2 * kMiB, 40);
  const MemoryDisk old = disk;
  REQUIRE(bench.import(disk, "image").ok());
  for (int i = 0; i < 2; ++i) {
    disk.fill(bench.random, 3);
    REQUIRE(bench.import(disk, "image", true).ok());
  }
  bench.require_equal(old, "image", "1");
  bench.require_equal(disk, "image", "3");
  // Signed by who might once, with the number of one that is there.
  const auto image = bench.remote.find_image("image");
  REQUIRE(image.ok());
  const auto export_of = [&](std::uint64_t sequence, bool forged) {
    auto version = bench.remote.get_version(image->id, {}, sequence);
    REQUIRE(version.ok());
    if (forged) {
      version->record.time_unix_ns += 1;
      version->record_bytes = format::encode_version(version->record, bench.key.signing);
      version->id = format::version_id(version->record_bytes);
    }
    MemoryTarget target(disk.bytes, false, true);
    transfer::Progress progress;
    return transfer::export_version(bench.remote, bench.key, *image, *version, target, {},
                                    progress);
  };
  for (const std::uint64_t sequence : {1u, 2u, 3u}) {
    const auto report = export_of(sequence, true);
    REQUIRE(!report.ok());
    CHECK(report.error().code == ErrorCode::kUntrusted);
    CHECK(export_of(sequence, false).ok());
  }
  // The server says that it is of another domain, and has the key made for that.
  auto elsewhere = *image;
  elsewhere.domain = bench.random.id<DomainId>();
  auto its_key = bench.key;
  its_key.domain = elsewhere.domain;
  const auto head = bench.remote.get_version(image->id, {}, 3);
  CHECK(transfer::check_record(bench.key, *image, *head).ok());
  for (const auto* key : {&its_key, &bench.key})
    CHECK(!transfer::check_record(*key, elsewhere, *head).ok());
  CHECK(!transfer::check_record(its_key, *image, *head).ok());
  // The log knows a newer version than the server's newest.
  floor = 3;
  CHECK(export_of(3, false).ok());
  floor = 4;
  for (const std::uint64_t sequence : {1u, 3u})
    CHECK(export_of(sequence, false).error().code == ErrorCode::kUntrusted);
  const auto update = bench.import(old, "image", true);
  REQUIRE(!update.ok());
  CHECK(update.error().code == ErrorCode::kUntrusted);
}

TEST_CASE("figures of a version: exact when all chunks are looked at, close when a sample is") {
  ImportBench bench;
  MemoryDisk disk = test::random_disk(bench.random, 40 * kMiB, 0);
  for (std::uint64_t page = 0; page < 4096; ++page) disk.fill(bench.random, page);
  for (std::uint64_t page = 0; page < 2048; ++page) disk.pages[page + 6144] = disk.pages[page];
  const auto report = bench.import(disk, "image");
  REQUIRE(report.ok());
  const auto image = bench.remote.find_image("image");
  const auto head = bench.remote.get_version(report->image, {}, 0);
  transfer::Progress progress;
  const auto all = transfer::measure_version(bench.remote, bench.key, *image, *head, 0, progress);
  REQUIRE(all.ok());
  CHECK(all->exact);
  CHECK(all->mapped_bytes == 24 * kMiB);
  CHECK(all->chunk_bytes == 16 * kMiB);
  CHECK(all->distinct_chunks == report->new_chunks);
  CHECK(all->sealed_bytes == report->new_chunk_bytes);
  CHECK(all->leaves == 24);
  const auto some =
      transfer::measure_version(bench.remote, bench.key, *image, *head, 100, progress);
  REQUIRE(some.ok());
  CHECK(!some->exact);
  CHECK(some->sampled_chunks <= 100);
  CHECK(some->chunk_bytes == all->chunk_bytes);
  // Random data seals to its length and a little: the estimate is within a few percent.
  CHECK(some->sealed_bytes > all->sealed_bytes * 9 / 10);
  CHECK(some->sealed_bytes < all->sealed_bytes * 11 / 10);
}
