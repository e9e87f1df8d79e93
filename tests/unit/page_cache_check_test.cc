// Each kind of damage in the cache is found, by its name, and once; and the check changes nothing.
#include <catch2/catch.hpp>

#include "nbdkit-ldim/cache/check.h"
#include "tests/support/corruptors.h"
#include "tests/unit/page_cache_fixture.h"

using namespace dims;
using namespace dims::ldim;
using namespace dims::test;

namespace {

struct CheckFixture {
  CheckFixture() {
    fill(0, 10);
    older = disk.copy();
    fill(10, 30);
    data = kCacheFolder + "/" + cache_file_name(CacheFileKind::kData, 1);
    index = kCacheFolder + "/" + cache_file_name(CacheFileKind::kIndex, 1);
    const auto block = disk.peek(data);
    const auto header =
        parse_cache_header(CacheFileKind::kData, ByteView(block).first(kCacheHeaderBytes));
    REQUIRE(header.ok());
    capacity = header->capacity_pages;
  }
  void fill(std::uint64_t from, std::uint64_t to) {
    SeededRandom random(from + 5);
    auto cache = open_cache(disk, cache_options(), random);
    for (std::uint64_t i = from; i < to; ++i)
      REQUIRE(cache->insert(object_id(i), object_bytes(i, kPages), 0).ok());
    REQUIRE(cache->sync().ok());
  }
  std::uint64_t page_at(std::uint32_t slot) const { return cache_page_offset(capacity, slot); }
  CacheCheck check() {
    std::map<std::string, Bytes> before;
    const auto names = disk.list(kCacheFolder);
    for (const auto& name : *names) before[name] = disk.peek(kCacheFolder + "/" + name);
    const auto found = check_cache(disk, cache_options());
    REQUIRE(found.ok());
    CHECK(*disk.list(kCacheFolder) == *names);
    for (const auto& name : *names) CHECK(disk.peek(kCacheFolder + "/" + name) == before[name]);
    return *found;
  }
  void expect(CacheDamage code, const std::string& where) {
    const CacheCheck found = check();
    REQUIRE(found.findings.size() == 1);
    CHECK(found.findings[0].code == code);
    CHECK(found.findings[0].where == where);
    CHECK(!found.findings[0].text.empty());
    CHECK(!found.findings[0].todo.empty());
    // The damage is served to nobody.
    SeededRandom random(3);
    auto cache = open_cache(disk, cache_options(), random);
    for (std::uint64_t i = 0; i < 30; ++i) (void)look(*cache, i, kPages);
  }

  SimFileSystem disk;
  std::unique_ptr<SimFileSystem> older;
  std::string data, index;
  std::uint32_t capacity = 0;
};

}  // namespace

TEST_CASE("a_sound_cache_has_no_finding") {
  CheckFixture f;
  const CacheCheck found = f.check();
  CHECK(found.findings.empty());
  CHECK(found.segments == 2);
  CHECK(found.objects == 30);
  CHECK(found.pages == 90);
}

TEST_CASE("each_damage_of_a_cache_is_found_by_its_name") {
  CheckFixture f;
  SECTION("flip_bit in a page") {
    flip_bit(f.disk, f.data, f.page_at(4) + 77);
    f.expect(CacheDamage::kPageDamaged, f.data);
  }
  SECTION("flip_bit in a tag") {
    flip_bit(f.disk, f.data, cache_tag_offset(7) + 3);
    f.expect(CacheDamage::kPageDamaged, f.data);
  }
  SECTION("misdirect a valid page onto another one, tag and all") {
    misdirect(f.disk, f.data, f.page_at(0), f.page_at(9), kPageBytes);
    misdirect(f.disk, f.data, cache_tag_offset(0), cache_tag_offset(9), 16);
    f.expect(CacheDamage::kPageDamaged, f.data);
  }
  SECTION("a lost write leaves zeros") {
    zero_sector(f.disk, f.data, f.page_at(5));
    f.expect(CacheDamage::kPageDamaged, f.data);
  }
  SECTION("flip_bit in an index record") {
    flip_bit(f.disk, f.index, cache_record_offset(2) + 9);
    f.expect(CacheDamage::kRecordDamaged, f.index);
  }
  SECTION("truncate_tail of the pages") {
    truncate_tail(f.disk, f.data, f.page_at(3 * kPages));
    f.expect(CacheDamage::kRecordDamaged, f.index);
  }
  SECTION("flip_bit in a header") {
    flip_bit(f.disk, f.data, 50);
    f.expect(CacheDamage::kHeaderDamaged, f.data);
  }
  SECTION("the other half of a pair comes from another segment") {
    f.disk.plant(f.index,
                 f.disk.peek(kCacheFolder + "/" + cache_file_name(CacheFileKind::kIndex, 2)));
    f.expect(CacheDamage::kHeaderDamaged, f.data);
  }
  SECTION("remove_file") {
    remove_file(f.disk, f.index);
    f.expect(CacheDamage::kLoneFile, f.data);
  }
  SECTION("a file of somebody else") {
    f.disk.plant(kCacheFolder + "/notes.txt", Bytes(10));
    f.expect(CacheDamage::kForeignFile, kCacheFolder + "/notes.txt");
  }
}

TEST_CASE("an_old_but_valid_page_is_found") {
  // The segment was written anew under the same name: what the older disk had there is sealed, and
  // not this segment's.
  CheckFixture f;
  SimFileSystem other;
  {
    SeededRandom random(99);
    auto cache = open_cache(other, cache_options(), random);
    for (std::uint64_t i = 0; i < 10; ++i)
      REQUIRE(cache->insert(object_id(i), object_bytes(i, kPages), 0).ok());
    REQUIRE(cache->sync().ok());
  }
  restore_old(f.disk, other, f.data, f.page_at(6), kPageBytes);
  restore_old(f.disk, other, f.data, cache_tag_offset(6), 16);
  f.expect(CacheDamage::kPageDamaged, f.data);
}
