// What befell other encrypted stores, each as a test here. Names: situation_outcome.
//
// Elsewhere: a ciphertext in another place (local_records_test.cc;
// tests/contract/hostile_*_test.cc), one key stream for two packings of one page (format_test.cc),
// swapped public keys and grants (trust_grant_test.cc), nonces after a crash or a restored copy
// (tests/crash/nonce_test.cc), keys from the server (trust_user_test.cc, hostile_attacks_test.cc),
// a cache in clear (tests/system/canary.py).
#include <algorithm>
#include <set>

#include "tests/support/disk_fixture.h"

using namespace dims;
using namespace dims::test;

namespace {

std::map<std::string, Bytes> contents_of(io::FileSystem& fs) {
  std::map<std::string, Bytes> out;
  for (const std::string folder : {"/ldim", "/ldim/journal", "/ldim/cache"}) {
    const auto names = fs.list(folder);
    if (!names.ok()) continue;
    for (const std::string& name : *names) {
      const auto bytes = io::read_file(fs, folder + "/" + name, kGiB);
      if (bytes.ok()) out[folder + "/" + name] = *bytes;
    }
  }
  return out;
}

}  // namespace

TEST_CASE("a_wrong_key_is_refused_before_anything_is_written_here_or_there") {
  DiskFixture t;
  DiskFixture other{seed() + 3};
  FakeRemote remote;
  Bytes content = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  for (const bool known : {false, true}) {
    SimFileSystem fs;
    if (known) {
      auto disk = t.open(fs, remote);
      write_at(*disk, content, 4096, 8192, 0x3d);
      require_ok(disk->flush());
    }
    remote.server().expire_leases();
    const auto before = contents_of(fs);
    const auto objects = remote.server().all_objects();
    const auto head = remote.find_image("disk")->head;
    for (const bool online : {true, false}) {
      remote.set_available(online);
      const auto opened = other.try_open(fs, remote);
      REQUIRE(!opened.ok());
      if (online || known) CHECK(opened.error().code == ErrorCode::kWrongKey);
    }
    remote.set_available(true);
    CHECK(contents_of(fs) == before);
    CHECK(remote.server().all_objects() == objects);
    CHECK(remote.find_image("disk")->head == head);
    if (known) CHECK(difference(DiskFixture::read_all(*t.open(fs, remote)), content) == "");
  }
}

TEST_CASE("a_known_file_is_not_found_in_the_store_without_the_domains_secret") {
  DiskFixture t;
  DiskFixture guesser{seed() + 5};
  FakeRemote remote;
  const Bytes known = random_content(t.random, 2 * kMiB);
  commit_content(remote, t.key.key, "disk", known, t.random);
  // Whoever guesses right has the file, the domain's name and every program, but a secret of his
  // own.
  format::KeyFile guess = guesser.key.key;
  guess.domain = t.key.key.domain;
  FakeRemote his;
  commit_content(his, guess, "disk", known, guesser.random);
  std::set<std::string> stored;
  for (const auto& key : remote.server().all_objects()) stored.insert(key.id.hex());
  for (const auto& key : his.server().all_objects()) CHECK(!stored.contains(key.id.hex()));
  // With the secret it is the same file: that is what deduplication is.
  FakeRemote same;
  commit_content(same, t.key.key, "disk", known, t.random);
  std::size_t equal = 0;
  for (const auto& key : same.server().all_objects()) equal += stored.contains(key.id.hex());
  CHECK(equal == stored.size());
}

TEST_CASE("a_cache_folder_shows_no_page_of_the_disk") {
  DiskFixture t;
  FakeRemote remote;
  Bytes content(kMiB);
  t.random.fill(content);  // nothing that is there by chance
  commit_content(remote, t.key.key, "disk", content, t.random);
  SimFileSystem fs;
  auto disk = t.open(fs, remote);
  CHECK(difference(DiskFixture::read_all(*disk), content) == "");
  Bytes written(64 * kKiB);
  t.random.fill(written);
  require_ok(disk->write({200'000, written.size()}, written.data(), true));
  std::set<std::string> clear;
  for (const Bytes* text : {&content, &written})
    for (std::size_t at = 0; at + 16 <= text->size(); at += 1024)
      clear.insert(std::string(as_text(ByteView(*text).subspan(at, 16))));
  std::size_t looked = 0, found = 0;
  for (const auto& [path, bytes] : contents_of(fs)) {
    for (std::size_t at = 0; at + 16 <= bytes.size(); ++at, ++looked)
      found += clear.contains(std::string(as_text(ByteView(bytes).subspan(at, 16))));
  }
  CHECK(looked > 2 * kMiB);
  CHECK(found == 0);
}

TEST_CASE("a_store_restored_with_its_metadata_opens_with_the_key_file_alone") {
  DiskFixture t;
  FakeRemote remote;
  const Bytes content = random_content(t.random, kMiB);
  commit_content(remote, t.key.key, "disk", content, t.random);
  // Nothing is left but the key file's text and the server's store.
  const auto again = format::parse_key_file(format::encode_key_file(t.key.key));
  REQUIRE(again.ok());
  FakeRemote restored(remote.shared_server());
  const auto image = restored.find_image("disk");
  REQUIRE(image.ok());
  CHECK(difference(read_version(restored, *again, image->id, image->head), content) == "");
}

TEST_CASE("an_extent_is_far_below_four_gigabytes_on_any_disk") {
  DiskFixture t;
  FakeRemote remote;
  contract::ImageInfo image;
  image.id = t.random.id<ImageId>();
  image.name = "disk";
  image.image_bytes = 16 * kGiB;
  image.domain = t.key.key.domain;
  image.key_check = t.key.key.key_check(image.id);
  REQUIRE(remote.create_image(image).ok());
  format::VersionRecord record;  // all zeros
  record.org = t.key.key.org;
  record.image = image.id;
  record.image_bytes = image.image_bytes;
  record.tree = image.tree;
  record.sequence = 1;
  const auto lease = remote.acquire_lease(
      {image.id, t.random.id<SessionId>(), t.random.id<MachineId>(), "importer"});
  REQUIRE(lease.ok());
  REQUIRE(remote
              .commit({image.id,
                       lease->lease,
                       lease->token,
                       {},
                       format::encode_version(record, t.key.key.signing)})
              .ok());
  require_ok(remote.release_lease(image.id, *lease));
  SimFileSystem fs;
  auto disk = t.open(fs, remote);
  for (const std::uint64_t count : {4 * kGiB - 1, 4 * kGiB, 16 * kGiB}) {
    for (const bool one : {false, true}) {
      const auto extents = disk->extents({0, count}, one);
      REQUIRE(extents.ok());
      REQUIRE(!extents->empty());
      for (const ldim::DiskExtent& extent : *extents) CHECK(extent.range.count <= kGiB);
    }
  }
}
