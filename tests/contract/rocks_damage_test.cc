// Bytes of the store on disk that are gone, damaged, or cannot be read for a while.
#include <thread>
#include <catch2/catch.hpp>

#include "tests/contract/hook_fs.h"
#include "tests/contract/object_store_suite.h"
#include "tests/contract/store_folder.h"

using namespace dims;
using rocksdb::IOStatus;

namespace {

bool has(contract::ObjectStore& store, const contract::ObjectKey& key) {
  return store.has(std::span(&key, 1))->front();
}

IOStatus too_many_files() { return IOStatus::IOError("While open a file", "Too many open files"); }
IOStatus bad_sector() { return IOStatus::IOError("While pread", "Input/output error"); }

// A few objects in a blob file.
struct Stored {
  test::StoreFolder folder;
  test::HookedEnv hooked;
  std::vector<test::TestObject> all;
  std::unique_ptr<stores::Store> store;

  Stored() {
    folder.options.env = hooked.env.get();
    folder.options.log_bytes_max = 0;
    store = folder.open();
    for (std::uint64_t n = 0; n < 9; ++n) all.push_back(test::test_object(n));
    REQUIRE(objects().put(test::items_of(all)).ok());
    REQUIRE(objects().barrier().ok());
  }
  contract::ObjectStore& objects() { return store->objects(); }
  void damage(const test::TestObject& object, std::uint64_t from_end) {
    store.reset();
    folder.damage_blob(object.bytes, from_end);
    store = folder.open();
  }
  void drop(const test::TestObject& object, bool bytes) {
    store.reset();
    {
      const auto engine = folder.engine();
      rocksdb::WriteBatch batch;
      (void)batch.Delete(bytes ? engine->objects() : engine->meta(), stores::row_key(object.key));
      REQUIRE(engine->write(batch, stores::Durability::kSynced, "test").ok());
    }
    store = folder.open();
  }
  std::vector<contract::StoreFinding> audit(bool mend) {
    const auto page = objects().audit({}, 100, kMiB, mend);
    REQUIRE(page.ok());
    CHECK(!page->last);
    return page->findings;
  }
  void check_all() {
    for (const auto& object : all) {
      const auto back = test::get_one(objects(), object.key);
      INFO((back.ok() ? "" : back.error().to_string()));
      REQUIRE(back.ok());
      CHECK(*back == object.bytes);
    }
    CHECK(objects().info()->objects == all.size());
    CHECK(audit(false).empty());
  }
};

}  // namespace

TEST_CASE("a_process_that_cannot_read_for_a_moment_repairs_nothing_away") {
  Stored stored;
  std::atomic<bool> seen = false;
  SECTION("the bytes") {
    stored.hooked.files->on_read = [](const std::string& path) {
      return path.ends_with(".blob") ? too_many_files() : IOStatus::OK();
    };
  }
  SECTION("the row, of an object that was found damaged") {
    // So that there is something to look at again.
    stored.damage(stored.all[3], 20);
    stored.hooked.files->on_read = [&](const std::string& path) {
      if (path.ends_with(".blob")) seen = true;
      return path.ends_with(".sst") && seen ? too_many_files() : IOStatus::OK();
    };
  }
  const auto page = stored.objects().audit({}, 100, kMiB, true);
  REQUIRE(!page.ok());
  CHECK(page.error().code == ErrorCode::kIo);
  stored.hooked.files->on_read = nullptr;
  for (const auto& object : stored.all) CHECK(has(stored.objects(), object.key));
  (void)stored.objects().audit({}, 100, kMiB, true);
  (void)stored.objects().put(test::items_of(stored.all));
  stored.check_all();
}

TEST_CASE("a_sector_that_the_disk_does_not_give_costs_a_row_and_not_the_bytes") {
  Stored stored;
  const auto& object = stored.all[3];
  stored.hooked.files->on_read = [](const std::string& path) {
    return path.ends_with(".blob") ? bad_sector() : IOStatus::OK();
  };
  CHECK(test::get_one(stored.objects(), object.key).error().code == ErrorCode::kIo);
  CHECK(has(stored.objects(), object.key));  // nothing is proven
  CHECK(stored.audit(false).size() == stored.all.size());
  CHECK(has(stored.objects(), object.key));
  for (const auto& finding : stored.audit(true)) CHECK(finding.mended);
  CHECK(!has(stored.objects(), object.key));  // whoever has it sends it
  REQUIRE(stored.objects().put(std::vector{object.item()}).ok());
  CHECK(test::get_one(stored.objects(), object.key).ok());
  // Without rows: found, and left as they are.
  const auto left = stored.audit(true);
  CHECK(left.size() == stored.all.size() - 1);
  for (const auto& finding : left) {
    CHECK(finding.kind == contract::StoreFinding::Kind::kStrayBytes);
    CHECK(!finding.mended);
  }
  stored.hooked.files->on_read = nullptr;  // the disk is well again
  for (const auto& finding : stored.audit(true)) CHECK(finding.mended);
  stored.check_all();
}

TEST_CASE("a_row_whose_bytes_are_gone_counts_as_absent_once_somebody_looked") {
  Stored stored;
  const auto& object = stored.all[3];
  stored.drop(object, true);
  CHECK(has(stored.objects(), object.key));
  SECTION("a reader") {
    CHECK(test::get_one(stored.objects(), object.key).error().code == ErrorCode::kNotFound);
    CHECK(!has(stored.objects(), object.key));
    CHECK(stored.objects().put(std::vector{object.item()})->front() ==
          contract::PutOutcome::kStored);
  }
  SECTION("whoever puts it") {
    REQUIRE(stored.objects().put(std::vector{stored.all[2].item(), object.item()}).ok());
  }
  stored.check_all();
}

TEST_CASE("a_put_of_what_cannot_be_read_writes_it_anew") {
  Stored stored;
  const auto& object = stored.all[3];
  SECTION("an error of the disk") {
    stored.hooked.files->on_read = [](const std::string& path) {
      return path.ends_with(".blob") ? bad_sector() : IOStatus::OK();
    };
  }
  SECTION("damage") { stored.damage(object, 20); }
  REQUIRE(stored.objects().put(std::vector{object.item()}).ok());
  CHECK(test::get_one(stored.objects(), object.key).ok());
  stored.hooked.files->on_read = nullptr;
  stored.check_all();
}

TEST_CASE("an_object_that_was_healed_between_a_read_and_its_verdict_stays") {
  Stored stored;
  const auto object = stored.all[3];
  stored.damage(object, 20);
  REQUIRE(test::get_one(stored.objects(), stored.all[1].key).ok());  // the file is open now
  std::atomic<int> reads = 0;
  stored.hooked.files->on_read = [&](const std::string& path) {
    if (!path.ends_with(".blob") || reads++ != 0) return IOStatus::OK();
    // Another reader finds the damage, and a machine puts the object again.
    std::thread([&] {
      CHECK(test::get_one(stored.objects(), object.key).error().code == ErrorCode::kCorrupt);
      CHECK(stored.objects().put(std::vector{object.item()})->front() ==
            contract::PutOutcome::kStored);
    }).join();
    return IOStatus::OK();
  };
  const auto back = test::get_one(stored.objects(), object.key);
  stored.hooked.files->on_read = nullptr;
  REQUIRE(reads > 0);
  CHECK(has(stored.objects(), object.key));
  REQUIRE(back.ok());
  CHECK(*back == object.bytes);
  stored.check_all();
}

// The engine's checksum is over more than the bytes.
TEST_CASE("whole_bytes_in_a_damaged_record_are_kept_by_a_repair") {
  Stored stored;
  const auto& object = stored.all[3];
  // Before an object its record has the key, and before that two checksums.
  stored.damage(object, object.bytes.size() + stores::kRowKeyBytes + 2);
  REQUIRE(stored.audit(false).size() == 1);
  CHECK(test::get_one(stored.objects(), object.key).ok());
  const auto mended = stored.audit(true);
  REQUIRE(mended.size() == 1);
  CHECK(mended[0].mended);
  stored.check_all();
}
