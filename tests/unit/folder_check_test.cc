// ldim check --key: a whole folder, closed, sound and damaged.
#include <catch2/catch.hpp>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "nbdkit-ldim/control/folder_check.h"
#include "nbdkit-ldim/control/salvage_folder.h"
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

struct TemporaryFolder {
  TemporaryFolder() { std::filesystem::create_directory(path); }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string path =
      (std::filesystem::temp_directory_path() / ("dims-folder-" + std::to_string(::getpid())))
          .string();
};

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

TEST_CASE("a_journal_salvaged_twice_starts_and_is_kept_as_a_branch") {
  DiskFixture f;
  FakeRemote remote;
  const Bytes content = random_content(f.random, 2 * kMiB);
  commit_content(remote, f.key.key, "disk", content, f.random);
  auto& files = io::posix_file_system();  // the simulated ones rename no folders
  const TemporaryFolder folder;
  f.options.cache_folder = folder.path;
  {
    auto disk = f.open(files, remote);
    const Bytes data(50000, 7);
    for (std::uint64_t i = 0; i < 20; ++i)
      require_ok(disk->write({i * 60000, data.size()}, data.data(), i % 5 == 0));
    require_ok(disk->close(std::chrono::seconds(1)));
  }
  {
    const auto file = files.open(folder.path + "/journal/0000000001.jnl", io::OpenMode::kReadWrite);
    REQUIRE(file.ok());
    Bytes byte(1);
    require_ok((*file)->read_at(700000, byte));
    byte[0] ^= 1;
    require_ok((*file)->write_at(700000, byte));
  }
  CHECK(!f.try_open(files, remote).ok());
  const auto salvage = [&] { return ldim::salvage_folder(files, folder.path, f.key.path, true); };
  const auto first = salvage();
  INFO((first.ok() ? *first : first.error().to_string()));
  REQUIRE(first.ok());
  for (int again = 0; again < 2; ++again) {
    const auto refused = salvage();
    REQUIRE(!refused.ok());
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
    CHECK(refused.error().message.find("already") != std::string::npos);
  }
  const auto disk = f.open(files, remote);
  CHECK(difference(f.read_all(*disk), content) == "");
  CHECK(remote.list_images()->size() == 2);  // and the branch
  CHECK(!*files.exists(folder.path + "/" + ldim::kSalvageNote));
}

TEST_CASE("a_folder_whose_keys_are_missing_is_refused_and_loses_nothing") {
  DiskFixture f;
  FakeRemote remote;
  const Bytes content = random_content(f.random, 2 * kMiB);
  commit_content(remote, f.key.key, "disk", content, f.random);
  SimFileSystem files;
  const Bytes data(50000, 7);
  {
    auto disk = f.open(files, remote);
    (void)f.read_all(*disk);
    require_ok(disk->write({0, data.size()}, data.data(), true));
    require_ok(disk->close(std::chrono::seconds(1)));
  }
  const Bytes keys = files.peek("/ldim/keys");
  remove_file(files, "/ldim/keys");
  const auto refused = f.try_open(files, remote);
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kCorrupt);
  CHECK(refused.error().message.find("keys is missing") != std::string::npos);
  CHECK(!ldim::salvage_folder(files, "/ldim", f.key.path, false).ok());
  CHECK(!*files.exists("/ldim/keys"));
  files.plant("/ldim/keys", keys);
  remote.set_available(false);  // all that was here still is
  const auto disk = f.open(files, remote);
  Bytes wanted = content;
  std::copy(data.begin(), data.end(), wanted.begin());
  CHECK(difference(f.read_all(*disk), wanted) == "");
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
