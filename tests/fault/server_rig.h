// A server's store and catalog over a disk that fails, with one image and one writer who knows what
// was acknowledged. Threads: one. Ownership: owns its folder, in memory where there is a file
// system for it. Errors: those of the catalog; look() says what is wrong.
#pragma once

#include <unistd.h>
#include <rocksdb/env.h>
#include <rocksdb/system_clock.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <vector>

#include "rdim-server/catalog/catalog.h"
#include "rdim-server/stores/store.h"
#include "tests/fault/server_power_fs.h"

namespace dims::test {

inline constexpr std::uint64_t kRigImageBytes = 64 * kMiB;

inline std::string scratch_folder() {
  std::error_code error;
  const bool shm = std::filesystem::exists("/dev/shm", error);
  static std::atomic<int> number{0};
  return std::string(shm ? "/dev/shm" : "/tmp") + "/dims-power-" + std::to_string(getpid()) + "-" +
         std::to_string(++number);
}

// After an error the engine's threads sleep for a second, or wait until a time that they make from
// the clock: not here. It is always late, so such a time is over.
class QuickClock : public rocksdb::SystemClockWrapper {
 public:
  QuickClock() : SystemClockWrapper(rocksdb::SystemClock::Default()) {}
  const char* Name() const override { return "dims-quick"; }
  void SleepForMicroseconds(int micros) override {
    SystemClockWrapper::SleepForMicroseconds(std::min(micros, 200));
  }
  std::uint64_t NowMicros() override {
    constexpr std::uint64_t kLateMicros = 3'600'000'000;
    return SystemClockWrapper::NowMicros() - kLateMicros;
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
  std::uint64_t NowMicros() override { return system_clock_->NowMicros(); }
};

// What the writer knows. Plain bytes: it may lie in memory that processes share.
struct RigMemory {
  static constexpr std::size_t kTriedMax = 64;
  VersionId acknowledged;
  VersionId tried[kTriedMax];  // since then
  std::size_t tried_count = 0;
  std::uint64_t epoch = 0;
  std::uint64_t commits = 0;

  void try_one(const VersionId& version) {
    if (tried_count < kTriedMax) tried[tried_count++] = version;
  }
  void acknowledge(const VersionId& version) {
    acknowledged = version;
    tried_count = 0;
  }
  bool possible(const VersionId& head) const {
    return head == acknowledged ||
           std::find(tried, tried + tried_count, head) != tried + tried_count;
  }
};

// One server, one image, one writer; knows what was acknowledged.
class ServerRig {
 public:
  explicit ServerRig(std::uint64_t seed) : random_(seed), folder_(scratch_folder()), mine_(true) {
    std::filesystem::remove_all(folder_);
    begin();
  }
  // In a folder that stays, with a memory that outlives it.
  ServerRig(std::uint64_t seed, std::string folder, RigMemory& memory)
      : random_(seed), folder_(std::move(folder)), memory_(&memory) {
    begin();
  }
  ~ServerRig() {
    close();
    if (mine_) std::filesystem::remove_all(folder_);
  }
  // Of the engine; before open().
  std::function<void(const std::string& why)> on_disk_failure;

  PowerFileSystem& disk() { return *disk_; }
  SeededRandom& random() { return random_; }

  Status open() {
    stores::StoreOptions options;
    options.folder = folder_;
    options.env = &env_;
    options.on_disk_failure = on_disk_failure;
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
    image.id = image_.id;
    image.name = "disk";
    image.image_bytes = kRigImageBytes;
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
    std::vector<contract::ObjectKey> chunks;
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
    const contract::ObjectKey leaf = objects.back().ref.object_key();
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
    record.image_bytes = kRigImageBytes;
    record.tree = now.tree;
    record.sequence = now.head_sequence + 1;
    record.commit.journal.bytes[0] = 5;
    record.commit.epoch = ++memory_->epoch;
    record.commit.digest = random_.id<Digest>();
    contract::CommitOrder order;
    order.image = image_.id;
    order.lease = lease_.lease;
    order.token = lease_.token;
    order.parent = record.parent;
    order.record = format::encode_version(record, signer_);
    memory_->try_one(format::version_id(order.record));
    DIMS_ASSIGN(const auto answer, catalog_->commit(order));
    if (!answer.missing.empty()) return make_error(ErrorCode::kMissingObjects, "sent and missing");
    memory_->acknowledge(answer.version);
    ++memory_->commits;
    return ok_status();
  }

  // Empty: everything acknowledged is there and whole, and nothing else than it and perhaps what
  // was tried since and got no yes.
  std::string look() {
    const auto now = catalog_->get_image(image_.id);
    if (!now.ok()) return "the image is gone: " + now.error().to_string();
    if (!memory_->possible(now->head)) return "another head";
    memory_->acknowledge(now->head);
    memory_->epoch = std::max(memory_->epoch, now->head_sequence);
    std::uint64_t looked = 0;
    for (VersionId at = now->head; !at.is_zero() && looked < 12; ++looked) {
      const auto version = catalog_->get_version(image_.id, at, 0);
      if (!version.ok()) return "a version is gone: " + version.error().to_string();
      std::vector<contract::ObjectKey> todo{version->record.root};
      while (!todo.empty()) {
        const contract::ObjectKey key = todo.back();
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

  std::uint64_t commits() const { return memory_->commits; }

 private:
  void begin() {
    clock_.advance(std::chrono::hours(1000));
    domain_.bytes[0] = 9;
    image_.id.bytes[0] = 1;
  }

  SeededRandom random_;
  const std::string folder_;
  const bool mine_ = false;
  RigMemory own_memory_;
  RigMemory* const memory_ = &own_memory_;
  ManualClock clock_;
  std::shared_ptr<PowerFileSystem> disk_ = std::make_shared<PowerFileSystem>();
  PowerEnv env_{disk_};
  std::unique_ptr<stores::Store> store_;
  std::unique_ptr<catalog::Catalog> catalog_;
  DomainId domain_;
  crypto::SigningKey signer_ = crypto::signing_key_from_seed(Secret32{});
  contract::ImageInfo image_;
  contract::LeaseGrant lease_;
};

}  // namespace dims::test
