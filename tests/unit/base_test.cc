#include <catch2/catch.hpp>

#include "common/base/parse.h"
#include "common/base/units.h"
#include "common/base/wire.h"
#include "common/io/memory_file.h"

using namespace dims;

TEST_CASE("sizes and durations parse as people write them") {
  CHECK(*parse_size("4096") == 4096);
  CHECK(*parse_size("64M") == 64 * kMiB);
  CHECK(*parse_size("1.5GiB") == 1536 * kMiB);
  CHECK(*parse_size("1T") == 1024 * kGiB);
  for (const char* bad : {"", "M", "-1", "5Q", "1e9", "nan", "9999999999999T"}) {
    INFO(bad);
    REQUIRE(!parse_size(bad).ok());
    CHECK(parse_size(bad).error().code == ErrorCode::kInvalidArgument);
  }
  CHECK(parse_duration("250ms")->count() == 250);
  CHECK(parse_duration("2h")->count() == 7200000);
  CHECK(!parse_duration("soon").ok());
}

TEST_CASE("text that is no UTF-8 is made so, and all other text stays") {
  const std::string good = "gr\xc3\xbc\xc3\x9f dich \xe2\x82\xac \xf0\x9f\x92\xbe";
  CHECK(printable_utf8(good) == good);
  CHECK(printable_utf8("a\xff"
                       "b\xc3") == "a?b?");
  CHECK(printable_utf8("\xc0\x80 \xed\xa0\x80 \xe2\x82") == "?? ??? ??");
  CHECK(printable_utf8("").empty());
}

TEST_CASE("host and port") {
  CHECK(parse_host_port("127.0.0.1:7440")->port == 7440);
  CHECK(parse_host_port("[::1]:1")->host == "::1");
  for (const char* bad : {"", "host", ":1", "h:99999", "::1:5", "h:x"})
    CHECK(!parse_host_port(bad).ok());
}

TEST_CASE("pages touched by a byte range") {
  CHECK(pages_touched({0, 1}) == PageRange{0, 1});
  CHECK(pages_touched({4095, 2}) == PageRange{0, 2});
  CHECK(pages_touched({4096, 4096}) == PageRange{1, 1});
  CHECK(pages_touched({8191, 0}).count == 0);
}

TEST_CASE("a reader never runs past its end") {
  Bytes data;
  Writer writer(data);
  writer.u32(7);
  writer.string(as_bytes("abc"));
  Reader reader(data);
  CHECK(reader.u32() == 7);
  CHECK(as_text(reader.string()) == "abc");
  CHECK(reader.at_end());
  CHECK(reader.u64() == 0);
  CHECK(!reader.ok());
  Reader hostile(ByteView(data).subspan(4, 3));  // a length prefix cut short
  CHECK(hostile.string().empty());
  CHECK(!hostile.ok());
}

TEST_CASE("all-zero test at every length and position") {
  Bytes data(300, 0);
  for (std::size_t n = 0; n < data.size(); ++n) CHECK(is_all_zero(ByteView(data).first(n)));
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i] = 1;
    CHECK(!is_all_zero(data));
    data[i] = 0;
  }
}

TEST_CASE("memory files are sparse, bounded and outlive their name") {
  io::MemoryFileSystem fs(256 * kKiB);
  auto file = fs.open("/d/f", io::OpenMode::kCreateExclusive).value();
  CHECK(!fs.open("/d/f", io::OpenMode::kCreateExclusive).ok());
  REQUIRE(file->write_at(100 * kMiB, as_bytes("end")).ok());
  Bytes back(3);
  REQUIRE(file->read_at(100 * kMiB, back).ok());
  CHECK(as_text(back) == "end");
  REQUIRE(file->read_at(50 * kMiB, back).ok());
  CHECK(is_all_zero(back));
  REQUIRE(fs.remove("/d/f").ok());
  REQUIRE(file->read_at(100 * kMiB, back).ok());
  const Bytes large(512 * kKiB, 1);
  const Status full = file->write_at(0, large);
  REQUIRE(!full.ok());
  CHECK(full.error().code == ErrorCode::kNoSpace);
}
