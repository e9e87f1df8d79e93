// The server's power goes, or its disk fails, at any call of the engine. States: DIMS_TEST_SIZE
// (2,000; large 50,000).
#include <unistd.h>
#include <rocksdb/env.h>
#include <rocksdb/system_clock.h>
#include <spdlog/spdlog.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <thread>
#include <catch2/catch.hpp>

#include "rdim-server/catalog/catalog.h"
#include "rdim-server/stores/store.h"
#include "tests/fault/server_power_fs.h"
#include "tests/support/seed.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

using contract::ObjectKey;

constexpr std::uint64_t kImageBytes = 64 * kMiB;

std::string scratch_folder() {
  std::error_code error;
  const bool shm = std::filesystem::exists("/dev/shm", error);
  static std::atomic<int> number{0};
  return std::string(shm ? "/dev/shm" : "/tmp") + "/dims-power-" + std::to_string(getpid()) + "-" +
         std::to_string(++number);
}

// After an error the engine's threads sleep for a second: not here.
class QuickClock : public rocksdb::SystemClockWrapper {
 public:
  QuickClock() : SystemClockWrapper(rocksdb::SystemClock::Default()) {}
  const char* Name() const override { return "dims-quick"; }
  void SleepForMicroseconds(int micros) override {
    SystemClockWrapper::SleepForMicroseconds(std::min(micros, 200));
  }
};

class PowerEnv : public rocksdb::EnvWrapper {
 public:
  explicit PowerEnv(const std::shared_ptr<rocksdb::FileSystem>& disk)
      : EnvWrapper(rocksdb::NewCompositeEnv(disk)) {
    system_clock_ = std::make_shared<QuickClock>();
  }
  void SleepForMicroseconds(int micros) override {
    EnvWrapper::SleepForMicroseconds(std::min(micros, 200));
  }
};

// One server, one image, one writer; knows what was acknowledged.
class Rig {
 public:
  explicit Rig(std::uint64_t seed) : random_(seed), folder_(scratch_folder()) {
    std::filesystem::remove_all(folder_);
    clock_.advance(std::chrono::hours(1000));
    domain_.bytes[0] = 9;
  }
  ~Rig() {
    close();
    std::filesystem::remove_all(folder_);
  }

  PowerFileSystem& disk() { return *disk_; }
  SeededRandom& random() { return random_; }

  Status open() {
    stores::StoreOptions options;
    options.folder = folder_;
    options.env = &env_;
    options.write_buffer_bytes = 256 * kKiB;
    options.log_bytes_max = 24 * kKiB;  // some commits go through the log, some past it
    options.block_cache_bytes = kMiB;
    options.open_threads_max = 1;
    DIMS_ASSIGN(store_, stores::Store::open(options, clock_, random_));
    DIMS_ASSIGN(catalog_,
                catalog::Catalog::open(store_->objects(), store_->refs(), store_->generation(),
                                       clock_, random_, {std::chrono::hours(9), 4096, {}}));
    return ok_status();
  }
  void close() {
    catalog_.reset();
    store_.reset();
  }

  Status make_image() {
    contract::ImageInfo image;
    image.id.bytes[0] = 1;
    image.name = "disk";
    image.image_bytes = kImageBytes;
    image.domain = domain_;
    const auto made = catalog_->create_image(image);
    if (!made.ok()) return made.error();
    image_ = *made;
    return ok_status();
  }

  Status acquire() {
    contract::LeaseRequest request;
    request.image = image_.id;
    request.session.bytes[0] = 1;
    DIMS_ASSIGN(lease_, catalog_->acquire_lease(request));
    return ok_status();
  }

  // Puts a tree and commits it.
  Status commit_once() {
    const format::DomainKey key(domain_, 1, Secret32{});
    std::vector<ObjectKey> chunks;
    std::vector<format::SealedObject> objects;
    for (std::uint64_t n = 1 + random_.below(4); n > 0; --n) {
      Bytes page(kPageBytes);
      random_.fill(page);
      objects.push_back(format::seal_chunk(key, page));
      chunks.push_back(objects.back().ref.object_key());
    }
    Bytes data(16);
    random_.fill(data);
    objects.push_back(format::seal_node(key, format::ObjectKind::kLeaf, 1, chunks, data));
    const ObjectKey leaf = objects.back().ref.object_key();
    objects.push_back(format::seal_node(key, format::ObjectKind::kInner, 2, {leaf}, data));
    for (const auto& object : objects) {
      const contract::ObjectStore::PutItem item{object.ref.object_key(), object.bytes};
      DIMS_TRY(store_->objects().put(std::span(&item, 1)));
    }
    DIMS_ASSIGN(const auto now, catalog_->get_image(image_.id));
    format::VersionRecord record;
    record.parent = now.head;
    record.image = image_.id;
    record.root = objects.back().ref.object_key();
    record.image_bytes = kImageBytes;
    record.tree = now.tree;
    record.sequence = now.head_sequence + 1;
    record.commit.journal.bytes[0] = 5;
    record.commit.epoch = ++epoch_;
    record.commit.digest = random_.id<Digest>();
    contract::CommitOrder order;
    order.image = image_.id;
    order.lease = lease_.lease;
    order.token = lease_.token;
    order.parent = record.parent;
    order.record = format::encode_version(record, signer_);
    trying_ = format::version_id(order.record);
    DIMS_ASSIGN(const auto answer, catalog_->commit(order));
    if (!answer.missing.empty()) return make_error(ErrorCode::kMissingObjects, "sent and missing");
    acknowledged_ = answer.version;
    ++commits;
    return ok_status();
  }

  // Empty: everything acknowledged is there and whole, and nothing else than it and perhaps what
  // was being committed.
  std::string look() {
    const auto now = catalog_->get_image(image_.id);
    if (!now.ok()) return "the image is gone: " + now.error().to_string();
    if (!(now->head == acknowledged_) && !(now->head == trying_)) return "another head";
    if (now->head == trying_) acknowledged_ = trying_;
    epoch_ = std::max(epoch_, now->head_sequence);
    std::uint64_t looked = 0;
    for (VersionId at = now->head; !at.is_zero() && looked < 12; ++looked) {
      const auto version = catalog_->get_version(image_.id, at, 0);
      if (!version.ok()) return "a version is gone: " + version.error().to_string();
      std::vector<ObjectKey> todo{version->record.root};
      while (!todo.empty()) {
        const ObjectKey key = todo.back();
        todo.pop_back();
        std::string wrong;
        store_->objects().get(std::span(&key, 1), [&](std::size_t, Result<Bytes> object) {
          if (!object.ok()) {
            wrong = "a committed object: " + object.error().to_string();
            return false;
          }
          const auto head = format::parse_head(*object);
          todo.insert(todo.end(), head->children.begin(), head->children.end());
          return true;
        });
        if (!wrong.empty()) return wrong;
      }
      at = version->record.parent;
    }
    return {};
  }

  std::uint64_t commits = 0;

 private:
  SeededRandom random_;
  const std::string folder_;
  ManualClock clock_;
  std::shared_ptr<PowerFileSystem> disk_ = std::make_shared<PowerFileSystem>();
  PowerEnv env_{disk_};
  std::unique_ptr<stores::Store> store_;
  std::unique_ptr<catalog::Catalog> catalog_;
  DomainId domain_;
  crypto::SigningKey signer_ = crypto::signing_key_from_seed(Secret32{});
  contract::ImageInfo image_;
  contract::LeaseGrant lease_;
  std::uint64_t epoch_ = 0;
  VersionId acknowledged_, trying_;
};

// What a cut left opens, maybe after further cuts while it recovers, and is whole.
std::string recover(Rig& rig, std::uint64_t* cuts) {
  for (int again = 0; again < 2 && rig.random().below(4) == 0; ++again) {
    rig.disk().cut_after(rig.random().below(40));
    (void)rig.open();
    rig.disk().cut();
    rig.close();
    rig.disk().apply(rig.random());
    ++*cuts;
  }
  const Status opened = rig.open();
  if (!opened.ok()) return "cannot open: " + opened.error().to_string();
  return rig.look();
}

struct Lives {
  std::uint64_t cuts = 0, commits = 0;
  std::string failure;
};

// Stores that are written to, cut and recovered up to 25 times each, until there were enough cuts.
void live_and_cut(Lives& lives, std::uint64_t first_seed, std::uint64_t wanted) {
  for (std::uint64_t now = first_seed; lives.cuts < wanted; ++now) {
    const std::string where = ", DIMS_TEST_SEED=" + std::to_string(now) + " (the run's first life)";
    Rig rig(now);
    if (!rig.open().ok() || !rig.make_image().ok()) {
      lives.failure = "no new store" + where;
      return;
    }
    for (int life = 0; life < 25 && lives.cuts < wanted; ++life) {
      rig.disk().cut_after(rig.random().below(160));
      if (rig.acquire().ok()) {
        while (rig.commit_once().ok()) {
        }
      }
      rig.disk().cut();
      rig.close();
      rig.disk().apply(rig.random());
      ++lives.cuts;
      lives.failure = recover(rig, &lives.cuts);
      if (!lives.failure.empty()) {
        lives.failure += where;
        return;
      }
    }
    lives.commits += rig.commits;
  }
}

}  // namespace

TEST_CASE("server_power_cut_at_any_call_keeps_every_acknowledged_commit") {
  spdlog::set_level(spdlog::level::off);
  // Two at a time: a life waits for the engine's threads most of the time.
  const std::uint64_t wanted = rounds(2'000, 50'000);
  std::array<Lives, 2> sides;
  std::vector<std::thread> threads;
  for (std::size_t side = 0; side < sides.size(); ++side) {
    threads.emplace_back(
        [&, side] { live_and_cut(sides[side], seed() + side * 1'000'000, wanted / sides.size()); });
  }
  for (auto& thread : threads) thread.join();
  for (const Lives& side : sides) REQUIRE(side.failure == "");
  std::printf("%llu power cuts, seed %llu: %llu acknowledged commits, none lost\n",
              static_cast<unsigned long long>(sides[0].cuts + sides[1].cuts),
              static_cast<unsigned long long>(seed()),
              static_cast<unsigned long long>(sides[0].commits + sides[1].commits));
}

// By hand: the engine's own recovery makes each run take a second or more.
TEST_CASE("server_disk_error_at_any_call_is_reported_or_survived_and_loses_no_commit", "[.large]") {
  spdlog::set_level(spdlog::level::off);
  constexpr int kCommits = 6;
  std::uint64_t runs = 0, injected = 0;
  for (const FileFault fault :
       {FileFault::kIo, FileFault::kNoSpace, FileFault::kShortWrite, FileFault::kSync}) {
    const bool small = rounds(0, 1) == 0;
    for (std::uint64_t call = 1;; call += small ? 3 : 1) {
      INFO("fault " << static_cast<int>(fault) << " at call " << call);
      Rig rig(99 + call);
      REQUIRE(rig.open().ok());
      REQUIRE(rig.make_image().ok());
      REQUIRE(rig.acquire().ok());
      rig.disk().fail_at(call, fault);
      for (int n = 0; n < kCommits; ++n) (void)rig.commit_once();
      const bool hit = rig.disk().failed_once();
      ++runs;
      injected += hit ? 1 : 0;
      rig.disk().cut();
      rig.close();
      rig.disk().apply(rig.random());
      REQUIRE(rig.open().ok());
      REQUIRE(rig.look() == "");
      REQUIRE(rig.acquire().ok());
      REQUIRE(rig.commit_once().ok());  // and it goes on
      REQUIRE(rig.look() == "");
      if (!hit) break;
    }
  }
  std::printf("%llu runs, %llu faults met\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(injected));
}
