// What only a store on disk can go through: restarts, kills, torn and damaged logs, foreign
// folders, full disks.
#include <fstream>
#include <catch2/catch.hpp>

#include "rdim-server/stores/meta_row.h"
#include "tests/contract/object_store_suite.h"
#include "tests/contract/store_folder.h"

using namespace dims;
namespace fs = std::filesystem;

namespace {

using Folder = test::StoreFolder;

std::string newest_log(const std::string& store) {
  std::string newest;
  for (const auto& entry : fs::directory_iterator(store + "/db")) {
    const std::string path = entry.path().string();
    if (entry.path().extension() == ".log" && fs::file_size(entry) > 0 && path > newest) {
      newest = path;
    }
  }
  REQUIRE(!newest.empty());
  return newest;
}

void flip_bit(const std::string& path, std::uint64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const int old = file.get();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(old ^ 0x40));
  REQUIRE(file.good());
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    names.push_back(entry.path().string());
  }
  return names;
}

}  // namespace

TEST_CASE("a store that is opened again is the same store") {
  Folder folder;
  const auto object = test::test_object(1);
  GenerationId generation;
  contract::StoreInfo before;
  {
    const auto store = folder.open();
    generation = store->generation();
    REQUIRE(store->objects().put(std::vector{object.item()}).ok());
    REQUIRE(store->refs().put("k", as_bytes("v"), 0).ok());
    before = *store->objects().info();
  }
  for (int round = 0; round < 3; ++round) {
    const auto store = folder.open();
    CHECK(store->generation() == generation);
    CHECK(*test::get_one(store->objects(), object.key) == object.bytes);
    CHECK(as_text((*store->refs().get("k"))->value) == "v");
    CHECK(store->objects().info()->objects == before.objects);
    CHECK(store->objects().info()->object_bytes == before.object_bytes);
  }
  Folder other;
  CHECK(!(other.open()->generation() == generation));
}

TEST_CASE("what a barrier covered survives a kill, through the log and past it") {
  for (const std::uint64_t log_bytes_max : {std::uint64_t{kGiB}, std::uint64_t{0}, 20 * kKiB}) {
    INFO("log_bytes_max " << log_bytes_max);
    Folder folder;
    folder.options.log_bytes_max = log_bytes_max;
    const auto store = folder.open();
    std::vector<test::TestObject> objects;
    for (std::uint64_t i = 0; i < 20; ++i) {
      objects.push_back(test::test_object(i));
      REQUIRE(store->objects().put(std::vector{objects.back().item()}).ok());
      if (i % 7 == 6) REQUIRE(store->objects().barrier().ok());
    }
    REQUIRE(store->objects().barrier().ok());
    REQUIRE(store->refs().put("head", as_bytes("20"), 0).ok());
    // Not covered: may be there or not, but never half.
    const auto late = test::test_object(100);
    REQUIRE(store->objects().put(std::vector{late.item()}).ok());
    const std::string copy = folder.killed_copy("killed");
    const auto again = folder.open(copy);
    for (const auto& object : objects) {
      const auto back = test::get_one(again->objects(), object.key);
      REQUIRE(back.ok());
      CHECK(*back == object.bytes);
    }
    CHECK(as_text((*again->refs().get("head"))->value) == "20");
    const bool has_late = again->objects().has(std::span(&late.key, 1))->front();
    CHECK(test::get_one(again->objects(), late.key).ok() == has_late);
    CHECK(again->objects().info()->objects == (has_late ? 21 : 20));  // counted anew
  }
}

TEST_CASE("a torn record at the end of the log is a power cut and not damage") {
  Folder folder;
  const auto store = folder.open();
  REQUIRE(store->refs().put("first", as_bytes("1"), 0).ok());
  REQUIRE(store->refs().put("second", as_bytes(std::string(200, '2')), 0).ok());
  for (const std::uint64_t cut : {1u, 20u, 150u}) {
    const std::string copy = folder.killed_copy("torn" + std::to_string(cut));
    const std::string log = newest_log(copy);
    fs::resize_file(log, fs::file_size(log) - cut);
    const auto again = folder.open(copy);
    CHECK(as_text((*again->refs().get("first"))->value) == "1");
    CHECK(!again->refs().get("second")->has_value());
    CHECK(again->refs().put("second", as_bytes("again"), 0).ok());
  }
}

TEST_CASE("a damaged record before valid ones refuses to open instead of dropping them") {
  Folder folder;
  const auto store = folder.open();
  for (const char* key : {"one", "two", "three"}) {
    REQUIRE(store->refs().put(key, as_bytes(std::string(300, 'x')), 0).ok());
  }
  const std::string copy = folder.killed_copy("damaged");
  const std::string log = newest_log(copy);
  flip_bit(log, fs::file_size(log) - 2 * 350);
  const auto again = folder.try_open(copy);
  REQUIRE(!again.ok());
  CHECK(again.error().code == ErrorCode::kCorrupt);
  CHECK(!again.error().hint.empty());
}

// docs/formats/store.md
TEST_CASE("FORMAT and the meta row are byte for byte what their page says") {
  stores::StoreFormat format;
  format.generation = *GenerationId::from_hex_text("0123456789abcdef0123456789abcdef");
  format.state = stores::StoreState::kReady;
  CHECK(stores::encode_format(format) ==
        "dims-store 1\ngeneration 0123456789abcdef0123456789abcdef\nstate ready\n");
  const stores::MetaRow row{format::ObjectKind::kInner, 2, 0x01020304, 0x1122334455667788};
  const std::string bytes = stores::encode_meta(row);
  CHECK(to_hex(as_bytes(bytes)) ==
        "01030200"
        "04030201"
        "8877665544332211");
  CHECK(stores::decode_meta(bytes)->object_bytes == row.object_bytes);
  CHECK(!stores::decode_meta(bytes.substr(1)));
}

TEST_CASE("removed_objects_give_their_disk_space_back") {
  Folder folder;
  folder.options.write_buffer_bytes = kMiB;
  auto store = folder.open();
  constexpr std::uint64_t kObjects = 2000;  // of 4 KiB
  std::vector<contract::ObjectKey> gone, kept;
  for (std::uint64_t n = 0; n < kObjects; ++n) {
    const auto object = test::test_object(n);
    REQUIRE(store->objects().put(std::vector{object.item()}).ok());
    (n % 4 == 0 ? kept : gone).push_back(object.key);
  }
  REQUIRE(store->objects().barrier().ok());
  const std::uint64_t before = store->objects().info()->disk_bytes;
  const auto outcomes = store->objects().remove_untouched(gone, ~std::uint64_t{0});
  REQUIRE(outcomes.ok());
  REQUIRE(store->objects().reclaim([] { return false; }).ok());
  const std::uint64_t after = store->objects().info()->disk_bytes;
  INFO(before << " bytes before, " << after << " after");
  CHECK(after < before / 2);
  store.reset();
  store = folder.open();
  for (const auto& key : kept) CHECK(test::get_one(store->objects(), key).ok());
  CHECK(store->objects().info()->objects == kept.size());
}

TEST_CASE("a store of an unknown format is refused and left as it is") {
  Folder folder;
  folder.open();
  const std::string format = folder.path + "/FORMAT";
  std::ofstream(format) << "dims-store 2\nwhatever\n";
  const auto names = names_in(folder.path);
  const auto future = folder.try_open(folder.path);
  REQUIRE(!future.ok());
  CHECK(future.error().code == ErrorCode::kUnsupported);
  CHECK(future.error().message.find("format 2") != std::string::npos);
  CHECK(names_in(folder.path) == names);

  std::ofstream(format) << "something else\n";
  CHECK(folder.try_open(folder.path).error().code == ErrorCode::kUnsupported);
  std::ofstream(format) << "dims-store 1\ngeneration zz\nstate ready\n";
  CHECK(folder.try_open(folder.path).error().code == ErrorCode::kCorrupt);
  CHECK(names_in(folder.path) == names);
}

TEST_CASE("a folder that is no store is refused and left as it is") {
  Folder folder;
  fs::create_directory(folder.path);
  std::ofstream(folder.path + "/letters.txt") << "dear";
  const auto refused = folder.try_open(folder.path);
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kUnsupported);
  CHECK(names_in(folder.path).size() == 1);
}

TEST_CASE("a first start that was cut short is finished by the next") {
  Folder folder;
  fs::create_directory(folder.path);
  std::ofstream(folder.path + "/FORMAT.new") << "dims-st";  // before the rename
  const auto generation = folder.open()->generation();
  std::ofstream(folder.path + "/FORMAT")  // after it, before the database was whole
      << "dims-store 1\ngeneration " << generation.hex() << "\nstate creating\n";
  fs::remove_all(folder.path + "/db");
  CHECK(folder.open()->generation() == generation);
}

TEST_CASE("a ready store whose database is gone does not come up empty") {
  Folder folder;
  folder.open();
  fs::remove_all(folder.path + "/db");
  const auto gone = folder.try_open(folder.path);
  REQUIRE(!gone.ok());
  CHECK(gone.error().code == ErrorCode::kCorrupt);
}

TEST_CASE("a store that is open elsewhere is refused by name") {
  Folder folder;
  const auto store = folder.open();
  const auto second = folder.try_open(folder.path);
  REQUIRE(!second.ok());
  CHECK(second.error().code == ErrorCode::kUnavailable);
  CHECK(second.error().message.find(folder.path) != std::string::npos);
}

TEST_CASE("a full disk refuses new objects, keeps the rest working, and recovers by itself") {
  Folder folder;
  std::uint64_t free_bytes = kGiB;
  folder.options.free_bytes_min = kMiB;
  folder.options.free_bytes = [&] { return free_bytes; };
  const auto store = folder.open();
  const auto before = test::test_object(1), during = test::test_object(2);
  REQUIRE(store->objects().put(std::vector{before.item()}).ok());
  free_bytes = 1000;
  const auto full = store->objects().put(std::vector{during.item()});
  REQUIRE(!full.ok());
  CHECK(full.error().code == ErrorCode::kNoSpace);
  CHECK(store->objects().put(std::vector{before.item()}).ok());  // nothing new in it
  CHECK(test::get_one(store->objects(), before.key).ok());
  CHECK(store->objects().barrier().ok());
  CHECK(store->refs().put("k", as_bytes("v"), 0).ok());
  free_bytes = kGiB;
  CHECK(store->objects().put(std::vector{during.item()}).ok());
}

TEST_CASE("the floor of touch times holds again after a kill, whatever the clock says") {
  Folder folder;
  const auto object = test::test_object(1);
  const auto store = folder.open();
  REQUIRE(store->objects().put(std::vector{object.item()}).ok());
  folder.clock.advance(std::chrono::minutes(10));
  const auto floor = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(folder.clock.wall()).count());
  REQUIRE(store->objects().set_touch_floor(floor).ok());
  const auto again = folder.open(folder.killed_copy("killed"));
  folder.clock.advance(-std::chrono::minutes(9));  // and the last touch is no hour old
  REQUIRE(again->objects().touch_present(std::vector{object.key})->front());
  CHECK(again->objects().list_rows({}, 1)->front().touched_s == floor);
}

TEST_CASE("a floor of touch times from a clock that was years ahead is gone once it is right") {
  Folder folder;
  const auto store = folder.open();
  const auto now_s = [&] {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::seconds>(folder.clock.wall()).count());
  };
  REQUIRE(store->objects().set_touch_floor(now_s() + 3 * 365 * 86400).ok());
  const auto again = folder.open(folder.killed_copy("killed"));
  CHECK(again->objects().touch_floor() == 0);
  const auto object = test::test_object(1);
  REQUIRE(again->objects().put(std::vector{object.item()}).ok());
  CHECK(again->objects().list_rows({}, 1)->front().touched_s == now_s());
}
