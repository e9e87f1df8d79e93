// A row of the store on disk is never there without its bytes, whichever way each of them took.
#include <catch2/catch.hpp>

#include "tests/contract/hook_fs.h"
#include "tests/contract/object_store_suite.h"
#include "tests/contract/store_folder.h"

using namespace dims;

namespace {

std::uint64_t seconds(Clock& clock) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock.wall()).count());
}

// Of a store that was killed.
void check_every_row_has_its_bytes(test::StoreFolder& folder, const std::string& copy) {
  const auto store = folder.open(copy);
  const auto rows = store->objects().list_rows({}, 10'000);
  REQUIRE(rows.ok());
  for (const contract::ObjectRow& row : *rows) {
    const auto object = test::get_one(store->objects(), row.key);
    INFO((object.ok() ? "" : object.error().to_string()));
    CHECK(object.ok());
  }
}

}  // namespace

// The count that decides about the log begins anew with each barrier, also for what was put while
// the barrier flushed.
TEST_CASE("a_row_touched_after_its_bytes_went_past_the_log_does_not_outlive_them") {
  using Touch = std::function<Status(contract::ObjectStore&, const test::TestObject&)>;
  const std::vector<std::pair<const char*, Touch>> ways = {
      {"has",
       [](auto& store, const auto& late) -> Status {
         DIMS_ASSIGN(const auto present, store.touch_present(std::span(&late.key, 1)));
         CHECK(present.front());
         return ok_status();
       }},
      {"touch", [](auto& store, const auto& late) { return store.touch(std::vector{late.key}); }},
      {"put",
       [](auto& store, const auto& late) -> Status {
         DIMS_TRY(store.put(std::vector{late.item(), test::test_object(300).item()}));
         return ok_status();
       }},
  };
  for (const auto& [name, touch] : ways) {
    INFO(name);
    test::StoreFolder folder;
    test::HookedEnv hooked;
    folder.options.env = hooked.env.get();
    folder.options.log_bytes_max = 20 * kKiB;
    const auto store = folder.open();
    auto& objects = store->objects();
    for (std::uint64_t n = 0; n < 8; ++n) {
      REQUIRE(objects.put(std::vector{test::test_object(n).item()}).ok());
    }
    const auto late = test::test_object(100);
    std::atomic<bool> put = false;
    hooked.files->on_create = [&](const std::string& path) {
      if (!path.ends_with(".blob") || put.exchange(true)) return;
      CHECK(objects.put(std::vector{late.item()}).ok());  // past the log, behind the flush
    };
    REQUIRE(objects.barrier().ok());
    REQUIRE(put);
    REQUIRE(objects.set_touch_floor(seconds(folder.clock) + 1).ok());
    REQUIRE(touch(objects, late).ok());
    check_every_row_has_its_bytes(folder, folder.killed_copy("killed"));
    // And a barrier still makes all of it durable.
    REQUIRE(objects.barrier().ok());
    const auto again = folder.open(folder.killed_copy("later"));
    CHECK(test::get_one(again->objects(), late.key).ok());
  }
}

TEST_CASE("a_row_that_is_made_anew_does_not_outlive_bytes_that_went_past_the_log") {
  test::StoreFolder folder;
  folder.options.log_bytes_max = 0;
  folder.open();
  const auto engine = folder.engine();
  stores::RocksObjectStore objects(*engine, folder.clock, folder.options);
  REQUIRE(objects.load_counters().ok());
  const auto object = test::test_object(1);
  REQUIRE(objects.put(std::vector{object.item()}).ok());
  rocksdb::WriteBatch batch;
  REQUIRE(batch.Delete(engine->meta(), stores::row_key(object.key)).ok());
  REQUIRE(engine->write(batch, stores::Durability::kBypassed, "test").ok());
  const auto page = objects.audit({}, 10, kMiB, true);
  REQUIRE(page.ok());
  REQUIRE(page->findings.size() == 1);
  CHECK(page->findings[0].mended);
  check_every_row_has_its_bytes(folder, folder.killed_copy("killed"));
}
