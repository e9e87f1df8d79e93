// Space comes back on a disk that has little of it, and not over damage.
#include <catch2/catch.hpp>

#include "tests/contract/hook_fs.h"
#include "tests/contract/object_store_suite.h"
#include "tests/contract/store_folder.h"

using namespace dims;

namespace {

std::uint64_t bytes_in(const std::string& folder) {
  std::uint64_t sum = 0;
  std::error_code gone;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, gone)) {
    const auto size = entry.file_size(gone);
    if (!gone) sum += size;
  }
  return sum;
}

// Sixteen blob files of which three tenths are garbage.
struct Worn {
  static constexpr std::uint64_t kFiles = 16, kObjectsAFile = 100;
  test::StoreFolder folder;
  test::HookedEnv hooked;
  std::uint64_t disk_bytes = ~std::uint64_t{0} / 2;
  std::vector<test::TestObject> kept;
  std::unique_ptr<stores::Store> store;

  Worn() {
    folder.options.env = hooked.env.get();
    folder.options.log_bytes_max = 0;  // a barrier flushes
    folder.options.free_bytes_min = kMiB;
    folder.options.free_bytes = [this] {
      const std::uint64_t used = bytes_in(folder.path);
      return disk_bytes > used ? disk_bytes - used : 0;
    };
    store = folder.open();
    std::vector<contract::ObjectKey> gone;
    for (std::uint64_t n = 0; n < kFiles * kObjectsAFile; ++n) {
      auto object = test::test_object(n);
      REQUIRE(store->objects().put(std::vector{object.item()}).ok());
      if (n % 10 < 3) {
        gone.push_back(object.key);
      } else {
        kept.push_back(std::move(object));
      }
      if (n % kObjectsAFile == kObjectsAFile - 1) REQUIRE(store->objects().barrier().ok());
    }
    REQUIRE(store->objects().remove_untouched(gone, ~std::uint64_t{0}).ok());
    REQUIRE(store->objects().barrier().ok());
  }
  void check_kept() {
    for (const auto& object : kept) {
      const auto back = test::get_one(store->objects(), object.key);
      REQUIRE(back.ok());
      CHECK(*back == object.bytes);
    }
  }
};

}  // namespace

TEST_CASE("space_comes_back_in_steps_that_fit_on_a_disk_that_is_nearly_full") {
  Worn worn;
  const std::uint64_t before = bytes_in(worn.folder.path);
  worn.disk_bytes = before + 2 * kMiB + kMiB / 2;  // 1 MiB of it is the reserve
  std::atomic<std::uint64_t> peak = 0;
  worn.hooked.files->on_delete = [&](const std::string&) {
    peak = std::max(peak.load(), bytes_in(worn.folder.path));
  };
  const Status done = worn.store->objects().reclaim([] { return false; });
  INFO((done.ok() ? "" : done.error().to_string()));
  REQUIRE(done.ok());
  const std::uint64_t after = bytes_in(worn.folder.path);
  INFO(before << " bytes before, at most " << peak << ", " << after << " after");
  CHECK(peak <= worn.disk_bytes - kMiB);
  CHECK(after < before - before / 5);
  worn.check_kept();
}

TEST_CASE("space_that_cannot_come_back_for_want_of_room_is_told_and_nothing_is_written") {
  Worn worn;
  const std::uint64_t before = bytes_in(worn.folder.path);
  worn.disk_bytes = before + kMiB + kMiB / 8;
  const Status done = worn.store->objects().reclaim([] { return false; });
  REQUIRE(!done.ok());
  CHECK(done.error().code == ErrorCode::kNoSpace);
  CHECK(!done.error().hint.empty());
  CHECK(bytes_in(worn.folder.path) < before + kMiB / 8);
  worn.check_kept();
}

TEST_CASE("one_damaged_object_stops_the_giving_back_of_space_and_nothing_else") {
  for (const bool without_row : {false, true}) {
    INFO("without a row: " << without_row);
    Worn worn;
    bool ended = false;
    worn.folder.options.on_disk_failure = [&](const std::string&) { ended = true; };
    worn.store.reset();
    const auto damaged = worn.kept[5];
    worn.folder.damage_blob(damaged.bytes, 20);
    if (without_row) {
      const auto engine = worn.folder.engine();
      rocksdb::WriteBatch batch;
      REQUIRE(batch.Delete(engine->meta(), stores::row_key(damaged.key)).ok());
      REQUIRE(engine->write(batch, stores::Durability::kSynced, "test").ok());
    }
    worn.store = worn.folder.open();
    auto& objects = worn.store->objects();
    const Status stopped = objects.reclaim([] { return false; });
    REQUIRE(!stopped.ok());
    CHECK(stopped.error().code == ErrorCode::kCorrupt);
    CHECK(stopped.error().hint.find("check --repair") != std::string::npos);
    // Nothing else has stopped.
    CHECK(!ended);
    REQUIRE(objects.put(std::vector{test::test_object(9999).item()}).ok());
    REQUIRE(objects.barrier().ok());
    REQUIRE(worn.store->refs().put("k", as_bytes("v"), 0).ok());
    // What the hint says helps.
    std::optional<contract::ObjectKey> after;
    std::size_t findings = 0;
    do {
      const auto page = objects.audit(after, 256, 8 * kMiB, true);
      REQUIRE(page.ok());
      for (const auto& finding : page->findings) {
        ++findings;
        CHECK(finding.key == damaged.key);
        CHECK(finding.mended);
      }
      after = page->last;
    } while (after);
    CHECK(findings == 1);
    REQUIRE(objects.reclaim([] { return false; }).ok());
    REQUIRE(objects.put(std::vector{damaged.item()}).ok());
    worn.check_kept();
    if (!without_row) CHECK(objects.info()->objects == worn.kept.size() + 1);
  }
}

// A read finds it before anybody checks.
TEST_CASE("damaged_bytes_that_a_read_found_stand_in_nobodys_way") {
  Worn worn;
  worn.store.reset();
  const auto damaged = worn.kept[5];
  worn.folder.damage_blob(damaged.bytes, 20);
  worn.store = worn.folder.open();
  auto& objects = worn.store->objects();
  CHECK(test::get_one(objects, damaged.key).error().code == ErrorCode::kCorrupt);
  REQUIRE(objects.reclaim([] { return false; }).ok());
  REQUIRE(objects.put(std::vector{damaged.item()}).ok());
  worn.check_kept();
}
