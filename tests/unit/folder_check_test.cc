// ldim check --key: a whole folder, closed, sound and damaged.
#include <catch2/catch.hpp>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "nbdkit-ldim/control/folder_check.h"
#include "nbdkit-ldim/disk/cache_folder.h"
#include "tests/support/corruptors.h"
#include "tests/support/disk_fixture.h"
#include "tests/support/sim_file.h"

using namespace dims;
using namespace dims::test;
using nlohmann::json;

namespace {

json must_check(SimFileSystem& disk, const DiskFixture& f, bool clean) {
  const auto found = ldim::check_folder(disk, "/ldim", f.key.path, false);
  if (!found.ok()) FAIL(found.error().to_string());
  INFO(found->report);
  CHECK(found->clean == clean);
  const json report = json::parse(found->report);
  CHECK(report["ok"].get<bool>() == clean);
  return report;
}

}  // namespace

TEST_CASE("a_closed_folder_is_checked_whole") {
  DiskFixture f;
  FakeRemote remote;
  const Bytes content = random_content(f.random, 2 * kMiB);
  commit_content(remote, f.key.key, "disk", content, f.random);
  SimFileSystem files;
  {
    auto disk = f.open(files, remote);
    (void)f.read_all(*disk);
    const Bytes data(50000, 7);
    for (std::uint64_t i = 0; i < 20; ++i)
      require_ok(disk->write({i * 60000, data.size()}, data.data(), i % 5 == 0));
    require_ok(disk->close(std::chrono::seconds(1)));
  }
  json report = must_check(files, f, true);
  CHECK(report["findings"].empty());
  CHECK(report["journal"]["records"].get<std::uint64_t>() >= 20);
  CHECK(report["journal"]["opens"].get<bool>());
  CHECK(report["cache"]["pages"].get<std::uint64_t>() > 0);

  SECTION("a journal's record") {
    flip_bit(files, "/ldim/journal/0000000001.jnl", 70000);
    report = must_check(files, f, false);
    REQUIRE(report["findings"].size() == 1);
    CHECK(report["findings"][0]["part"] == "journal");
    CHECK(report["findings"][0]["code"] == "record-damaged");
    CHECK(report["findings"][0]["severity"] == "damage");
  }
  SECTION("the state file") {
    flip_bit(files, "/ldim/state", 60);
    CHECK(must_check(files, f, false)["findings"][0]["code"] == "state-damaged");
  }
  SECTION("the keys") {
    flip_bit(files, "/ldim/keys", 30);
    CHECK(must_check(files, f, false)["findings"][0]["code"] == "keys-damaged");
    remove_file(files, "/ldim/keys");
    CHECK(must_check(files, f, false)["findings"][0]["code"] == "keys-missing");
    CHECK(!*files.exists("/ldim/keys"));  // a check makes none
  }
  SECTION("no folder of ours, or another key") {
    CHECK(ldim::check_folder(files, "/elsewhere", f.key.path, false).error().code ==
          ErrorCode::kNotFound);
    const TemporaryKey other(f.random);
    CHECK(ldim::check_folder(files, "/ldim", other.path, false).error().code ==
          ErrorCode::kWrongKey);
  }
}

TEST_CASE("a_folder_in_use_is_not_checked") {
  SeededRandom random(seed());
  const TemporaryKey key(random);
  const std::filesystem::path folder = key.path + ".folder";
  io::FileSystem& fs = io::posix_file_system();
  REQUIRE(ldim::prepare_folder(fs, folder.string(), random.id<ImageId>(), key.key, random).ok());
  {
    const auto lock = ldim::FolderLock::take(folder.string());
    REQUIRE(lock.ok());
    const auto refused = ldim::check_folder(fs, folder.string(), key.path, true);
    REQUIRE(!refused.ok());
    CHECK(refused.error().code == ErrorCode::kConflict);
    CHECK(refused.error().message.find("serves") != std::string::npos);
  }
  CHECK(ldim::check_folder(fs, folder.string(), key.path, true).ok());
  std::filesystem::remove_all(folder);
}
