// The suites over every implementation.
#include <fstream>
#include <catch2/catch.hpp>

#include "rdim-server/stores/memory_stores.h"
#include "rdim-server/stores/store.h"
#include "tests/contract/object_store_suite.h"
#include "tests/contract/ref_store_suite.h"
#include "tests/contract/temp_folder.h"

using namespace dims;

namespace {

class MemoryFixture : public test::ObjectStoreFixture {
 public:
  contract::ObjectStore& store() override { return store_; }
  void damage(const format::ObjectKey& key) override { store_.damage(key); }

 private:
  stores::MemoryObjectStore store_{clock};
};

std::unique_ptr<stores::Store> open_store(const std::string& folder, Clock& clock,
                                          std::uint64_t log_bytes_max) {
  stores::StoreOptions options;
  options.folder = folder;
  options.log_bytes_max = log_bytes_max;
  auto store = stores::Store::open(options, clock, system_random());
  REQUIRE(store.ok());
  return std::move(*store);
}

class RocksFixture : public test::ObjectStoreFixture {
 public:
  explicit RocksFixture(std::uint64_t log_bytes_max)
      : log_bytes_max_(log_bytes_max),
        store_(open_store(folder_.path + "/store", clock, log_bytes_max)) {}
  contract::ObjectStore& store() override { return store_->objects(); }

  void damage(const format::ObjectKey& key) override {
    const auto object = test::get_one(store(), key);
    REQUIRE(object.ok());
    store_.reset();  // everything goes to the blob files
    const std::string_view needle = as_text(ByteView(*object).last(64));
    int found = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path + "/store/db")) {
      if (entry.path().extension() != ".blob") continue;
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      std::string content((std::istreambuf_iterator<char>(file)), {});
      const std::size_t at = content.find(needle);
      if (at == std::string::npos) continue;
      ++found;
      file.clear();
      file.seekp(static_cast<std::streamoff>(at + 10));
      file.put(static_cast<char>(content[at + 10] ^ 1));
    }
    REQUIRE(found == 1);
    store_ = open_store(folder_.path + "/store", clock, log_bytes_max_);
  }

 private:
  const std::uint64_t log_bytes_max_;
  test::TempFolder folder_;
  std::unique_ptr<stores::Store> store_;
};

}  // namespace

TEST_CASE("memory keeps the object store's contract") {
  test::object_store_suite([] { return std::make_unique<MemoryFixture>(); });
}

TEST_CASE("RocksDB keeps the object store's contract, through its log") {
  test::object_store_suite([] { return std::make_unique<RocksFixture>(kGiB); });
}

TEST_CASE("RocksDB keeps the object store's contract, past its log") {
  test::object_store_suite([] { return std::make_unique<RocksFixture>(0); });
}

TEST_CASE("memory keeps the ref store's contract") {
  stores::MemoryRefStore store;
  test::ref_store_suite(store);
}

TEST_CASE("RocksDB keeps the ref store's contract") {
  ManualClock clock;
  const test::TempFolder folder;
  const auto store = open_store(folder.path + "/store", clock, kMiB);
  test::ref_store_suite(store->refs());
}
