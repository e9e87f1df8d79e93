// Sources and targets on real files, and the helper programs that serve other formats.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "image-tools/media/process.h"
#include "tests/unit/import_fixture.h"

using namespace dims;

namespace {

struct Folder {
  std::string path;
  Folder() {
    const char* base = std::getenv("TMPDIR");
    path = std::string(base != nullptr ? base : "/tmp") + "/dims-media-XXXXXX";
    REQUIRE(::mkdtemp(path.data()) != nullptr);
  }
  ~Folder() { (void)media::run({"rm", "-rf", path}); }
  std::string file(const std::string& name) const { return path + "/" + name; }
  std::size_t entries() const { return io_list().size(); }
  std::vector<std::string> io_list() const {
    const auto out = media::run({"ls", "-A", path});
    std::vector<std::string> names;
    std::string name;
    for (const char c : out->out) {
      if (c == '\n') {
        names.push_back(name);
        name.clear();
      } else {
        name.push_back(c);
      }
    }
    return names;
  }
};

Bytes contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

}  // namespace

TEST_CASE("a raw file is read as it is, holes are skipped") {
  Folder folder;
  SeededRandom random(test::seed());
  Bytes data(100000);
  random.fill(data);
  const std::string path = folder.file("disk.raw");
  {
    std::ofstream out(path, std::ios::binary);
    out.seekp(8 << 20);
    out.write(reinterpret_cast<const char*>(data.data()),
              static_cast<std::streamsize>(data.size()));
  }
  REQUIRE(::truncate(path.c_str(), (32 << 20) + 5) == 0);
  auto source = media::open_source(path, {});
  REQUIRE(source.ok());
  CHECK((*source)->bytes() == (32U << 20) + 5);
  const auto next = (*source)->next_data(0);
  REQUIRE(next.ok());
  REQUIRE(next->has_value());
  CHECK((*next)->offset <= 8U << 20);
  CHECK((*next)->offset >= 7U << 20);  // as fine as the file system is
  CHECK((*next)->end() >= (8U << 20) + data.size());
  Bytes back(data.size());
  REQUIRE((*source)->read_at(8 << 20, back).ok());
  CHECK(back == data);
  const auto rest = (*source)->next_data((*next)->end());
  REQUIRE(rest.ok());
  CHECK(!rest->has_value());
}

TEST_CASE("sources that cannot be opened say why") {
  Folder folder;
  CHECK(media::open_source(folder.file("none"), {}).error().code == ErrorCode::kNotFound);
  CHECK(media::open_source(folder.path, {}).error().code == ErrorCode::kInvalidArgument);
  CHECK(media::open_source("nbd+unix:///?socket=" + folder.file("none"), {}).error().code ==
        ErrorCode::kUnavailable);
  const std::string path = folder.file("text");
  std::ofstream(path) << std::string(100000, 'x');
  const auto forced = media::open_source(path, {"qcow2", 2});
  REQUIRE(!forced.ok());
  CHECK(forced.error().code == ErrorCode::kIo);
  CHECK(forced.error().message.find("qcow2") != std::string::npos);
}

TEST_CASE("a file target appears only when finished, and never over another file") {
  Folder folder;
  media::TargetOptions options;
  options.image_bytes = 1 << 20;
  const std::string path = folder.file("out.raw");
  {
    auto target = media::open_target(path, options);
    REQUIRE(target.ok());
    REQUIRE((*target)->write_at(4096, as_bytes("hello")).ok());
    CHECK(::access(path.c_str(), F_OK) != 0);
  }
  CHECK(folder.entries() == 0);  // abandoned: gone
  {
    auto target = media::open_target(path, options);
    REQUIRE((*target)->write_at(4096, as_bytes("hello")).ok());
    REQUIRE((*target)->finish().ok());
  }
  CHECK(folder.entries() == 1);
  const Bytes back = contents(path);
  REQUIRE(back.size() == 1 << 20);
  CHECK(as_text(ByteView(back).subspan(4096, 5)) == "hello");
  CHECK(media::open_target(path, options).error().code == ErrorCode::kAlreadyExists);

  // Somebody makes the file while we write ours.
  const std::string late = folder.file("late.raw");
  auto target = media::open_target(late, options);
  REQUIRE(target.ok());
  std::ofstream(late) << "theirs";
  const Status refused = (*target)->finish();
  REQUIRE(!refused.ok());
  CHECK(refused.error().code == ErrorCode::kAlreadyExists);
  CHECK(as_text(contents(late)) == "theirs");
  options.force = true;
  auto forced = media::open_target(late, options);
  REQUIRE(forced.ok());
  REQUIRE((*forced)->finish().ok());
  CHECK(contents(late).size() == 1 << 20);
}

TEST_CASE("other formats are written and read back through qemu-nbd") {
  Folder folder;
  SeededRandom random(test::seed());
  Bytes data(3 << 20);
  random.fill(data);
  for (const std::string format : {"qcow2", "vhdx", "vmdk", "vdi"}) {
    INFO(format);
    media::TargetOptions options;
    options.image_bytes = 64 << 20;
    const std::string path = folder.file("out." + format);
    {
      auto target = media::open_target(path, options);
      INFO((target.ok() ? "" : target.error().to_string()));
      REQUIRE(target.ok());
      REQUIRE((*target)->write_at(20 << 20, data).ok());
      REQUIRE((*target)->finish().ok());
    }
    auto source = media::open_source(path, {});
    INFO((source.ok() ? "" : source.error().to_string()));
    REQUIRE(source.ok());
    CHECK((*source)->description().find(format) != std::string::npos);
    CHECK((*source)->bytes() == 64 << 20);
    Bytes back(data.size());
    REQUIRE((*source)->read_at(20 << 20, back).ok());
    CHECK(back == data);
    std::uint64_t known_data = 0;
    for (std::uint64_t at = 0;;) {
      const auto next = (*source)->next_data(at);
      REQUIRE(next.ok());
      if (!*next) break;
      CHECK((*next)->offset >= at);
      known_data += (*next)->count;
      at = (*next)->end();
    }
    CHECK(known_data >= data.size());
    // In blocks of the format; QEMU does not tell the holes of a vhdx.
    if (format != "vhdx") CHECK(known_data <= data.size() + (16 << 20));
  }
  CHECK(folder.entries() == 4);
}

TEST_CASE("a vhd keeps a size that is no whole number of cylinders, and names may hold colons") {
  const std::string before = std::filesystem::current_path();
  Folder folder;
  std::filesystem::current_path(std::filesystem::path(folder.file("x")).parent_path());
  for (const std::string path : {"out.vhd", "disk-12:30.qcow2"}) {
    INFO(path);
    media::TargetOptions options;
    options.image_bytes = (64 << 20) + 3 * 512;
    {
      auto target = media::open_target(path, options);
      INFO((target.ok() ? "" : target.error().to_string()));
      REQUIRE(target.ok());
      REQUIRE((*target)->finish().ok());
    }
    auto source = media::open_source(path, {});
    INFO((source.ok() ? "" : source.error().to_string()));
    REQUIRE(source.ok());
    CHECK((*source)->bytes() == options.image_bytes);
  }
  std::filesystem::current_path(before);
}

TEST_CASE("a raw file that becomes shorter is an error, not holes to the end") {
  Folder folder;
  const std::string path = folder.file("disk.raw");
  Bytes data(1 << 20, 7);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  auto source = media::open_source(path, {});
  REQUIRE(source.ok());
  CHECK((*source)->still_whole().ok());
  std::filesystem::resize_file(path, 512 << 10);
  const auto next = (*source)->next_data(600 << 10);
  REQUIRE(!next.ok());
  CHECK(next.error().message.find("became shorter") != std::string::npos);
  CHECK(!(*source)->still_whole().ok());
}

TEST_CASE("programs that are missing or fail are named") {
#if !defined(__SANITIZE_THREAD__)  // it makes a fork of vfork: the child's failure is not seen
  const auto missing = media::run({"dims-no-such-program"});
  REQUIRE(!missing.ok());
  CHECK(missing.error().message.find("dims-no-such-program") != std::string::npos);
#endif
  const auto failed = media::run({"sh", "-c", "echo out; echo err >&2; exit 3"});
  REQUIRE(failed.ok());
  CHECK(failed->exit_code == 3);
  CHECK(failed->out == "out\n");
  CHECK(failed->err == "err\n");
}
